"""The students' benchmark: it measures every kind of layer, counts work rightly, and judges the paper's claims."""

import json

import pytest

from tests.support.benchmarks import fill_readme, run


@pytest.fixture
def speaker(load):
    return load("speaker")


@pytest.fixture
def models(load):
    return load("speaker_models")


@pytest.mark.exhaustive
def test_a_quick_run_writes_tables_that_a_readme_can_hold(tmp_path):
    arguments = ("--quick", "--rounds", 1, "--threads", 1, "--lengths", 4, "--out", tmp_path)
    done = run("speaker.py", *arguments, "--models", "transformer", "sv_mixer")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "speaker.json").read_text())
    assert {"processor", "torch", "date", "command"} <= set(result["machine"])
    assert set(result["lengths"]) == {"4"} and result["n_layers"] == 2
    assert (tmp_path / "speaker.png").stat().st_size > 10_000
    names = ["conditions", "layers", "students", "lengths"]
    text = fill_readme(tmp_path, [f"speaker_{name}" for name in names])
    assert text.count("| sv_mixer |") == 3 and not (tmp_path / "speaker_claims.json").exists()


@pytest.mark.parametrize("name", ["sv_mixer", "bimamba"])
@pytest.mark.parametrize("seconds", [1, 4])
def test_an_utterance_of_any_length_gets_one_embedding(speaker, name, seconds):
    embedding = speaker.embed_call(name, "quick", 1, seconds)()
    assert embedding.shape == (192,) and embedding.isfinite().all()


def test_the_work_of_a_layer_is_what_its_parts_add_up_to(models):
    width, frames = 64, 149
    attention = 4 * width**2 + 2 * width * 2 * width
    assert models.layer_work("transformer", "quick") == (
        frames * attention,
        2 * frames**2 * width,
    )
    inner, states, rank = width, 16, width // 8
    block = width * 2 * inner + inner * width
    block += 2 * (inner * (rank + 2 * states) + rank * inner + 4 * inner)
    assert models.layer_work("bimamba", "quick") == (frames * block, 6 * frames * inner * states)


def test_a_students_work_grows_by_its_layers(models):
    layer = models.layer_work("sv_mixer", "quick")[0]
    two, five = (models.student_work("sv_mixer", "quick", layers)[0] for layers in (2, 5))
    assert five - two == 3 * layer
    front_end = 16 * 10 * 9599 + sum(
        16 * 16 * kernel * frames
        for kernel, frames in zip(
            (3, 3, 3, 3, 2, 2), (4799, 2399, 1199, 599, 299, 149), strict=True
        )
    )
    assert two - 2 * layer > front_end + 149 * 16 * 64


def test_a_claim_holds_from_the_papers_saving_on(speaker):
    transformer = {"parameters": 100, "work": 100}
    for sizes, holds in (((45, 50.4), [True, True]), ((46, 52), [False, False])):
        layers = {
            "transformer": transformer,
            "sv_mixer": dict(zip(("parameters", "work"), sizes, strict=True)),
        }
        assert [claim["holds"] for claim in speaker.check_claims(layers)] == holds
    assert speaker.check_claims({"transformer": transformer}) == []


def test_a_claim_says_true_or_false_in_its_table(load):
    claims = [
        {"claim": "a layer computes less", "paper": 49.6, "here": here, "holds": holds}
        for here, holds in ((50.2, True), (30.0, False))
    ]
    rows = load("speaker_tables").claims_table({"claims": claims})
    assert [list(row.values())[1:] for row in rows] == [
        ["49.6 %", "50.2 %", "true"],
        ["49.6 %", "30.0 %", "false"],
    ]

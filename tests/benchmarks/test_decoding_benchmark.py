"""The benchmarks of decoding and of gradient checkpointing: they measure what they name, and compare before they do."""

import json

import numpy as np
import pytest
import soundfile
import torch

from mamba_speech.asr.tokenizer import Tokenizer
from tests.support.benchmarks import fill_readme, run
from tests.support.recognition import write_run


@pytest.mark.exhaustive
def test_a_quick_run_measures_every_part_and_writes_tables_that_the_readme_can_hold(tmp_path):
    done = run("decoding.py", "--threads", 1, "--quick", "--rounds", 1, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "decoding.json").read_text())
    assert {"processor", "threads", "torch", "date", "command"} <= set(result["machine"])
    decoders = result["forward_step"]["decoders"]
    assert len(decoders) == 4 and all(len(d["each_step"]) == 5 for d in decoders.values())
    assert result["forward_step"]["worst_difference"] < 1e-4
    carried = [r["step"] for r in result["flat"] if r["decoder"] == "Mamba, state carried"]
    assert carried == [2, 4, 8]
    rows = result["search"]["rows"]
    assert {(row["ctc"], row["lm"].split(",")[0]) for row in rows} >= {
        ("none", "none"),
        ("CTC exact", "none"),
        ("CTC pruned", "none"),
        ("CTC, SpeechBrain's full", "none"),
        ("CTC exact", "TransformerLM"),
        ("CTC exact", "MambaLM"),
    }
    assert all(row["seconds"] > 0 and row["steps"] == 5 for row in rows)
    assert [row["vocabulary"] for row in result["ctc"]] == [20, 40]
    assert all(max(row["difference"].values()) < 1e-3 for row in result["ctc"])
    assert (tmp_path / "decoding.png").stat().st_size > 10_000
    mini = {(row["batch"], row["decoding"]): row for row in result["mini"]}
    assert len(mini) == 10 and mini[8, "Mamba decoder, compiled"]["largest_difference"] < 1e-4
    parts = ("forward_step", "flat", "search", "mini", "ctc", "lm", "conditions")
    text = fill_readme(tmp_path, [f"decoding_{part}" for part in parts])
    assert text.count("\n| Mamba, state carried |") >= 4 and "\n| TransformerLM |" in text


@pytest.mark.exhaustive
def test_checkpointing_is_compared_in_time_memory_and_gradients(tmp_path):
    done = run(
        *("checkpointing.py", "--threads", 1, "--batch", "1x1", "--rounds", 1, "--out", tmp_path)
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "checkpointing.json").read_text())
    assert result["largest_difference_of_gradients"] < 1e-4
    assert set(result["seconds"]) == set(result["bytes"]) == {"plain", "checkpointed"}
    if result["bytes"]["plain"] is not None:
        assert result["bytes"]["checkpointed"] < result["bytes"]["plain"]
    text = fill_readme(tmp_path, ["checkpointing_step", "checkpointing_conditions"])
    assert "| 1 x 1 s | checkpointed |" in text


@pytest.fixture
def trained(tmp_path):
    """A run of random weights, and a corpus of two utterances."""
    tokenizer_file = tmp_path / "tokenizer.model"
    Tokenizer.train(["one two three four"], tokenizer_file, "char", size=30)
    folder = tmp_path / "run"
    write_run(
        folder,
        "S2S/conmambamamba_debug.yaml",
        tokenizer_file,
        {"token_error": 50.0},
        max_decode_ratio=0.3,
    )
    chapter = tmp_path / "corpus" / "LibriSpeech" / "test-clean" / "1" / "2"
    chapter.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(scale=0.1, size=16000)
    for number in range(2):
        soundfile.write(chapter / f"1-2-000{number}.flac", noise, 16000)
    (chapter / "1-2.trans.txt").write_text("1-2-0000 ONE TWO\n1-2-0001 THREE\n")
    return folder, tmp_path / "corpus"


def test_a_trained_run_is_measured_with_each_scoring_and_beam(trained, tmp_path, load, capsys):
    folder, corpus = trained
    command = ["--run", folder, "--data_folder", corpus, "--split", "test-clean", "--beams", 2, 3]
    command += ["--scorings", "none", "exact", "full", "--threads", 1, "--out", tmp_path / "out"]
    assert load("decoding").main([str(word) for word in command]) == 0
    result = json.loads((tmp_path / "out" / "decoding_wer.json").read_text())["trained_run"]
    assert result["utterances"] == 2 and result["words"] == 3
    assert result["audio"] == pytest.approx(2.0)
    found = {(row["scoring"], row["beam"]): row for row in result["rows"]}
    assert set(found) == {(s, b) for s in ("none", "exact", "full") for b in (2, 3)}
    # two ways to the same scores
    assert all(found["exact", beam]["errors"] == found["full", beam]["errors"] for beam in (2, 3))
    assert "| exact | 2 |" in fill_readme(tmp_path / "out", ["decoding_trained_run"])


def test_a_run_without_its_corpus_is_refused(load, capsys):
    with pytest.raises(SystemExit):
        load("decoding").options_of(["--run", "somewhere"])
    assert "--run needs --data_folder and --split" in capsys.readouterr().err


def test_a_folder_that_holds_no_run_is_named(trained, tmp_path, load):
    _, corpus = trained
    command = ["--run", tmp_path, "--data_folder", corpus, "--split", "test-clean"]
    with pytest.raises(SystemExit, match="hyperparams.yaml"):
        load("decoding").main([str(word) for word in (*command, "--out", tmp_path / "out")])


def test_scores_that_differ_stop_the_measurement(load, monkeypatch):
    decoding = load("decoding")
    options = decoding.options_of(["--quick", "--rounds", "1"])
    forward_step = decoding.SEARCHERS["Mamba, state carried"][1].forward_step

    class Wrong(decoding.SEARCHERS["Mamba, state carried"][1]):
        def forward_step(self, *arguments):
            log_probs, memory, attention = forward_step(self, *arguments)
            return log_probs + 0.01, memory, attention

    monkeypatch.setitem(decoding.SEARCHERS, "Mamba, state carried", ("mamba", Wrong))
    wrong = pytest.raises(RuntimeError, match="scores differ from the re-run by 1.0e-02")
    with torch.no_grad(), wrong:
        decoding.measure_forward_step(decoding.QUICK, options)


def test_every_scorer_is_put_through_the_same_number_of_steps(load):
    models = load("decoding_models")
    sizes, steps = models.QUICK, 4
    for name in (models.STATEFUL, models.TRANSFORMER):
        modules = models.network(models.SEARCHERS[name][0], sizes)
        for builder in (None, models.builder(models.EXACT, sizes)):
            search = models.searcher(name, sizes, modules, steps, builder)
            search.return_topk, search.topk = True, sizes.beam
            hypotheses, *_ = search(models.memory(sizes), torch.ones(1))
            assert hypotheses.shape == (1, sizes.beam, steps)


@pytest.mark.parametrize(
    ("re_run", "verdict"), [(5.1, "at least 5: met"), (4.9, "at least 5: missed")]
)
def test_the_speedup_is_that_of_the_sum_of_all_steps(load, re_run, verdict):
    def figures(seconds):
        return {
            "rounds": 1,
            "prefill": 0.1,
            "forward_step": seconds,
            "permute_mem": 0.0,
            "each_step": [seconds / 2] * 2,
        }

    decoders = {"Mamba, state carried": figures(1.0), "Mamba, prefix re-run": figures(re_run)}
    decoders["Transformer, prefix re-run"] = figures(9.0)
    rows = load("decoding_tables").forward_step_table({"steps": 2, "decoders": decoders})
    assert [row["goal"] for row in rows] == ["-", verdict, "-"]
    assert [row["times the first"] for row in rows] == ["1.0", f"{re_run:.1f}", "9.0"]


@pytest.mark.parametrize(("last", "verdict"), [(1.05, "met"), (1.2, "missed")])
def test_flat_means_that_no_step_takes_a_tenth_longer_than_another(load, last, verdict):
    rows = [
        {"decoder": "Mamba, state carried", "step": step, "seconds": seconds}
        for step, seconds in ((5, 1.0), (20, 1.02), (500, last))
    ]
    rows.append({"decoder": "Transformer, prefix re-run", "step": 5, "seconds": 3.0})
    table = load("decoding_tables").flat_table(rows)
    assert [row["goal"] for row in table] == [f"at most 1.1: {verdict}", "-"]
    assert table[1]["step 500"] == "-"


def test_a_search_cut_short_says_from_how_many_steps_its_time_is(load):
    row = {"decoder": "d", "ctc": "CTC, SpeechBrain's full", "lm": "none", "rounds": 1}
    row |= {"steps": 6, "seconds": 12.0}
    (cells,) = load("decoding_tables").search_table({"steps": 60, "audio": 10.0, "rows": [row]})
    assert cells["60 steps, s"] == "120.00 (from 6 steps)"
    assert cells["ms a step"] == "2000.0" and cells["real-time factor"] == "12.00"

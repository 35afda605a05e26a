"""Streaming recipes: chunks that each batch draws, runs that resume exactly, and use of what was trained."""

import re
import shutil
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from tests.support.recipes import ROOT
from tests.support.recognition import SPLITS, weights
from training.results import read_rows

# options under which more epochs do not change what the first one does
RESUMABLE = {"total_steps": 20, "max_batch_length_train": 10, "dropout": 0.1}


def run_options(**options):
    """Options of a run that has chunks to draw."""
    plain = {"seed": 1, "causal": False, "chunk_sizes": [2, 5, 9], "full_context_share": 0.25}
    return SimpleNamespace(**plain | options)


def draws(module, count=400, **options):
    """Sizes of chunks that the batches of an epoch draw."""
    drawn = (module.drawn_chunks(run_options(**options), 1, step) for step in range(1, count + 1))
    return [None if one is None else one.chunk_size for one in drawn]


def test_each_batch_draws_its_chunks_by_seed_epoch_and_number(import_recipe):
    module = import_recipe("chunk_sizes")
    sizes = draws(module)
    assert sizes == draws(module)
    state = torch.get_rng_state()
    assert sizes != draws(module, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    other_epoch = [module.drawn_chunks(run_options(), 2, step) for step in range(1, 401)]
    assert sizes != [one and one.chunk_size for one in other_epoch]
    counts = Counter(sizes)
    assert counts.keys() == {None, 2, 5, 9}
    assert all(70 < count < 130 for count in counts.values())


def test_the_share_of_whole_utterances_is_kept_and_some_recipes_draw_nothing(import_recipe):
    module = import_recipe("chunk_sizes")
    assert set(draws(module, full_context_share=1.0)) == {None}
    assert None not in draws(module, full_context_share=0.0)
    for options in ({"causal": True}, {"chunk_sizes": None}):
        assert set(draws(module, **options)) == {None}
    assert module.drawn_chunks(SimpleNamespace(seed=1, causal=False), 1, 1) is None


def test_a_conformer_draws_how_much_of_the_past_a_batch_hears(import_recipe):
    module = import_recipe("chunk_sizes")
    options = run_options(left_contexts=[4, None])
    del options.causal
    drawn = [module.drawn_chunks(options, 1, step) for step in range(1, 401)]
    counts = Counter(one.left_context_size for one in drawn if one is not None)
    assert counts.keys() == {4, None} and all(110 < count < 190 for count in counts.values())
    sizes = [one and one.chunk_size for one in drawn]
    # the chunks are drawn as those of a ConMamba are
    assert sizes == draws(module)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["CTC", "S2S"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(kind, call_main, spoken, tmp_path):
    options = SPLITS | RESUMABLE | {"data_folder": spoken}
    if kind == "S2S":
        options |= {"test_beam_size": 1, "max_decode_ratio": 0.2}
    whole, parts, other = (tmp_path / name for name in ("whole", "parts", "other"))
    for epochs in (1, 2):
        call_main(
            kind,
            "conmamba_streaming_debug",
            **options,
            output_folder=parts,
            number_of_epochs=epochs,
        )
        if epochs == 1:
            shutil.copytree(parts, other)
    call_main(kind, "conmamba_streaming_debug", **options, output_folder=whole, number_of_epochs=2)
    expected, found = weights(whole), weights(parts)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert read_rows(whole)["test-spoken"]["fidelity"] == "corrected"
    # other chunks in the second epoch make another model: they are drawn, and they act
    call_main(
        kind,
        "conmamba_streaming_debug",
        **options | {"chunk_sizes": "[1]", "full_context_share": 0.0},
        output_folder=other,
        number_of_epochs=2,
    )
    assert any(not torch.equal(expected[key], x) for key, x in weights(other).items())


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["CTC", "S2S"])
def test_a_causal_recogniser_trains(kind, call_main, spoken, tmp_path):
    narrow = {} if kind == "CTC" else {"test_beam_size": 1, "max_decode_ratio": 0.2}
    call_main(
        kind,
        "conmamba_streaming_debug",
        **SPLITS | narrow,
        data_folder=spoken,
        output_folder=tmp_path / "run",
        causal=True,
        optimizer_step_limit=2,
    )
    assert read_rows(tmp_path / "run")["test-spoken"]["optimizer_steps"] == 2
    assert not any("_b." in key for key in weights(tmp_path / "run"))


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "hparams/LibriSpeech/ASR").glob("*/conmamba_streaming_*.yaml")),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_a_streaming_recipe_has_every_option_of_the_plain_one(path):
    plain = path.with_name(path.name.replace("_streaming", ""))
    options, plain_options = (
        set(re.findall(r"^(\w+):", one.read_text(encoding="utf-8"), re.MULTILINE))
        for one in (path, plain)
    )
    assert not plain_options - options

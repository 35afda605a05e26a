"""Recognition and language model: what is learnt does not depend on the loader's workers."""

import sys

import pytest
import torch

from tests.support.recipes import START_METHODS, one_thread, workers_started_by
from tests.support.recognition import RECIPE, SPLITS, weights

SMALL = {"d_model": 16, "d_ffn": 16, "num_encoder_layers": 3, "max_batch_length_train": 15}
SMALL |= {"output_neurons": 40, "number_of_epochs": 1, "speed_changes": "[90, 100, 110]"}
# both read by the same loader
YAMLS = [
    ("CTC", "conmamba_debug"),
    pytest.param("S2S", "conmambamamba_debug", marks=pytest.mark.exhaustive),
]


@pytest.fixture(scope="module")
def without_workers():
    """Weights of trainings without workers, by kind."""
    return {}


@pytest.mark.parametrize("method", START_METHODS)
@pytest.mark.parametrize("kind, yaml", YAMLS)
def test_what_a_recogniser_learns_does_not_depend_on_workers_and_their_start(
    kind, yaml, method, call_main, spoken, tmp_path, without_workers
):
    @one_thread()
    def learnt(workers):
        options = SMALL | SPLITS | {"data_folder": spoken, "num_workers": workers}
        folder = tmp_path / str(workers)
        flags = {} if kind == "CTC" else {"valid_beam_size": 1, "test_beam_size": 1}
        call_main(kind, yaml, **options, **flags, output_folder=folder)
        return weights(folder)

    if kind not in without_workers:
        without_workers[kind] = learnt(0)
    with workers_started_by(method):
        found = learnt(2)
    assert all(torch.equal(found[key], value) for key, value in without_workers[kind].items())


@pytest.mark.parametrize("method", START_METHODS)
def test_what_a_language_model_learns_does_not_depend_on_workers_and_their_start(
    method, import_recipe, tmp_path, monkeypatch
):
    text = tmp_path / "text.txt"
    words = ("ANNA", "PETER", "SEES", "HEARS", "A BIRD", "THE SEA")
    text.write_text("".join(f"{a} {b}\n" for a in words for b in words))
    script = import_recipe("train_LM")

    @one_thread()
    def learnt(workers):
        options = {"text_files": text, "output_folder": tmp_path / str(workers), "d_model": 16}
        options |= {"num_layers": 1, "output_neurons": 20, "max_batch_length_train": 60}
        options |= {"number_of_epochs": 1, "num_workers": workers, "valid_fraction": 0.3}
        arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        yaml = str(RECIPE / "hparams" / "LM" / "mamba_debug.yaml")
        monkeypatch.setattr(sys, "argv", ["train_LM.py", yaml, "--noprogressbar", *arguments])
        script.main()
        return weights(tmp_path / str(workers))

    alone = learnt(0)
    with workers_started_by(method):
        found = learnt(2)
    assert all(torch.equal(found[key], value) for key, value in alone.items())

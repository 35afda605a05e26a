"""Separation: what is learnt does not depend on the loader's workers."""

import pytest
import torch

from tests.support.recipes import call_main, checkpoints, one_thread, workers_started_by
from tests.support.separation import (
    RECIPE,
    SMALL,
    command_line,
    weights,
    write_speakers,
    write_tree,
)

DYNAMIC = [
    (True, "fork"),
    pytest.param(True, "forkserver", marks=pytest.mark.exhaustive),
    pytest.param(True, "spawn", marks=pytest.mark.exhaustive),
]


# static mixtures are read like those of validation, which the other cases start workers for
STATIC = pytest.param(False, "fork", marks=pytest.mark.exhaustive)


@pytest.mark.parametrize("dynamic, method", [STATIC, *DYNAMIC])
def test_what_a_separator_learns_does_not_depend_on_workers_and_their_start(
    dynamic, method, tmp_path
):
    tree, speech = write_tree(tmp_path / "tree"), write_speakers(tmp_path / "speech")

    @one_thread()
    def learnt(workers):
        folder = tmp_path / str(workers)
        options = SMALL | {"data_folder": tree, "base_folder_dm": speech, "output_folder": folder}
        options |= {"number_of_epochs": 1, "metrics": "[si-snr]", "n_audio_to_save": 0}
        options |= {"num_workers": workers, "dynamic_mixing": dynamic, "use_rand_shift": True}
        options |= {"min_shift": -100, "max_shift": 100}
        call_main(RECIPE, "train", *command_line("mambatasnet_debug", **options))
        return weights(checkpoints(folder)[-1])

    alone = learnt(0)
    with workers_started_by(method):
        found = learnt(2)
    assert all(torch.equal(found[key], value) for key, value in alone.items())

"""Speaker verification: what is learnt does not depend on the loader's workers."""

import pytest
import torch

from tests.support.recipes import START_METHODS, checkpoints, one_thread, workers_started_by
from tests.support.speakers import SMALL, train_here

# everything that draws: recordings, crops and their length, speeds, noise, rooms, tempo
DRAWS = {"speeds": "[100, 90, 110]", "crops_per_speaker": 4, "time_stretch": "[0.9, 1.1]"}
DRAWS |= {"augment_probability": 0.8, "number_of_epochs": 1, "skip_test": True}


@pytest.mark.parametrize("method", START_METHODS)
def test_what_an_encoder_learns_does_not_depend_on_workers_and_their_start(
    method, voices, sounds, tmp_path
):
    @one_thread()
    def learnt(workers):
        options = SMALL | DRAWS | {"noise_folder": sounds / "noise", "rir_folder": sounds / "rooms"}
        options |= {"data_folder": voices, "output_folder": tmp_path / str(workers)}
        folder = train_here("debug", small=SMALL, **options | {"num_workers": workers})
        return torch.load(checkpoints(folder)[-1] / "model.ckpt", weights_only=True)

    alone = learnt(0)
    with workers_started_by(method):
        found = learnt(2)
    assert all(torch.equal(found[key], value) for key, value in alone.items())

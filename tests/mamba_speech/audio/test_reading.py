"""Reading recordings."""

import soundfile
import torch

from mamba_speech.audio import load_audio


def test_a_part_of_a_file_is_counted_in_its_own_samples(tmp_path):
    sound = torch.arange(8000) / 10000
    soundfile.write(tmp_path / "ramp.wav", sound.numpy(), 8000, "FLOAT")
    assert torch.equal(load_audio(tmp_path / "ramp.wav", 8000, 100, 300), sound[100:300])
    assert torch.equal(load_audio(tmp_path / "ramp.wav", 8000, 100), sound[100:])
    assert len(load_audio(tmp_path / "ramp.wav", 16000, 100, 300)) == 400

"""A run of a student that reads crops of one length, from loading to SpeechBrain's own class."""

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.inference.speaker import SpeakerRecognition

from mamba_speech import SpeakerVerifier
from mamba_speech.cli import main
from mamba_speech.export import export_run
from tests.support.verification import RATE, STUDENT_RUN, json_rows, write_run, write_voice


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("student") / "run", yaml=STUDENT_RUN)


@pytest.fixture
def voices(tmp_path):
    """Recordings shorter than a crop, of one crop, of one and a half, and of more than a window."""
    seconds = {"short": 0.7, "crop": 1.0, "more": 1.5, "long": 70.0}
    return {
        name: write_voice(tmp_path / "in" / f"{name}.wav", number, length)
        for number, (name, length) in enumerate(seconds.items())
    }


def crops_of(name, sound):
    """The crops that the embedding is to be the mean of, without the long recording's."""
    if name == "short":
        return [np.resize(sound, RATE)]
    return [sound] if name == "crop" else [sound[:RATE], sound[-RATE:]]


def test_a_run_of_a_student_verifies_embeds_and_is_exported(run, voices, tmp_path, capsys):
    verifier = SpeakerVerifier.load(run, "cpu")
    found = {name: verifier.embed(path).vector for name, path in voices.items()}
    for name in ("short", "crop", "more"):
        sound, _ = soundfile.read(voices[name], dtype="float32")
        with torch.no_grad():
            crops = torch.from_numpy(np.stack(crops_of(name, sound)))
            expected = verifier.model(crops).mean(0).numpy()
        assert found[name] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    out = tmp_path / "out"
    assert main(["embed", str(run), str(tmp_path / "in"), "--output_folder", str(out)]) == 0
    assert all(np.array_equal(np.load(out / f"{name}.npy"), found[name]) for name in found)
    capsys.readouterr()
    files = [str(voices[name]) for name in ("short", "short", "crop", "more", "long")]
    assert main(["verify", str(run), *files, "--json"]) == 0
    scores = [row["score"] for row in json_rows(capsys.readouterr().out)]
    assert scores[0] == 1.0 and max(scores[1:]) < 1
    assert [verifier.verify(one, files[0]).score for one in files[1:]] == scores
    export_run(run, tmp_path / "saved")
    with pytest.raises(FileExistsError, match="holds files"):
        export_run(run, run)
    assert np.array_equal(SpeakerVerifier.load(run, "cpu").embed(files[0]).vector, found["short"])
    loaded = SpeakerRecognition.from_hparams(str(tmp_path / "saved"), savedir=str(tmp_path / "had"))
    waves = [torch.from_numpy(soundfile.read(one, dtype="float32")[0])[None] for one in files]
    theirs = [float(loaded.verify_batch(waves[0], wave)[0]) for wave in waves[1:]]
    assert theirs == pytest.approx(scores, abs=1e-5)

"""The baselines of the keyword recipe, trained and then used as any other run."""

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.inference.classifiers import EncoderClassifier

from mamba_speech.cli import main
from mamba_speech.export import export_run
from mamba_speech.kws.spotter import KeywordSpotter
from tests.support.keywords import RATE, SMALL, TASK, WORDS, say, train_here, write_corpus


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("tones") / "corpus")


@pytest.mark.parametrize("yaml", ["gru", "ds_cnn"])
def test_a_baseline_trains_spots_and_goes_to_speechbrain(yaml, tones, tmp_path, capsys):
    options = TASK | SMALL | {"data_folder": tones, "number_of_epochs": 1, "pad_clips": False}
    # every noise is made, none read
    options |= {"background_probability": 1, "background_generated": 1}
    run = train_here(yaml, small=SMALL, output_folder=tmp_path / "run", **options)
    clips = [torch.from_numpy(say(word, "00000001", 0.4 + 0.2 * n)) for n, word in enumerate(WORDS)]
    clips = [clip.float() for clip in clips]
    spotter = KeywordSpotter.load(run, "cpu")
    probabilities = spotter.class_probabilities(clips)
    for clip, row in zip(clips, probabilities, strict=True):
        assert torch.allclose(spotter.class_probabilities([clip])[0], row, atol=1e-4)

    recording = tmp_path / "up.wav"
    soundfile.write(recording, np.pad(say("up", "00000001"), RATE), RATE)
    capsys.readouterr()
    assert main(["spot", str(run), str(recording), "--threshold", "0"]) == 0
    heard = capsys.readouterr().out.splitlines()
    assert heard and {line.split("\t")[3] for line in heard} <= set(WORDS)

    export_run(run, tmp_path / "saved")
    loaded = EncoderClassifier.from_hparams(
        str(tmp_path / "saved"), savedir=str(tmp_path / "loaded"), run_opts={"device": "cpu"}
    )
    scores, *_ = loaded.classify_batch(clips[2][None])
    assert torch.allclose(scores.exp()[0], probabilities[2], atol=1e-4)

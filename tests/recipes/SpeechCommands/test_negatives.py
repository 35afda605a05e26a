"""What a spotter must stay silent at: silences of every level, and pieces of speech on which it rang."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch

from mamba_speech.audio import load_audio
from mamba_speech.kws.spotter import KeywordSpotter
from tests.support.keywords import RATE, SMALL, SPEAKERS, say, train_here
from tests.support.recipes import checkpoints, read_csv

STREAM = {"words": "[up,down]", "n_classes": 4, "split": "lists", "unknown_percentage": 10}
STREAM |= {"causal": True, "context_seconds": 1.5}
# ends of a sweep: the loudest and the quietest silences that are computed differ by 84 dB
LOUD, QUIET = 10 ** (-20 / 20), 10 ** (-60 / 20)


def weights(folder):
    return torch.load(checkpoints(folder)[-1] / "model.ckpt", weights_only=True)


def test_computed_silences_are_digital_silence_or_finite_noise_of_every_level(recipe):
    source = recipe("silence").SilenceSource(RATE, 1.0, (0.0, 0.0))
    torch.manual_seed(0)
    clips, before = zip(*(source(torch.ones(RATE), RATE // 2) for _ in range(150)), strict=True)
    levels = torch.stack([clip.square().mean().sqrt() for clip in clips])
    assert all(clip.shape == (RATE,) and clip.isfinite().all() for clip in clips)
    assert max(clip.abs().max() for clip in clips) <= 1
    for part in (levels == 0, levels > LOUD, (levels > 0) & (levels < QUIET)):
        assert part.sum() > 5
    ahead = [one for one in before if one is not None]
    assert 30 < len(ahead) < 120 and all(one.shape == (RATE // 2,) for one in ahead)


def test_the_level_of_a_crop_is_changed_within_its_bounds(recipe):
    source = recipe("silence").SilenceSource(RATE, 0.0, (-40.0, 10.0))
    crop = 0.05 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    changes = [float(20 * torch.log10(source(crop)[0].norm() / crop.norm())) for _ in range(60)]
    assert -40.1 < min(changes) < -30 and 0 < max(changes) < 10.1
    with pytest.raises(ValueError, match="silence_db"):
        recipe("silence").SilenceSource(RATE, 0.0, (10.0, -40.0))


def test_the_loss_of_the_context_counts_the_hardest_moments_and_spares_other_classes(recipe):
    loss = recipe("train").no_keyword_loss
    logits = torch.randn(40, 4, requires_grad=True)
    quiet = [False, True, False, True]
    probabilities = logits.softmax(1)[:, [1, 3]].sum(1)
    everything = -probabilities.log()
    assert torch.allclose(loss(logits, quiet, 1.0), everything.mean())
    assert torch.allclose(loss(logits, quiet, 0.1), everything.topk(4).values.mean())
    loss(logits, quiet, 0.1).backward()
    assert (logits.grad.abs().sum(1) > 0).sum() == 4


@pytest.fixture(scope="session")
def stream_options(tones, tmp_path_factory):
    """Options of a run with hard negatives, on tones whose training speakers also say other speech."""
    folder = shutil.copytree(tones, tmp_path_factory.mktemp("negatives") / "corpus")
    (folder / "_other_speech_").mkdir()
    for speaker in SPEAKERS:
        # fluent tones: the words themselves among them, so that a network is sure to ring
        parts = [say(word, speaker) for word in ("down", "up", "stop", "up")]
        path = folder / "_other_speech_" / f"{speaker}_nohash_0.wav"
        soundfile.write(path, np.concatenate(parts), RATE, "PCM_16")
    for name, chosen in (("testing", SPEAKERS[-2:]), ("validation", SPEAKERS[-4:-2])):
        with open(folder / f"{name}_list.txt", "a", encoding="utf-8") as file:
            file.writelines(f"_other_speech_/{one}_nohash_0.wav\n" for one in chosen)
    options = STREAM | {"data_folder": folder, "other_speech_percentage": 50}
    # so light a loss that the network goes on to ring
    options |= {"hard_negatives": 0.7, "context_loss": 1e-3, "context_hardest": 0.3}
    return options | {"computed_silence": 0.5, "silence_db": "[-40,10]", "lr": 0.01}


@pytest.mark.exhaustive
def test_a_run_resumed_with_hard_negatives_ends_where_an_undisturbed_one_does(
    stream_options, tmp_path
):
    options = stream_options | {"total_steps": 9, "batch_size": 4}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_here("debug", small=SMALL, **options, number_of_epochs=3, output_folder=whole)
    # where the corpus lies does not matter
    moved = shutil.copytree(options["data_folder"], tmp_path / "moved")
    for epochs, folder in ((1, options["data_folder"]), (2, moved), (3, moved)):
        options |= {"number_of_epochs": epochs, "data_folder": folder}
        train_here("debug", small=SMALL, **options, output_folder=parts)
    a, b = weights(whole), weights(parts)
    assert all(torch.equal(a[key], b[key]) for key in a)
    found = [
        json.loads((checkpoints(folder)[-1] / "hard_negatives.ckpt").read_text())
        for folder in (whole, parts)
    ]
    assert found[0] == found[1] and found[0]["pieces"] and found[0]["noises"]
    rows = [row for row in read_csv(whole / "train.csv") if row["words"] == "_other_speech_"]
    paths = list(dict.fromkeys(row["wav"] for row in rows))
    for number, start, stop, confidence in found[0]["pieces"]:
        assert stop - start == RATE and confidence >= 0.25
        assert 0 <= start and stop <= len(load_audio(paths[number], RATE))


def test_pieces_on_which_the_spotter_rings_take_the_place_of_other_speech(
    recipe, stream_options, tmp_path
):
    folder = tmp_path / "run"
    train_here("debug", small=SMALL, **stream_options, number_of_epochs=1, output_folder=folder)
    HardNegatives = recipe("hard_negatives").HardNegatives
    spotter = KeywordSpotter.load(folder, "cpu")
    options = {"sample_rate": RATE, "pad_clips": True, "clip_seconds": 1.0, "causal": True}
    options |= {"compute_features": spotter.compute_features, "model": spotter.model.train()}
    rows = [row for row in read_csv(folder / "train.csv") if row["words"] == "_other_speech_"]
    paths = list(dict.fromkeys(row["wav"] for row in rows))
    hard = HardNegatives(paths, share=1.0, seconds=1.0, minutes=0.1)
    hard.search(options, spotter.labels, "cpu")
    assert spotter.model.training
    # two recordings of 3.6 s are six seconds and more: the next search goes on behind them
    assert {piece[0] for piece in hard.pieces} <= {0, 1}
    state = tmp_path / "state.json"
    hard.save(state)
    again = HardNegatives(paths, share=1.0, seconds=1.0, minutes=0.1)
    again.load(state)
    assert again.pieces == hard.pieces
    hard.search(options, spotter.labels, "cpu")
    again.search(options, spotter.labels, "cpu")
    assert again.pieces == hard.pieces

    waveforms = recipe("waveforms")
    hard.pieces = [[0, 8000, 24000, 0.9]]
    read = waveforms.ClipReader(RATE, RATE, pad=True)
    plain = waveforms.ClipAugmenter(RATE)
    context = waveforms.ContextSource(RATE, 0.5, 512, [(paths[1], 0, RATE, 1.0)], [], hard)
    changed = waveforms.ChangedClipReader(read, plain, context, None, hard)
    clip, samples, ahead, _ = changed(paths[1], 0, RATE, "_unknown_", "_other_speech_")
    wanted = load_audio(paths[0], RATE, 8000, 24000)
    assert samples == ahead + RATE and torch.equal(clip[ahead:], wanted)
    assert torch.equal(clip[:ahead], wanted[-ahead:])
    # a word stays what it is
    clip, *_ = changed(paths[1], 0, RATE, "up", "up")
    assert torch.equal(clip[ahead:], load_audio(paths[1], RATE, 0, RATE))


@pytest.mark.exhaustive
def test_computed_noises_on_which_the_spotter_rings_take_the_place_of_new_ones(
    recipe, stream_options, tmp_path
):
    folder = tmp_path / "run"
    train_here("debug", small=SMALL, **stream_options, number_of_epochs=1, output_folder=folder)
    silence, HardNegatives = recipe("silence"), recipe("hard_negatives").HardNegatives
    spotter = KeywordSpotter.load(folder, "cpu")
    options = {"sample_rate": RATE, "pad_clips": True, "clip_seconds": 1.0, "causal": True}
    options |= {"compute_features": spotter.compute_features, "model": spotter.model}
    hard = HardNegatives([], share=1.0, seconds=1.0, minutes=0.1, noises=True)
    hard.search(options, spotter.labels, "cpu")
    assert hard.pieces == [] and hard.noises
    keywords = [at for at, label in enumerate(spotter.labels) if not label.startswith("_")]
    for seed, confidence in hard.noises[:20]:
        clip = silence.compute_noise(RATE, RATE, seed)
        heard = spotter.class_probabilities([clip])[0, keywords].max()
        assert heard == pytest.approx(confidence, abs=1e-5) and confidence >= 0.25
    hard.noises = hard.noises[:1]
    source = silence.SilenceSource(RATE, 1.0, (0.0, 0.0), hard)
    clip, _ = source(torch.ones(RATE))
    assert torch.equal(clip, silence.compute_noise(RATE, RATE, hard.noises[0][0]))
    # what no longer rings is forgotten
    spotter.model.requires_grad_(False)
    hard.noises.append([10**6, 0.9])
    quiet = [label.startswith("_") for label in spotter.labels]
    list(spotter.model.modules())[-1].bias[quiet] += 50
    hard.search(options, spotter.labels, "cpu")
    assert hard.noises == []


def test_a_recording_that_is_gone_gives_no_hard_negatives_and_is_named(
    recipe, stream_options, tmp_path, capsys
):
    folder = tmp_path / "run"
    train_here("debug", small=SMALL, **stream_options, number_of_epochs=1, output_folder=folder)
    spotter = KeywordSpotter.load(folder, "cpu")
    options = {"sample_rate": RATE, "pad_clips": True, "clip_seconds": 1.0, "causal": True}
    options |= {"compute_features": spotter.compute_features, "model": spotter.model}
    hard = recipe("hard_negatives").HardNegatives([str(tmp_path / "gone.wav")], 1.0, 1.0, 1.0)
    hard.search(options, spotter.labels, "cpu")
    assert hard.pieces == [] and "gone.wav: no such file; it gives no" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"other_speech_percentage": 0}, "--hard_negatives come from other speech"),
        ({"context_seconds": 0, "hard_negatives": 0}, "--context_loss needs a context"),
        ({"silence_db": "[10,-40]"}, "--silence_db must be the lowest and the highest"),
        (
            {"words": "all", "n_classes": 3, "other_speech_percentage": 0, "hard_negatives": 0},
            "no keyword",
        ),
    ],
)
def test_options_that_make_no_sense_together_are_refused(stream_options, tmp_path, change, said):
    options = stream_options | change
    with pytest.raises(SystemExit, match=said):
        train_here("debug", small=SMALL, **options, number_of_epochs=1, output_folder=tmp_path)


def test_training_warns_once_of_a_model_without_unknown_and_silence_classes(tones, tmp_path):
    options = {"words": "all", "n_classes": 3, "split": "lists", "other_speech_percentage": 0}
    options |= {"data_folder": tones, "number_of_epochs": 1}
    train_here("debug", small=SMALL, **options, output_folder=tmp_path / "run")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("the model has no class _unknown_ and no class _silence_") == 1

"""The keyword recipe: every YAML and option, resuming, the one test at the end, what the training changes in clips."""

import json
import shutil
import sys

import pytest
import soundfile
import torch
import yaml
from speechbrain.utils.run_opts import RunOptions

from mamba_speech.audio import load_audio
from mamba_speech.evaluation.classification import ConfusionMatrix, wilson_interval
from tests.support.keywords import RATE, RECIPE, SPEAKERS, TASK, say, write_corpus
from tests.support.recipes import (
    check_output,
    check_record,
    checkpoints,
    load_options,
    logged,
    plain_options,
    read_csv,
    results,
    run_pasted,
    scripts,
)
from training.schedules import WarmupCosine

FOLDER = RECIPE / "hparams"
YAMLS = sorted(FOLDER.glob("*.yaml"))
# the debug recipe is trained in every run of the tests, the others in the exhaustive one
EACH = [
    pytest.param(p, id=p.stem, marks=() if p.stem == "debug" else pytest.mark.exhaustive)
    for p in YAMLS
]
# sizes only: the rest of each YAML stays as it is
SMALL = {"d_model": 16, "num_layers": 1, "nhead": 2, "alpha": 0.1, "num_workers": 0}
SMALL |= {"batch_size": 8, "n_mels": 32, "n_mfcc": 13, "n_fft": 512}


@pytest.fixture
def recipe(monkeypatch):
    """The recipe's scripts as modules, their folder being where Python looks first."""
    with scripts(monkeypatch, RECIPE) as load:
        yield load


@pytest.fixture
def run(train_here, tones, tmp_path):
    """Run train.py on the tones within this process; gives the output folder."""

    def train(name, *flags, **options):
        options = TASK | {"data_folder": tones, "output_folder": tmp_path / "run"} | options
        return train_here(name, *flags, small=SMALL, **options)

    return train


def weights(folder):
    return torch.load(checkpoints(folder)[-1] / "model.ckpt", weights_only=True)


@pytest.mark.parametrize("path", EACH)
def test_every_yaml_trains_saves_resumes_and_tests(path, run):
    folder = run(path.stem, **SMALL, number_of_epochs=1, avg_checkpoints=2)
    before = weights(folder)
    run(path.stem, **SMALL, number_of_epochs=2, avg_checkpoints=2)
    assert len(list(logged(folder))) == 2
    assert any(not torch.equal(before[key], value) for key, value in weights(folder).items())
    found = results(folder)
    assert found["fidelity"] == "corrected" and found["clips"] == 6
    check_record(folder, "train.py", {"train", "valid", "labels"})
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert (folder / "confusion_test.png").stat().st_size > 1000
    assert not list(folder.rglob("*.partial"))


def another(value):
    """A value of the same kind as ``value``, other than it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [30, 130]
    return value + 1 if isinstance(value, (int, float)) else "another"


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.stem)
def test_every_option_can_be_overridden_from_the_command_line(path, tmp_path):
    fixed = {"fidelity": "upstream", "precision": "fp16", "kind": "mel", "lr_floor": 0.5}
    # both cannot be; sizes must fit one another, and small ones are quick
    fixed |= {"causal": False, "bidirectional": True, "warmup_fraction": 0.5, "hop_length": 128}
    fixed |= {"d_model": 24, "num_layers": 2, "nhead": 3, "n_mels": 30, "n_mfcc": 30, "n_fft": 600}
    fixed |= {"dropout": 0.4, "alpha": 0.2}
    wanted = {key: fixed.get(key, another(value)) for key, value in plain_options(path).items()}
    wanted |= {"output_folder": str(tmp_path)}
    arguments = [str(path)]
    for key, value in wanted.items():
        text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
        arguments += [f"--{key}", text]
    hparams, run_opts = load_options(arguments)
    for key, value in wanted.items():
        # some belong to SpeechBrain's run options as well
        for got in (hparams[key], run_opts.get(key, value)):
            assert got == value or str(got) == str(value), key
    model, features = hparams["model"], hparams["compute_features"]
    assert model.fidelity == "upstream" and model.n_classes == wanted["n_classes"]
    assert (features.kind, features.hop_length, features.n_features) == ("mel", 128, 30)
    assert (hparams["freq_mask"].drop_length_high, hparams["time_mask"].drop_count_low) == (
        wanted["freq_mask_max"] + 1,
        wanted["mask_count"],
    )


def test_every_option_is_used_by_the_recipe_or_its_yaml():
    sources = "".join(path.read_text() for path in RECIPE.glob("*.py"))
    training = RECIPE.parents[2] / "training"
    sources += "".join(path.read_text() for path in training.glob("*.py"))
    run_options = set(RunOptions.__dataclass_fields__)
    for path in YAMLS:
        text = path.read_text()
        for key in plain_options(path):
            used = f'"{key}"' in sources or f"hparams.{key}" in sources or f"<{key}>" in text
            assert used or key in run_options, f"{path.name}: {key}"


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(run, tmp_path):
    options = {"total_steps": 10, "white_noise_max": 0.01}
    whole = run("debug", **options, number_of_epochs=2, output_folder=tmp_path / "whole")
    for epochs in (1, 2):
        parts = run("debug", **options, number_of_epochs=epochs, output_folder=tmp_path / "parts")
    a, b = weights(whole), weights(parts)
    assert all(torch.equal(a[key], b[key]) for key in a)
    # but for the date and what the machine spent, nothing in a result tells the two apart
    spent = {"train_seconds": 0, "peak_memory_mb": 0}
    assert {**results(whole), **spent} == {**results(parts), **spent}


def test_an_epoch_resumed_in_its_middle_is_logged_as_a_whole_one(run):
    options = {"total_steps": 8, "number_of_epochs": 2, "checkpoint_choice": "last"}
    options |= {"batch_size": 4, "ckpt_interval_minutes": 0, "ckpt_interval_steps": 3}
    folder = run("debug", **options)
    within, last = checkpoints(folder)
    assert "error" not in yaml.safe_load((within / "CKPT.yaml").read_text())
    shutil.rmtree(last)
    run("debug", **options)
    _, whole, resumed = ({**figures, "train seconds": 0} for figures in logged(folder))
    assert resumed == whole


def test_the_test_takes_the_best_epoch_and_testing_again_changes_nothing(run):
    folder = run("debug", number_of_epochs=4, avg_checkpoints=1, lr=0.03)
    epochs = list(logged(folder))
    best = max(figures["valid accuracy"] for figures in epochs)
    (kept,) = checkpoints(folder)
    meta = yaml.safe_load((kept / "CKPT.yaml").read_text())
    assert meta["error"] == pytest.approx(100 - best, abs=1e-2)
    first, saved = results(folder), weights(folder)
    (folder / "results.json").unlink()
    for flags in (("--test_only",), ("--skip_train", "True")):
        run("debug", *flags)
        again = results(folder)
        assert {**again, "peak_memory_mb": 0} == {**first, "peak_memory_mb": 0}
    assert all(torch.equal(saved[key], value) for key, value in weights(folder).items())


@pytest.mark.exhaustive
def test_a_small_network_learns_words_of_unseen_speakers(run):
    folder = run("debug", number_of_epochs=25, lr=0.01, max_grad_norm=5, background_probability=0.2)
    assert results(folder)["accuracy"] == 100
    rows = read_csv(folder / "per_class_test.csv")
    assert [row["class"] for row in rows] == ["down", "stop", "up"]
    assert all(float(row["F1"]) == 100 for row in rows)


def test_a_speaker_of_the_spoken_digits_is_left_out(run, tmp_path):
    digits = tmp_path / "digits" / "recordings"
    digits.mkdir(parents=True)
    for name in ("ann", "bob", "cat"):
        for digit in range(10):
            for index in (0, 1):
                sound = say("up", SPEAKERS[digit % 9], 0.3 + 0.1 * digit)[::2]
                soundfile.write(digits / f"{digit}_{name}_{index}.wav", sound, 8000)
    options = {"data_folder": digits.parent, "test_speaker": "bob", "n_classes": 10}
    folder = run("debug", **options, background_probability=0, number_of_epochs=1)
    assert {row["speaker"] for row in read_csv(folder / "test.csv")} == {"bob"}
    assert "bob" not in {row["speaker"] for row in read_csv(folder / "train.csv")}
    assert results(folder)["clips"] == 20
    assert json.loads((folder / "save" / "labels.json").read_text())[:2] == ["zero", "one"]


def test_chosen_words_are_told_from_unknown_ones_and_silence(run):
    folder = run("debug", words="[up]", n_classes=3, number_of_epochs=1, unknown_percentage=100)
    labels = json.loads((folder / "save" / "labels.json").read_text())
    assert labels == ["up", "_unknown_", "_silence_"]
    assert results(folder)["clips"] > 2


@pytest.mark.exhaustive
def test_a_run_says_what_is_worth_saying_and_ends_with_a_command_that_works(
    train_kws, tones, tmp_path, monkeypatch
):
    # an earlier training in this process has left its own there
    monkeypatch.delenv("SB_LOG_LEVEL", raising=False)
    folder = tmp_path / "a run"
    options = TASK | {"data_folder": tones, "output_folder": folder, "number_of_epochs": 1}
    output = train_kws("debug", **options).output
    check_output(output, folder)
    done = run_pasted(output, RECIPE)
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_the_plateau_schedule_halves_the_rate_only_after_epochs_without_gain(run):
    folder = run("keyword_cnn", **SMALL, number_of_epochs=6, lr_patience=0, lr=0.05)
    rate, lowest = 0.05, float("inf")
    for figures in logged(folder):
        assert figures["lr"] == pytest.approx(rate, rel=1e-2)
        rate = rate / 2 if figures["valid loss"] > lowest else rate
        lowest = min(lowest, figures["valid loss"])


def test_upstream_fidelity_trains_and_its_result_says_so(run):
    folder = run("debug", fidelity="upstream", number_of_epochs=1)
    assert results(folder)["fidelity"] == "upstream"


def test_clips_keep_their_lengths_where_they_are_not_padded(recipe, tones, tmp_path):
    corpus = shutil.copytree(tones, tmp_path / "corpus")
    path = corpus / "up" / "00000000_nohash_0.wav"
    soundfile.write(path, say("up", "00000000", 0.4), RATE)
    options = {"data_folder": corpus, "output_folder": tmp_path, "pad_clips": False, **TASK}
    arguments = [str(FOLDER / "debug.yaml")]
    for key, value in options.items():
        arguments += [f"--{key}", str(value)]
    hparams, _ = load_options(arguments)
    data = recipe("keyword_data")
    found, labels = data.prepare_clips(hparams)
    train, *_ = data.make_datasets(hparams, found, labels)
    assert {item["samples"] for item in train} == {int(0.4 * RATE), int(0.9 * RATE)}
    hparams["pad_clips"] = True
    train, *_ = data.make_datasets(hparams, found, labels)
    assert {len(item["sig"]) for item in train} == {RATE}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"data_folder": "null"}, "give --data_folder"),
        ({"data_folder": "{tmp}/nowhere"}, "does not exist"),
        ({"data_folder": "{tmp}"}, "not laid out like Speech Commands"),
        ({"n_classes": 5}, "set --n_classes 3"),
        ({"words": "[up, left]"}, "no folder for left"),
        ({"words": "null", "n_classes": 35}, "has no folder for"),
        ({"split": "{tmp}/lists"}, "validation_list.txt"),
        ({"version": "0.03"}, "version must be one of"),
        ({"shift_ms": -1}, "shift_ms and white_noise_max must be 0 or more"),
        ({"background_snr": "[20, 0]"}, "background_snr must be the lowest and the highest"),
        ({"speed_changes": "[]"}, "speed_changes must be percentages"),
        ({"batch_size": 64, "drop_last": True}, "set --batch_size lower"),
        ({"skip_prep": True}, "not there; run once without --skip_prep"),
        ({"skip_train": True}, "nothing to test"),
        ({"warmup_fraction": 2}, "warmup_fraction must be"),
        ({"kind": "wave"}, "kind must be one of"),
        ({"fidelity": "both"}, "fidelity must be one of"),
        ({"causal": True, "bidirectional": True}, "set one of them"),
        ({"context_seconds": 1}, "set --causal True"),
        ({"context_seconds": -1, "causal": True}, "context_seconds must be 0 or more"),
        (
            {"context_seconds": 1, "causal": True, "context_silence": 2},
            "context_silence must be from 0 to 1",
        ),
        ({"other_speech_percentage": 10}, "needs the class _unknown_"),
        ({"other_speech": "{tmp}"}, "is of no use while other_speech_percentage is 0"),
        (
            {"words": "[up]", "other_speech_percentage": 10},
            "has no _other_speech_: give a folder of recordings",
        ),
        (
            {"words": "[up]", "other_speech_percentage": 10, "other_speech": "{tmp}/nowhere"},
            "other_speech .*nowhere does not exist",
        ),
        ({"test_speaker": "bob", "other_speech_percentage": 10}, "of no use with test_speaker"),
    ],
    ids=str,
)
def test_a_wrong_option_gets_one_sentence(options, message, run, tmp_path):
    with pytest.raises(SystemExit, match=message):
        run("debug", **{key: str(value).format(tmp=tmp_path) for key, value in options.items()})


def test_background_noise_without_recordings_is_refused_with_what_to_do(run, tones, tmp_path):
    corpus = shutil.copytree(tones, tmp_path / "corpus")
    shutil.rmtree(corpus / "_background_noise_")
    with pytest.raises(SystemExit, match="set --background_probability 0"):
        run("debug", data_folder=corpus)
    run("debug", data_folder=corpus, background_probability=0, number_of_epochs=1)


def test_classes_never_change_under_a_trained_run(run, spotters, tmp_path):
    folder = shutil.copytree(spotters / "whole", tmp_path / "run")
    options = {"unknown_percentage": 0, "silence_percentage": 0, "output_folder": folder}
    with pytest.raises(SystemExit, match="trained here on other classes"):
        run("debug", words="[up, stop, down]", **options)


def test_features_that_are_not_numbers_are_refused_and_their_clip_is_named(run, tones, tmp_path):
    corpus = shutil.copytree(tones, tmp_path / "corpus")
    path = corpus / "up" / "00000007_nohash_0.wav"
    # finite samples, whose energy is beyond float32
    soundfile.write(path, 1e30 * say("up", "00000007"), RATE, "FLOAT")
    with pytest.raises(ValueError, match=path.name):
        run("debug", data_folder=corpus, number_of_epochs=1)


def test_bad_clips_are_left_out_counted_and_listed(run, tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "up" / "00000001_nohash_0.wav").write_bytes(b"no audio")
    soundfile.write(corpus / "stop" / "00000002_nohash_0.wav", torch.zeros(0).numpy(), RATE)
    soundfile.write(corpus / "down" / "00000003_nohash_0.wav", say("down", "00000003"), 8000)
    soundfile.write(corpus / "down" / "00000004_nohash_0.wav", say("down", "00000004", 10), RATE)
    folder = run("debug", data_folder=corpus, number_of_epochs=1)
    assert len(read_csv(folder / "skipped_train.csv")) == 2


def test_a_part_of_a_file_is_counted_in_its_own_samples(tmp_path):
    sound = torch.arange(8000) / 10000
    soundfile.write(tmp_path / "ramp.wav", sound.numpy(), 8000, "FLOAT")
    assert torch.equal(load_audio(tmp_path / "ramp.wav", 8000, 100, 300), sound[100:300])
    assert torch.equal(load_audio(tmp_path / "ramp.wav", 8000, 100), sound[100:])
    assert len(load_audio(tmp_path / "ramp.wav", 16000, 100, 300)) == 400


def augmenter(recipe, **options):
    return recipe("waveforms").ClipAugmenter(RATE, **options)


def test_a_shift_moves_a_clip_by_no_more_than_its_limit(recipe):
    shift = augmenter(recipe, shift_ms=10)
    clip = torch.zeros(1000)
    clip[500] = 1
    places = {int(shift(clip).argmax()) for _ in range(300)}
    assert min(places) >= 340 and max(places) <= 660 and len(places) > 100
    assert torch.equal(augmenter(recipe)(clip), clip)


def test_background_noise_has_the_wanted_ratio_to_the_clip(recipe):
    clip, noise = torch.randn(RATE), 7 * torch.randn(RATE // 3)
    for ratio in (-5.0, 20.0):
        add = augmenter(
            recipe, background_probability=1, background_snr=(ratio, ratio), noises=[noise]
        )
        added = add(clip) - clip
        got = 10 * torch.log10(clip.square().sum() / added.square().sum())
        assert float(got) == pytest.approx(ratio, abs=0.01)


def test_training_hears_no_noise_that_the_test_crops_its_silence_from(recipe):
    noise = torch.arange(1000)
    assert recipe("keyword_data")._training_part(noise).tolist() == list(range(800))


def test_background_noise_on_digital_silence_changes_nothing(recipe):
    add = augmenter(recipe, background_probability=1, noises=[torch.randn(RATE)])
    assert torch.equal(add(torch.zeros(100)), torch.zeros(100))


def test_speed_changes_change_the_length_and_a_clip_is_brought_back_to_it(recipe):
    change = augmenter(recipe, speed_changes=[80, 125])
    lengths = {len(change.change_speed(torch.randn(RATE))) for _ in range(20)}
    assert lengths == {RATE * 5 // 4, RATE * 4 // 5}
    fit = recipe("waveforms").fit_length
    for length in lengths:
        assert len(fit(torch.randn(length), RATE)) == RATE


def test_the_interval_of_a_proportion_is_wilsons():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    for right, total, ends in [(81, 263, (0.2553, 0.3662)), (0, 20, (0.0, 0.1611))]:
        assert wilson_interval(right, total) == pytest.approx(ends, abs=5e-5)
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(0, 0)


def test_scores_agree_with_their_definitions_counted_one_by_one():
    said, heard = torch.randint(0, 4, (200,)), torch.randint(0, 4, (200,))
    matrix = ConfusionMatrix("abcd")
    for part in range(0, 200, 50):
        matrix.add(said[part : part + 50], heard[part : part + 50])
    figures = matrix.figures()
    assert figures["accuracy"] == pytest.approx(100 * float((said == heard).float().mean()))
    f1 = []
    for index in range(4):
        hits = int(((said == index) & (heard == index)).sum())
        precision, recall = hits / int((heard == index).sum()), hits / int((said == index).sum())
        f1.append(100 * 2 * precision * recall / (precision + recall))
    assert figures["macro_F1"] == pytest.approx(sum(f1) / 4)


def test_the_cosine_begins_and_ends_where_its_fractions_say():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = WarmupCosine(2.0, total_steps=100, warmup_fraction=0.1, floor=0.25)
    rates = [schedule(optimizer)[1] for _ in range(120)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert max(rates) == rates[9] == pytest.approx(2.0)
    assert rates[100:] == pytest.approx([0.5] * 20) and rates[99] == pytest.approx(0.5, abs=1e-2)


@pytest.mark.exhaustive
def test_torchrun_trains_networks_with_batch_norm_on_two_processes(train_kws, tones, tmp_path):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2")
    launcher += ("--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0")
    options = TASK | {"data_folder": tones, "output_folder": tmp_path, "number_of_epochs": 1}
    train_kws("debug", launcher=launcher, distributed_backend="gloo", **options)
    assert results(tmp_path)["clips"] == 6
    assert not any(name.startswith("module.") for name in weights(tmp_path))
    assert (checkpoints(tmp_path)[-1] / "random_state.rank1.ckpt").exists()

"""Whatever a recording or an argument is, a command of `mamba-speech` says what is wrong with it and does the rest.

A grid of commands and bad recordings, and one of arguments and absurd values.
"""

import argparse
import importlib
import os
import resource
import shutil
import struct

import numpy as np
import pytest
import soundfile
import torch

from mamba_speech import AudioError, KeywordSpotter, Recognizer, Separator, SpeakerVerifier
from mamba_speech.cli import COMMANDS
from tests.support.checkpoints import save_again
from tests.support.recipes import ROOT
from tests.support.run_folders import (
    RATE,
    call,
    write_samples,
    write_task_runs,
    write_voices,
)

pytestmark = pytest.mark.exhaustive

# command, run folder, and further arguments; {out} is a new folder
USES = {
    "transcribe, CTC": ("transcribe", "ctc", ()),
    "transcribe, CTC beam": ("transcribe", "ctc", ("--decoding", "beam", "--beam_size", "2")),
    "transcribe, S2S": ("transcribe", "s2s", ("--ctc_only",)),
    "spot": ("spot", "keywords", ("--threshold", "0")),
    "separate, windows": ("separate", "windows", ("--output_folder", "{out}")),
    "separate, stream": ("separate", "stream", ("--output_folder", "{out}", "--keep_rate")),
    "verify": ("verify", "speakers", ()),
    "embed": ("embed", "speakers", ("--output_folder", "{out}")),
    "enroll": ("enroll", "speakers", ("--database", "{out}/new.json")),
    "identify": ("identify", "speakers", ("--database", "{database}")),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders of every task, and a database of one speaker."""
    folder = tmp_path_factory.mktemp("runs")
    found = write_task_runs(folder)
    found["voices"] = write_voices(folder / "voices")
    found["database"] = folder / "speakers.json"
    one, database = found["voices"][0], found["database"]
    assert call(["enroll", found["speakers"], "Ada", one, "--database", database])[0] == 0
    return found


def command(use, runs, out, *inputs):
    """The words of a command."""
    name, run, more = USES[use]
    out.mkdir(exist_ok=True)
    more = [one.format(out=out, database=runs["database"]) for one in more]
    before = {"enroll": ["Grace"], "verify": [runs["voices"][1]]}.get(name, [])
    return [name, runs[run], *before, *inputs, *more]


def noise():
    return 0.1 * np.random.default_rng(0).standard_normal(RATE)


def loud(peak):
    return lambda path: write_samples(path, np.sign(noise()) * peak)


def one_sample(value):
    def write(path):
        samples = noise()
        samples[RATE // 2] = value
        write_samples(path, samples, "DOUBLE")

    return write


def cut_header(path):
    write_samples(path, noise(), "PCM_16")
    path.write_bytes(path.read_bytes()[:30])


def endless_flac(path):
    """A header that claims 2 ** 36 - 1 samples: a terabyte as floats would be four times as much."""
    soundfile.write(path, noise(), RATE, "PCM_16", format="FLAC")
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    path.write_bytes(content[:300])


def not_utf8(path):
    os.rename(path, os.fsencode(path.parent) + b"/caf\xe9.wav")


def no_audio(path):
    path.write_text("no audio")


# name of the file, and what writes it
BAD = {
    "3e38": ("loud.wav", loud(3e38)),
    "just over the bound": ("loud.wav", loud(2.2e9)),
    "one sample of 3e38": ("loud.wav", one_sample(3e38)),
    "one of -1e300": ("loud.wav", one_sample(-1e300)),
    "a NaN": ("nan.wav", one_sample(np.nan)),
    "an infinity": ("inf.wav", one_sample(np.inf)),
    "two channels of 3e38": (
        "stereo.wav",
        lambda path: write_samples(path, np.full((RATE, 2), 3e38)),
    ),
    "channels that cancel out": (
        "stereo.wav",
        lambda path: write_samples(path, np.outer(noise(), [3e38, -3e38])),
    ),
    "no samples": ("empty.wav", lambda path: write_samples(path, [])),
    "an empty file": ("empty.wav", lambda path: path.write_bytes(b"")),
    "text": ("text.wav", no_audio),
    "a header that is cut": ("cut.wav", cut_header),
    "a link to itself": ("link.wav", lambda path: path.symlink_to(path.name)),
    "a link to nothing": ("link.wav", lambda path: path.symlink_to("gone.wav")),
    "a pipe": ("pipe.wav", os.mkfifo),
    "a folder": ("folder.wav", os.mkdir),
    "nothing": ("gone.wav", lambda path: None),
    "below a file": ("file.wav/below.wav", lambda path: no_audio(path.parent)),
    "a long name": (f"{'x' * 300}.wav", lambda path: None),
    "a name that is not UTF-8, of text": (
        os.fsdecode(b"caf\xe9.wav"),
        no_audio,
    ),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("use", USES)
def test_a_bad_recording_is_named_and_the_next_one_done(use, bad, runs, tmp_path):
    name, write = BAD[bad]
    path, good = tmp_path / name, runs["voices"][0]
    write(path)
    status, out, err = call(command(use, runs, tmp_path / "out", path, good))
    assert status == 1 and "Traceback" not in err
    assert err.count(str(path)) == 1, err
    assert out.count(str(good)) >= 1 and str(path) not in out


@pytest.mark.parametrize("use", USES)
def test_a_good_recording_may_have_any_name_and_any_level(use, runs, tmp_path):
    good = runs["voices"][0].read_bytes()
    for name in (os.fsdecode(b"caf\xe9.wav"), "a b\n.wav", "-a.wav"):
        (tmp_path / name).write_bytes(good)
    samples, _ = soundfile.read(runs["voices"][0])
    # integers that nobody scaled, and the bound itself
    write_samples(tmp_path / "integers.wav", samples * 2.0**15)
    write_samples(tmp_path / "long integers.wav", samples / abs(samples).max() * 2.0**31)
    # a rate that has no divisor with the model's
    soundfile.write(tmp_path / "rate.wav", np.tile(samples, 30), 1_299_709, "PCM_16")
    status, out, err = call(command(use, runs, tmp_path / "out", tmp_path))
    assert status == 0, err
    assert "caf\udce9" in out and "-a.wav" in out and "long integers.wav" in out


@pytest.mark.parametrize("use", [use for use in USES if not use.startswith("verify")])
def test_an_empty_path_is_no_folder(use, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(runs["voices"][0].parent)
    words = command(use, runs, tmp_path / "out", "")
    paths = [index for index, word in enumerate(words) if word == "" or index == 1]
    options = [i + 1 for i, word in enumerate(words) if word in ("--output_folder", "--database")]
    for index in paths + options:
        emptied = [*words[:index], "", *words[index + 1 :]]
        status, out, err = call(emptied)
        assert (status, out) == (2, "") and "must be a path, and is empty" in err


def test_an_empty_path_is_none_in_python_either(runs, monkeypatch):
    monkeypatch.chdir(runs["ctc"])
    for load in (Recognizer.load, KeywordSpotter.load, Separator.load, SpeakerVerifier.load):
        with pytest.raises(FileNotFoundError, match="an empty path"):
            load("")
    recognizer = Recognizer.load(runs["ctc"], "cpu")
    with pytest.raises(AudioError, match="an empty path"):
        recognizer.transcribe("")
    results = list(recognizer.transcribe(["", runs["voices"][0]]))
    assert "an empty path" in results[0].error and results[1].error is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -1e200, 2.2e9])
def test_a_waveform_with_such_a_sample_is_refused(value, runs):
    samples = noise()
    samples[100] = value
    uses = (
        Recognizer.load(runs["ctc"], "cpu").transcribe,
        KeywordSpotter.load(runs["keywords"], "cpu").classify,
        KeywordSpotter.load(runs["keywords"], "cpu").spot,
        Separator.load(runs["windows"], "cpu").separate,
        SpeakerVerifier.load(runs["speakers"], "cpu").embed,
    )
    for use in uses:
        with pytest.raises(AudioError, match="the waveform: holds samples"):
            use(samples, RATE)
        bad, good = use([samples, noise()], RATE)
        assert "waveform 0: holds samples" in bad.error and good.error is None


def sparse_wav(path, seconds):
    """Silence that takes no room on the disk."""
    write_samples(path, [0.0], "PCM_16")
    content, size = bytearray(path.read_bytes()), 2 * RATE * seconds
    start = content.index(b"data") + 8
    content[4:8], content[start - 4 : start] = (
        struct.pack("<I", start + size - 8),
        struct.pack("<I", size),
    )
    path.write_bytes(content)
    os.truncate(path, start + size)


@pytest.fixture
def little_memory():
    """Most memory that this process may have: a few hundred megabytes more than it has now."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()

    def limit(megabytes):
        resource.setrlimit(resource.RLIMIT_AS, (now + megabytes * 2**20, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_AS, before)


def test_an_hour_fits_into_little_memory(runs, tmp_path, little_memory):
    path, good = tmp_path / "hours.wav", runs["voices"][0]
    sparse_wav(path, 3600)
    # what is loaded once, is loaded before
    assert call(["transcribe", runs["ctc"], good])[0] == 0
    little_memory(600)
    status, out, err = call(["transcribe", runs["ctc"], path, good, "--vad", "energy"])
    assert status == 0 and "memory" not in err
    assert out.startswith(f"{path}\t\n{good}\t")


@pytest.mark.parametrize("use", USES)
def test_a_header_that_claims_years_takes_no_memory(use, runs, tmp_path):
    path, good = tmp_path / "years.flac", runs["voices"][0]
    endless_flac(path)
    status, out, err = call(command(use, runs, tmp_path / "out", path, good))
    assert status in (0, 1) and "Traceback" not in err and str(good) in out


def test_a_run_whose_weights_are_not_finite_gives_errors_and_no_empty_texts(runs, tmp_path):
    for use in ("transcribe, CTC", "transcribe, S2S", "spot", "embed"):
        run = USES[use][1]
        folder = shutil.copytree(runs[run], tmp_path / run)
        for file in folder.glob("save/CKPT*/model.ckpt"):
            weights = torch.load(file, weights_only=True)
            for weight in weights.values():
                if weight.is_floating_point():
                    weight.fill_(torch.nan)
            save_again(weights, file)
        status, out, err = call(
            command(use, runs | {run: folder}, tmp_path / "out", *runs["voices"])
        )
        assert status == 1 and out == "" and "not finite" in err, use


ABSURD = (
    "nan",
    "inf",
    "-inf",
    "-1",
    "1e300",
    "1e-300",
    "",
    "abc",
    "1_0",
    "9" * 5000,
    "0x10",
    "٣ x",
)
# those among them that are in the range
SMALL = ("--overlap_seconds", "--smoothing", "--suppression", "--batch_seconds", "--refractory")
RIGHT = {name: {"1e-300"} for name in SMALL}
RIGHT |= {
    "--lm_weight": {"1e-300"},
    "--threshold": {"-1", "1e-300"},
    "--threshold of spot": {"1e-300"},
}


def numbers():
    """Every argument of every command that is a number."""
    found = []
    for name, (module, _) in COMMANDS.items():
        parser = argparse.ArgumentParser()
        importlib.import_module(module).add_arguments(parser)
        for action in parser._actions:
            if action.type is not None and action.type.__name__ == "read":
                found.append((name, action.option_strings[0]))
    return found


@pytest.mark.parametrize(
    "name, option, value",
    [
        (name, option, value)
        for name, option in numbers()
        for value in ABSURD
        if value not in RIGHT.get(f"{option} of {name}", RIGHT.get(option, ()))
    ],
    ids=lambda one: ascii(one)[:20],
)
def test_an_absurd_number_is_refused_at_once(name, option, value):
    # the folders are not there: nobody looks
    needs = {"separate": ["--output_folder", "o"], "enroll": ["--database", "d"]}
    needs["identify"] = needs["enroll"]
    status, out, err = call([name, "no run", "a", "b", *needs.get(name, ()), f"{option}={value}"])
    assert status == 2 and out == ""
    last = err.splitlines()[-1]
    assert f"argument {option}: must be " in last and len(last) < 200


@pytest.mark.parametrize("value", ["0.0001", "0.00099", "3601"])
def test_a_hop_that_costs_thousands_of_times_the_recording_is_refused(value):
    for option in ("--hop", "--hop_seconds"):
        status, _, err = call(["spot", "no run", "a.wav", f"{option}={value}"])
        assert status == 2 and f"--hop_seconds: must be from 0.001 to 3,600; got {value}" in err


def test_every_number_of_every_command_has_a_range():
    found = set(numbers())
    assert len(found) >= 11
    for name, (module, _) in COMMANDS.items():
        parser = argparse.ArgumentParser()
        importlib.import_module(module).add_arguments(parser)
        for action in parser._actions:
            # a type that is not ours has no range
            assert action.type not in (int, float), (name, action.option_strings)


@pytest.mark.parametrize(
    "value", ["", "cpux", "cuda:99999999999999999999", "cuda:-1", "cuda:77", "\n"]
)
@pytest.mark.parametrize("use", USES)
def test_a_device_that_is_none_is_named(use, value, runs, tmp_path):
    words = command(use, runs, tmp_path / "out", runs["voices"][0])
    status, out, err = call([*words, f"--device={value}"])
    assert (status, out) == (2, "") and "device" in err.splitlines()[-1]


# script: words that it needs, and its options that are numbers
SCRIPTS = {
    "data_prep.spoken.__main__": (
        "{tmp}/corpus",
        "seed jobs hours dev_minutes test_minutes train_voices voices test_voices valid_voices repeats "
        + "noise_seconds other_speech_minutes minutes keywords_per_minute sessions utterances trials",
    ),
    "data_prep.mixtures.__main__": (
        "{tmp}/corpus --speech {tmp}",
        "jobs min_seconds seed train valid test valid_fraction test_fraction num_spks sample_rate",
    ),
    "data_prep.resample_speech": ("{tmp} {tmp}/copies", "sample_rate jobs"),
    "examples.demo": ("--output_folder {tmp}", "hours test_minutes number_of_epochs seed"),
    "training.compare": ("a={tmp} b={tmp}", "seeds jobs resamples"),
    "recipes.VoxCeleb.SV.score": (
        "{tmp} --trials {tmp}/list.txt --data_folder {tmp}",
        "cohort_top cohort_recordings resamples seed threads",
    ),
    "recipes.VoxCeleb.SV.baselines": (
        "--trials {tmp}/list.txt --data_folder {tmp}",
        "resamples seed",
    ),
    "examples.memorise": ("--output_folder {tmp}", "count min_seconds number_of_epochs"),
}


@pytest.mark.parametrize("value", ["nan", "-inf", "-1", "1e300", "", "abc", "9" * 5000, "1_0"])
@pytest.mark.parametrize(
    "script, option",
    [(script, option) for script, (_, options) in SCRIPTS.items() for option in options.split()],
)
def test_an_absurd_number_of_a_script_is_refused_at_once(
    script, option, value, tmp_path, monkeypatch, capsys
):
    words = SCRIPTS[script][0].format(tmp=tmp_path).split()
    # scripts of one folder import one another by name
    for folder in ("examples", "recipes/VoxCeleb/SV"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    module = importlib.import_module(script)
    monkeypatch.setattr("sys.argv", [script, *words, f"--{option}={value}"])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    said = capsys.readouterr().err or str(stopped.value)
    assert stopped.value.code not in (0, None) and option in said.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []

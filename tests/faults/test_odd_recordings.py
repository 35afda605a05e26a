"""Odd recordings and every command: used, with a warning at the end, a flag in JSON, and status 0."""

import json

import numpy as np
import pytest
import soundfile

from tests.support.odd_audio import cut, forget_flac_length, set_data_size
from tests.support.run_folders import RATE, call, write_task_runs, write_voices

# kind of the warning, the same of the name's file, and its format
ODD = {
    "half.mp3": "truncated",
    "half.wav": "truncated",
    "half.flac": "truncated",
    "half.ogg": "truncated",
    "pipe.flac": "unknown_length",
    "killed.wav": "unknown_length",
    "inverted.wav": "opposite_channels",
    "one side.flac": "silent_channel",
    "integers.wav": "integer_scale",
}


def write_odd(path, voice):
    """An odd recording by its name, and what it should sound like; None where only a part is left."""
    samples = np.tile(voice, 6)
    sound = {
        "inverted.wav": np.stack([samples, -samples], 1),
        "one side.flac": np.stack([samples, 0 * samples], 1),
        "integers.wav": np.rint(samples * 2**15),
    }.get(path.name, samples)
    soundfile.write(path, sound, RATE, "FLOAT" if path.name == "integers.wav" else None)
    if path.name == "pipe.flac":
        forget_flac_length(path)
    elif path.name == "killed.wav":
        set_data_size(path, 0, 0)
    elif path.stem == "half":
        cut(path)
        return None
    return samples


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Run folders of every task, a voice, a database, and a folder of odd recordings beside what they sound like."""
    folder = tmp_path_factory.mktemp("odd runs")
    runs = write_task_runs(folder)
    first = write_voices(folder / "voices")[0]
    runs["voice"], runs["database"] = first, folder / "speakers.json"
    assert call(["enroll", runs["speakers"], "Ada", first, "--database", runs["database"]])[0] == 0
    voice, _ = soundfile.read(first, dtype="float32")
    for place in ("odd", "plain"):
        (folder / place).mkdir()
    for name in ODD:
        whole = write_odd(folder / "odd" / name, voice)
        if whole is not None:
            soundfile.write(folder / "plain" / name, whole, RATE, "PCM_16")
    return runs | {"odd": folder / "odd", "plain": folder / "plain"}


def words(name, made, out):
    """The words of a command before its files."""
    run = {"transcribe": "ctc", "spot": "keywords", "separate": "windows"}.get(name, "speakers")
    more = {
        "separate": ["--output_folder", out / "separated"],
        "embed": ["--output_folder", out / "embedded"],
        "enroll": ["--database", out / "new.json"],
        "identify": ["--database", made["database"]],
        "spot": ["--threshold", "0"],
    }.get(name, [])
    before = {"enroll": ["Grace"], "verify": [made["voice"]]}.get(name, [])
    return [name, made[run], *before, *more]


@pytest.mark.parametrize(
    "name", ["transcribe", "spot", "separate", "verify", "embed", "enroll", "identify"]
)
def test_a_command_uses_odd_recordings_and_names_them_at_the_end(name, made, tmp_path):
    files = [made["odd"] / one for one in ODD]
    status, out, err = call([*words(name, made, tmp_path), *files])
    assert status == 0, err
    assert "warnings (4 truncated, 2 unknown_length, 1 opposite_channels" in err
    for path in files:
        assert f"  {path}: " in err and str(path) in out
        assert err.count(str(path)) == 1
    (tmp_path / "json").mkdir()
    status, out, err = call([*words(name, made, tmp_path / "json"), *files, "--json"])
    kinds = {}
    for line in out.splitlines():
        record = json.loads(line)
        kinds.setdefault(record["path"], set()).update(record.get("warnings", ()))
    assert status == 0 and kinds == {str(path): {ODD[path.name]} for path in files}


def test_the_text_of_an_odd_recording_is_that_of_the_plain_one(made):
    found = {}
    for place in ("odd", "plain"):
        status, out, err = call(["transcribe", made["ctc"], made[place], "--json"])
        assert status == 0
        records = [json.loads(line) for line in out.splitlines()]
        found[place] = {one["path"].rpartition("/")[2]: one["text"] for one in records}
    assert found["plain"] == {name: found["odd"][name] for name in found["plain"]}
    assert err == ""

"""Lists as inputs of commands: each row is a recording or a part of one, and a bad row costs itself alone."""

import json

import numpy as np
import pytest
import soundfile

from mamba_speech.asr.recognizer import Recognizer
from mamba_speech.cli import main
from mamba_speech.recordings import Recording, recordings_in, recordings_of
from tests.support.recognition import RATE, write_noise
from tests.support.verification import json_rows, tab_rows, write_voice


@pytest.fixture
def listed(tmp_path):
    """A list of two recordings, a part, and rows that cannot be used; beside it the part as a file."""
    write_noise(tmp_path / "long.flac", 3.0, 1)
    sound, _ = soundfile.read(tmp_path / "long.flac", dtype="int16")
    soundfile.write(tmp_path / "part.wav", sound[RATE // 2 : 2 * RATE], RATE)
    rows = [
        "path\tid\tstart\tend",
        "part.wav\twhole\t\t",
        "long.flac\tpart\t0.5\t2",
        "long.flac\tlate\t3.5\t4",
        "long.flac\tshort",
        "absent.wav\tabsent\t\t",
        "long.flac\tlast\t0.5\t",
    ]
    (tmp_path / "list.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_transcribe_reads_the_rows_of_a_list(trained, listed, capsys):
    path = str(listed / "list.tsv")
    assert main(["transcribe", str(trained), path, "--json", "--device", "cpu"]) == 1
    shown = capsys.readouterr()
    found = {one.get("id", one["path"]): one for one in json_rows(shown.out)}
    assert found["part"]["text"] == found["whole"]["text"] != ""
    assert (found["part"]["start"], found["part"]["end"]) == (0.5, 2.0)
    assert found["part"]["path"] == str(listed / "long.flac") and found["part"]["seconds"] == 1.5
    assert "start" not in found["whole"] and found["last"]["end"] == 3.0
    assert "a segment from 3.5 s to 4 s of a file of 3 s (line 4 of the list)" in shown.err
    assert f"{path}, line 5: 2 cells under 4 columns" in shown.err
    assert f"{listed / 'absent.wav'}: no such file" in shown.err and "3 files were not" in shown.err
    assert main(["transcribe", str(trained), path, "--device", "cpu"]) == 1
    rows = tab_rows(capsys.readouterr().out)
    places = [row[0].removeprefix(f"{listed}/") for row in rows]
    assert places == ["part.wav", "long.flac:0.50-2.00", "long.flac:0.50-3.00"]


def test_a_kaldi_folder_is_an_input_beside_others(trained, listed, capsys):
    folder = listed / "data"
    folder.mkdir()
    (folder / "wav.scp").write_text("u1 ../part.wav\nu2 cat x.wav |\n")
    part = str(listed / "part.wav")
    assert main(["transcribe", str(trained), part, str(folder), "--json", "--device", "cpu"]) == 1
    shown = capsys.readouterr()
    first, second, bad = json_rows(shown.out)
    assert first["text"] == second["text"] and second["id"] == "u1"
    assert "never executed" in bad["error"] and bad["id"] == "u2"


def test_a_list_that_cannot_be_read_is_one_error_and_the_rest_goes_on(trained, listed, capsys):
    bad, prose = listed / "bad.csv", listed / "notes.txt"
    bad.write_bytes("path,text\na.wav,Привет\n".encode("cp1251"))
    prose.write_text("spoken in May\n")
    inputs = [str(one) for one in (bad, prose, listed / "part.wav")]
    assert main(["transcribe", str(trained), *inputs, "--device", "cpu"]) == 1
    shown = capsys.readouterr()
    assert len(tab_rows(shown.out)) == 1
    assert "bad.csv, line 2, byte 7 of the line" in shown.err
    assert "notes.txt: cannot be read as audio" in shown.err


def test_the_python_interface_reads_lists_too(trained, listed):
    recognizer = Recognizer.load(trained, device="cpu")
    whole, part, *_, last = recognizer.transcribe(listed / "list.tsv")
    assert (whole.id, part.id, part.start, part.end) == ("whole", "part", 0.5, 2.0)
    assert part.text == whole.text and last.end == 3.0
    recordings, many = recordings_of(listed / "list.tsv")
    assert many and len(list(recordings)) == 6
    one = recordings_in([listed / "list.tsv"])[1]
    assert recordings_of(one) == ([one], False)


def test_blocks_of_a_part_are_the_part(listed):
    part = recordings_in([listed / "list.tsv"])[1]
    whole = Recording(listed / "part.wav")
    for rate in (RATE, 8000):
        blocks = np.concatenate(list(part.blocks(rate)))
        np.testing.assert_allclose(blocks, whole.load(rate), atol=1e-6)
        np.testing.assert_allclose(blocks, part.load(rate), atol=1e-6)


def test_events_of_a_part_have_times_of_the_file(spotters, tmp_path, capsys):
    sound = 0.1 * np.random.default_rng(0).standard_normal(6 * RATE)
    soundfile.write(tmp_path / "a.wav", sound, RATE)
    soundfile.write(tmp_path / "b.wav", sound[2 * RATE :], RATE)
    (tmp_path / "l.csv").write_text("path,id,start\na.wav,u1,2\n")
    found = []
    for name in ("l.csv", "b.wav"):
        options = ["--threshold", "0", "--json", "--device", "cpu"]
        assert main(["spot", str(spotters / "whole"), str(tmp_path / name), *options]) == 0
        found.append(json_rows(capsys.readouterr().out))
    assert found[0] and len(found[0]) == len(found[1])
    for part, whole in zip(*found, strict=True):
        assert part["id"] == "u1" and part["path"] == str(tmp_path / "a.wav")
        assert part["start"] == pytest.approx(whole["start"] + 2)
        assert part["end"] == pytest.approx(whole["end"] + 2)


def test_speakers_are_compared_and_embedded_by_the_rows_of_a_list(speaker_runs, tmp_path, capsys):
    run = str(speaker_runs / "run")
    for speaker in (1, 2):
        write_voice(tmp_path / f"{speaker}.wav", speaker, 3.0, speaker)
    sounds = [soundfile.read(tmp_path / f"{speaker}.wav")[0] for speaker in (1, 2)]
    rate = soundfile.info(tmp_path / "1.wav").samplerate
    soundfile.write(tmp_path / "both.wav", np.concatenate(sounds), rate)
    (tmp_path / "l.csv").write_text("path,id,start,end\nboth.wav,a/one,0,3\nboth.wav,..,3,6\n")
    listed, first = str(tmp_path / "l.csv"), str(tmp_path / "1.wav")
    assert main(["verify", run, first, listed, "--json"]) == 0
    one, two = json_rows(capsys.readouterr().out)
    assert one["score"] == pytest.approx(1, abs=1e-5) and one["score"] > two["score"]
    assert two["start"] == 3.0
    out = tmp_path / "out"
    for new in (True, False):
        assert main(["embed", run, listed, "--output_folder", str(out), "--json"]) == 0
        found = json_rows(capsys.readouterr().out)
        assert [row["new"] for row in found] == [new, new]
        assert [row["embedding"] for row in found] == [f"{out}/a/one.npy", f"{out}/row.npy"]
    database = str(tmp_path / "voices.json")
    assert main(["enroll", run, "anna", listed, "--database", database]) == 0
    assert tab_rows(capsys.readouterr().out)[1][0] == f"{tmp_path}/both.wav:3.00-6.00"
    assert main(["identify", run, listed, "--database", database, "--json"]) == 0
    assert [row["id"] for row in json_rows(capsys.readouterr().out)] == ["a/one", ".."]


def test_a_list_of_json_lines_is_an_input(trained, listed, capsys):
    entries = [{"audio_filepath": "long.flac", "offset": 0, "duration": 1.0, "text": "x"}, [1]]
    path = listed / "nemo.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)))
    assert main(["transcribe", str(trained), str(path), "--json", "--device", "cpu"]) == 1
    good, bad = json_rows(capsys.readouterr().out)
    assert (good["start"], good["end"], good["seconds"]) == (0.0, 1.0, 1.0)
    assert bad["error"] == f"{path}, line 2: not a JSON object"

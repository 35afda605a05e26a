"""The commands verify and embed, as they are typed."""

import io
import os
import sys

import numpy as np
import pytest
import soundfile

from mamba_speech import SpeakerVerifier
from mamba_speech.cli import main
from mamba_speech.speaker.embed import plan_outputs
from tests.support.verification import json_rows, tab_rows, write_run, write_voice


def test_two_files_get_a_score_a_decision_and_the_source_of_the_threshold(run, voices, capsys):
    a, b = voices[1, "a"], voices[2, "a"]
    assert main(["verify", run, a, b]) == 0
    shown = capsys.readouterr()
    expected = SpeakerVerifier.load(run).verify(a, b)
    decision = "same speaker" if expected.same else "different speakers"
    assert tab_rows(shown.out) == [[a, b, f"{expected.score:.4f}", decision]]
    source = "equal error rate (3.25 %) on valid_trials.txt (900 trials, 12 speakers)"
    assert shown.err == f"mamba-speech: threshold 0.5000: {source}\n"
    assert main(["verify", run, b, a, "--threshold", "1", "--json"]) == 0
    (found,) = json_rows(capsys.readouterr().out)
    assert found == {
        "path": a,
        "enrolment": b,
        "score": expected.score,
        "same": False,
        "threshold": 1.0,
        "threshold_source": "given as --threshold",
    }


def test_further_files_and_folders_are_compared_with_the_first(run, voices, tmp_path, capsys):
    a = voices[1, "a"]
    assert main(["verify", run, a, a, str(tmp_path / "voice 2"), voices[1, "b"]]) == 0
    found = tab_rows(capsys.readouterr().out)
    others = [a, voices[2, "a"], voices[2, "b"], voices[1, "b"]]
    assert [row[:2] for row in found] == [[a, other] for other in others]
    assert found[0][2:] == ["1.0000", "same speaker"]


def test_a_list_of_pairs_gives_the_scores_of_each_alone(run, voices, silent, tmp_path, capsys):
    pairs = [(voices[1, "a"], voices[2, "a"]), (voices[2, "a"], voices[1, "b"])]
    file = tmp_path / "pairs.txt"
    file.write_text("\n\n".join("\t".join(pair) for pair in [*pairs, (silent, pairs[0][0])]) + "\n")
    assert main(["verify", run, "--pairs", str(file), "--json"]) == 1
    shown = capsys.readouterr()
    *found, bad = json_rows(shown.out)
    verifier = SpeakerVerifier.load(run)
    for one, (first, second) in zip(found, pairs, strict=True):
        assert (one["enrolment"], one["path"]) == (first, second)
        assert one["score"] == verifier.verify(first, second).score
    assert bad["enrolment"] == silent and "0.00 s of speech" in bad["error"]
    assert f"1 file was not compared:\n  {silent}: holds" in shown.err
    # as Windows writes text
    file.write_text("a.wav b.wav\r\n", encoding="utf-8-sig")
    assert main(["verify", run, "--pairs", str(file)]) == 1
    assert "\n  a.wav: no such file" in capsys.readouterr().err


def test_a_run_without_a_threshold_says_so_and_scores(speaker_runs, voices, capsys):
    other = str(speaker_runs / "other")
    arguments = ["verify", other, voices[1, "a"], voices[1, "b"]]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "the run has no threshold: scores only; give --threshold" in shown.err
    assert tab_rows(shown.out)[0][3] == "no threshold"
    assert main([*arguments, "--json"]) == 0
    (found,) = json_rows(capsys.readouterr().out)
    assert found["same"] is found["threshold"] is None and found["score"] < 1


def test_a_bad_file_is_named_and_the_others_are_compared(run, voices, silent, tmp_path, capsys):
    a, b = voices[1, "a"], voices[1, "b"]
    missing = str(tmp_path / "missing.wav")
    assert main(["verify", run, a, silent, missing, b]) == 1
    shown = capsys.readouterr()
    assert [row[1] for row in tab_rows(shown.out)] == [b]
    assert "2 files were not compared:" in shown.err
    assert f"{silent}: holds 0.00 s of speech" in shown.err and f"{missing}: no such" in shown.err
    assert main(["verify", run, silent, a, b]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count(silent) == 1


def test_wrong_pairs_and_arguments_get_one_sentence(run, voices, tmp_path, capsys):
    a, list_file = voices[1, "a"], tmp_path / "pairs.txt"
    for content, message in (
        ("a.wav\n", "line 1 must name two files, with a tab between them; got 'a.wav'"),
        ("a b\n1 a b\n", "line 2 must name two files"),
        ("a\t\n", "line 1 must name two files"),
        ("\n", "names no pair of files"),
        (f"{tmp_path}\ta.wav", f"line 1 names the folder {tmp_path}"),
    ):
        list_file.write_text(content)
        assert main(["verify", run, "--pairs", str(list_file)]) == 2
        assert f"{list_file}: {message}" in capsys.readouterr().err
    for arguments in ([a], [], [a, a, "--pairs", str(list_file)], [a, "--pairs", str(list_file)]):
        assert main(["verify", run, *arguments]) == 2
        assert "--pairs LIST" in capsys.readouterr().err
    for value in ("high", "nan", "1.1"):
        with pytest.raises(SystemExit):
            main(["verify", run, a, a, "--threshold", value])
        assert "--threshold: must be" in capsys.readouterr().err


def test_embeddings_have_the_names_and_the_tree_of_their_recordings(
    run, voices, silent, tmp_path, capsys
):
    out = tmp_path / "out folder"
    folders = [str(tmp_path / f"voice {voice}") for voice in (1, 2)]
    missing = str(tmp_path / "missing.wav")
    assert main(["embed", run, *folders, missing, silent, "--output_folder", str(out)]) == 1
    shown = capsys.readouterr()
    verifier = SpeakerVerifier.load(run)
    expected = {}
    for (voice, name), path in voices.items():
        output = out / f"voice {voice}" / f"{name}.npy"
        expected[path] = str(output)
        vector = np.load(output)
        assert vector.dtype == np.float32 and np.array_equal(vector, verifier.embed(path).vector)
    assert dict(tab_rows(shown.out)) == expected
    assert "2 files were not embedded:" in shown.err
    assert sorted(path.name for path in out.glob("*.*")) == [
        ".embeddings.json.lock",
        "embeddings.json",
        "recordings.jsonl",
    ]


@pytest.mark.parametrize(
    "inputs, names",
    [
        (["x/a.wav"], ["a"]),
        (["x/a.wav", "x/b.flac"], ["a", "b"]),
        (["x/a.wav", "y/a.wav"], ["x/a", "y/a"]),
        (["x/a.wav", "a.wav"], ["x/a", "a"]),
        (["./x/a.wav", "x/y/../b.wav"], ["a", "b"]),
        (["x/a.b.wav"], ["a.b"]),
    ],
)
def test_names_are_kept_below_the_folder_that_holds_all_inputs(inputs, names, tmp_path):
    plan = plan_outputs(inputs, tmp_path)
    assert list(plan.values()) == [tmp_path / f"{name}.npy" for name in names]


def test_a_second_run_makes_only_what_is_missing_or_changed(run, voices, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["embed", run, str(tmp_path), "--output_folder", str(out), "--json"]
    assert main(arguments) == 0
    assert [one["new"] for one in json_rows(capsys.readouterr().out)] == [True] * 4
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    (out / "voice 1" / "a.npy").unlink()
    write_voice(tmp_path / "voice 2" / "a.wav", 5)
    os.utime(tmp_path / "voice 2" / "a.wav", ns=(max(times.values()) + 10**9,) * 2)
    assert main(arguments) == 0
    found = {one["path"]: one["new"] for one in json_rows(capsys.readouterr().out)}
    made = [voices[1, "a"], voices[2, "a"]]
    assert {path for path, new in found.items() if new} == set(made)
    kept = out / "voice 2" / "b.npy"
    assert kept.stat().st_mtime_ns == times[kept]


def test_embeddings_of_two_models_are_never_mixed(run, speaker_runs, voices, tmp_path, capsys):
    out = tmp_path / "out"
    first = ["embed", run, voices[1, "a"], "--output_folder", str(out)]
    second = ["embed", str(speaker_runs / "other"), voices[1, "b"], "--output_folder", str(out)]
    assert main(first) == 0
    before = sorted(out.iterdir())
    assert main(second) == 2
    assert f"error: {out}: holds embeddings of another model" in capsys.readouterr().err
    assert sorted(out.iterdir()) == before
    # nor do others lie beside an embedding whose model nobody knows
    (out / "embeddings.json").unlink()
    for _ in range(2):
        assert main(second) == 2
        assert f"error: {out}: holds a.npy, and no embeddings.json" in capsys.readouterr().err
    (out / "embeddings.json").write_text("[]")
    assert main(second) == 2
    assert "holds embeddings of another model" in capsys.readouterr().err


def test_two_recordings_that_differ_in_their_ending_alone_have_two_embeddings(
    run, tmp_path, capsys
):
    folder = tmp_path / "in"
    a = write_voice(folder / "a.wav", 1)
    sound, rate = soundfile.read(a)
    soundfile.write(folder / "a.flac", sound, rate)
    out = tmp_path / "out"
    # whatever else is given, the names are these
    expected = {str(folder / f"a.{kind}"): str(out / f"a.{kind}.npy") for kind in ("flac", "wav")}
    for inputs in ([a], [folder, a], [folder]):
        assert main(["embed", run, *map(str, inputs), "--output_folder", str(out)]) == 0
        found = dict(tab_rows(capsys.readouterr().out))
        assert found == {path: expected[path] for path in found} and str(a) in found
    assert set(found) == set(expected)


def test_recordings_of_one_name_embedded_one_by_one_stay_two(run, voices, tmp_path, capsys):
    out = tmp_path / "out"
    first, second = (["embed", run, voices[k, "a"], "--output_folder", str(out)] for k in (1, 2))
    assert main(first) == 0 and main([*first, "--json"]) == 0
    assert json_rows(capsys.readouterr().out.splitlines()[1])[0]["new"] is False
    for new in (True, False):
        assert main([*second, "--json"]) == 0
        (found,) = json_rows(capsys.readouterr().out)
        assert found["embedding"] == str(out / "voice 2" / "a.npy") and found["new"] is new
    (out / "voice 2" / "a.npy").unlink()
    # moved there from elsewhere, older than the embedding
    before = (out / "a.npy").read_bytes()
    os.replace(voices[2, "a"], voices[1, "a"])
    os.utime(voices[1, "a"], ns=(10**18, 10**18))
    assert main(first) == 0 and (out / "a.npy").read_bytes() != before
    # a killed run leaves half a line
    file = out / "recordings.jsonl"
    file.write_text(file.read_text()[:-5])
    capsys.readouterr()
    for new in (True, False):
        assert main([*first, "--json"]) == 0
        assert json_rows(capsys.readouterr().out)[0]["new"] is new


def test_a_folder_in_a_file_s_place_is_named(run, voices, tmp_path, capsys):
    a, folder = voices[1, "a"], str(tmp_path / "voice 1")
    for arguments, message in (
        (["verify", run, "--pairs", folder], f"{folder}: is a directory"),
        (["verify", run, "--pairs", f"{folder}/no"], f"{folder}/no: no such file or directory"),
        (["embed", run, a, "--output_folder", a], f"{a}: file exists"),
        (["enroll", run, "A", a, "--database", folder], f"{folder}: is a directory"),
        (["enroll", run, "A", a, "--database", "no/a.json"], "no/a.json: its folder is not there"),
    ):
        assert main(arguments) == 2
        shown = capsys.readouterr()
        assert shown.out == "" and f"error: {message}\n" in shown.err


def test_many_files_show_their_progress_on_a_terminal_and_nowhere_else(
    run, voices, tmp_path, capsys, monkeypatch
):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    arguments = ["embed", run, str(tmp_path), "--output_folder", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(arguments) == 0
    assert "/4 [" in terminal.getvalue()


def test_a_run_of_classes_and_a_name_that_is_no_text_are_used_as_any_other(tmp_path, monkeypatch):
    for stream in ("stdout", "stderr"):
        # pytest's own take text only
        monkeypatch.setattr(sys, stream, io.StringIO())
    run = write_run(tmp_path / "run", statistic="error")
    path = write_voice(tmp_path / "a.wav", 1).rename(tmp_path / os.fsdecode(b"\xff.wav"))
    assert main(["verify", str(run), str(path), str(path)]) == 0
    out = str(tmp_path / "out")
    assert main(["embed", str(run), str(path), "--output_folder", out]) == 0
    assert (tmp_path / "out" / os.fsdecode(b"\xff.npy")).exists()
    file = str(tmp_path / "speakers.json")
    assert main(["enroll", str(run), "Ada", str(path), "--database", file]) == 0
    assert main(["identify", str(run), str(path), "--database", file]) == 0

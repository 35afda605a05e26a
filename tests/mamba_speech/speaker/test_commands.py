"""The commands verify, embed, enroll and identify, as they are typed."""

import io
import json
import multiprocessing
import os
import shutil
import sys

import numpy as np
import pytest
import soundfile

from mamba_speech import SpeakerVerifier
from mamba_speech.cli import main
from mamba_speech.speaker.embed import plan_outputs
from tests.support.verification import RATE, write_run, write_voice


@pytest.fixture
def run(speaker_runs):
    return str(speaker_runs / "run")


@pytest.fixture
def voices(tmp_path):
    """Two voices in two recordings each, of the same names, in folders with a space."""
    return {
        (voice, name): str(
            write_voice(tmp_path / f"voice {voice}" / f"{name}.wav", voice, seed=seed)
        )
        for voice in (1, 2)
        for seed, name in enumerate("ab")
    }


@pytest.fixture
def silent(tmp_path):
    path = tmp_path / "silent file.wav"
    soundfile.write(path, np.zeros(RATE), RATE)
    return str(path)


def objects(text):
    """What --json printed."""
    return [json.loads(line) for line in text.splitlines()]


def rows(text):
    """What was printed in columns."""
    return [line.split("\t") for line in text.splitlines()]


# --- verify


def test_two_files_get_a_score_a_decision_and_the_source_of_the_threshold(run, voices, capsys):
    a, b = voices[1, "a"], voices[2, "a"]
    assert main(["verify", run, a, b]) == 0
    shown = capsys.readouterr()
    expected = SpeakerVerifier.load(run).verify(a, b)
    decision = "same speaker" if expected.same else "different speakers"
    assert rows(shown.out) == [[a, b, f"{expected.score:.4f}", decision]]
    source = "equal error rate (3.25 %) on valid_trials.txt (900 trials, 12 speakers)"
    assert shown.err == f"mamba-speech: threshold 0.5000: {source}\n"
    assert main(["verify", run, b, a, "--threshold", "1", "--json"]) == 0
    (found,) = objects(capsys.readouterr().out)
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
    found = rows(capsys.readouterr().out)
    others = [a, voices[2, "a"], voices[2, "b"], voices[1, "b"]]
    assert [row[:2] for row in found] == [[a, other] for other in others]
    assert found[0][2:] == ["1.0000", "same speaker"]


def test_a_list_of_pairs_gives_the_scores_of_each_alone(run, voices, silent, tmp_path, capsys):
    pairs = [(voices[1, "a"], voices[2, "a"]), (voices[2, "a"], voices[1, "b"])]
    file = tmp_path / "pairs.txt"
    file.write_text("\n\n".join("\t".join(pair) for pair in [*pairs, (silent, pairs[0][0])]) + "\n")
    assert main(["verify", run, "--pairs", str(file), "--json"]) == 1
    shown = capsys.readouterr()
    *found, bad = objects(shown.out)
    verifier = SpeakerVerifier.load(run)
    for one, (first, second) in zip(found, pairs, strict=True):
        assert (one["enrolment"], one["path"]) == (first, second)
        assert one["score"] == verifier.verify(first, second).score
    assert bad["enrolment"] == silent and "0.00 s of speech" in bad["error"]
    assert f"1 file was not compared:\n  {silent}: holds" in shown.err
    file.write_text("a.wav b.wav\n")
    assert main(["verify", run, "--pairs", str(file)]) == 1
    assert "a.wav: no such file" in capsys.readouterr().err


def test_a_run_without_a_threshold_says_so_and_scores(speaker_runs, voices, capsys):
    other = str(speaker_runs / "other")
    arguments = ["verify", other, voices[1, "a"], voices[1, "b"]]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "the run has no threshold: scores only; give --threshold" in shown.err
    assert rows(shown.out)[0][3] == "no threshold"
    assert main([*arguments, "--json"]) == 0
    (found,) = objects(capsys.readouterr().out)
    assert found["same"] is found["threshold"] is None and found["score"] < 1


def test_a_bad_file_is_named_and_the_others_are_compared(run, voices, silent, tmp_path, capsys):
    a, b = voices[1, "a"], voices[1, "b"]
    missing = str(tmp_path / "missing.wav")
    assert main(["verify", run, a, silent, missing, b]) == 1
    shown = capsys.readouterr()
    assert [row[1] for row in rows(shown.out)] == [b]
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


# --- embed


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
    assert dict(rows(shown.out)) == expected
    assert "2 files were not embedded:" in shown.err
    assert sorted(path.suffix for path in out.rglob("*.*")) == [".json", ".lock"] + [".npy"] * 4


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
    assert [one["new"] for one in objects(capsys.readouterr().out)] == [True] * 4
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    (out / "voice 1" / "a.npy").unlink()
    write_voice(tmp_path / "voice 2" / "a.wav", 5)
    os.utime(tmp_path / "voice 2" / "a.wav", ns=(max(times.values()) + 10**9,) * 2)
    assert main(arguments) == 0
    found = {one["path"]: one["new"] for one in objects(capsys.readouterr().out)}
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
    # and what nobody knows the origin of is not replaced
    shutil.copy(out / "a.npy", out / "b.npy")
    (out / "embeddings.json").unlink()
    assert main(second) == 1
    assert f"{out / 'b.npy'} is there already, and nothing says" in capsys.readouterr().err


def test_two_recordings_whose_embeddings_would_have_one_name_are_named(run, tmp_path, capsys):
    folder = tmp_path / "in"
    a = write_voice(folder / "a.wav", 1)
    sound, rate = soundfile.read(a)
    soundfile.write(folder / "a.flac", sound, rate)
    out = tmp_path / "out"
    assert main(["embed", run, str(folder), str(a), "--output_folder", str(out)]) == 1
    shown = capsys.readouterr()
    assert len(rows(shown.out)) == 1
    assert f"{a}: its embedding would have the name of that of {folder / 'a.flac'}" in shown.err


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


# --- enroll and identify


@pytest.fixture
def database(run, voices, tmp_path):
    """Two speakers in a database whose threshold knows each by the other recording."""
    file = tmp_path / "known speakers.json"
    for voice, name in ((1, "Ada"), (2, "Emil Ö.")):
        command = ["enroll", run, name, voices[voice, "a"], "--database", str(file)]
        assert main(command) == 0
    return file


def test_a_known_voice_is_identified_and_an_unknown_one_is_not(
    run, voices, database, tmp_path, capsys
):
    capsys.readouterr()
    stranger = str(write_voice(tmp_path / "stranger.wav", 9))
    files = [voices[1, "a"], voices[2, "a"], stranger]
    command = ["identify", run, *files, "--database", str(database), "--threshold", "0.99999"]
    assert main(command) == 0
    shown = capsys.readouterr()
    found = rows(shown.out)
    assert [row[:2] for row in found] == list(
        map(list, zip(files, ["Ada", "Emil Ö.", "unknown"], strict=True))
    )
    assert found[0][2] == "1.0000" and "threshold 1.0000: given as --threshold" in shown.err
    assert main([*command, "--json"]) == 0
    one, other, unknown = objects(capsys.readouterr().out)
    assert one["score"] == pytest.approx(1) and unknown["speaker"] == "unknown"
    for record in (one, other, unknown):
        scores = [entry["score"] for entry in record["ranking"]]
        assert sorted(scores, reverse=True) == scores and scores[0] == record["score"]
        assert {entry["speaker"] for entry in record["ranking"]} == {"Ada", "Emil Ö."}
    assert main(["identify", run, stranger, "--database", str(database)]) == 0
    assert f"threshold 0.5000: {database}" in capsys.readouterr().err


def test_recordings_of_a_speaker_add_up_in_any_order_and_count_once(run, voices, tmp_path, capsys):
    a, b = voices[1, "a"], voices[1, "b"]
    one, two = (str(tmp_path / f"{name}.json") for name in ("one", "two"))
    assert main(["enroll", run, "Ada", a, b, "--database", one]) == 0
    assert "Ada has 2 recordings in" in capsys.readouterr().err
    for path in (b, a, a):
        assert main(["enroll", run, "Ada", path, "--database", two]) == 0
    assert "2 recordings in" in (err := capsys.readouterr().err) and ", 0 new" in err
    verifier = SpeakerVerifier.load(run)
    ranking = [verifier.identify(voices[2, "a"], path).ranking for path in (one, two)]
    assert ranking[0][0] == ("Ada", pytest.approx(ranking[1][0][1], abs=1e-12))
    vectors = [verifier.embed(path).vector.astype(float) for path in (a, b, voices[2, "a"])]
    units = [vector / np.linalg.norm(vector) for vector in vectors]
    mean = (units[0] + units[1]) / 2
    assert ranking[0][0][1] == pytest.approx(mean @ units[2] / np.linalg.norm(mean), abs=1e-9)
    assert main(["enroll", run, "Ada", voices[2, "a"], "--database", one, "--replace"]) == 0
    assert "Ada has 1 recording " in capsys.readouterr().err
    assert verifier.identify(voices[2, "a"], one).ranking == [("Ada", 1.0)]


def test_bad_files_are_left_out_and_a_speaker_of_bad_files_only_is_not_enrolled(
    run, voices, silent, tmp_path, capsys
):
    file = tmp_path / "speakers.json"
    assert main(["enroll", run, "Ada", silent, "--database", str(file)]) == 1
    assert f"{silent}: holds 0.00 s" in capsys.readouterr().err and not file.exists()
    assert main(["enroll", run, "Ada", silent, voices[1, "a"], "--database", str(file)]) == 1
    shown = capsys.readouterr()
    assert [row[0] for row in rows(shown.out)] == [voices[1, "a"]]
    assert "Ada has 1 recording " in shown.err
    files = [silent, voices[1, "a"]]
    assert main(["identify", run, *files, "--database", str(file)]) == 1
    shown = capsys.readouterr()
    assert len(rows(shown.out)) == 1 and "1 file was not identified:" in shown.err


def test_a_database_of_another_model_is_refused(speaker_runs, voices, database, capsys):
    other, before = str(speaker_runs / "other"), database.read_bytes()
    capsys.readouterr()
    for command in (
        ["identify", other, voices[1, "a"]],
        ["enroll", other, "Bo", voices[1, "a"]],
    ):
        assert main([*command, "--database", str(database)]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert f"error: {database}: was made with another model (weights " in shown.err
    assert database.read_bytes() == before


def _database(**changes):
    """The text of a database with another value for one of its keys."""
    content = {"format": "mamba-speech speakers 1", "weights": "w", "threshold": 0.5}
    return json.dumps(content | {"speakers": {}} | changes)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "not a JSON file"),
        ("[]", "is no database of speakers"),
        ('{"format": "mamba-speech speakers 1"}', "is a damaged database"),
        (_database(speakers={"A": {"sum": ["x"], "recordings": []}}), "is a damaged database"),
        (_database(speakers={"A": {"sum": [0.0], "recordings": []}}), "is a damaged database"),
        (_database(speakers={"A": {"sum": [[1.0]], "recordings": []}}), "is a damaged database"),
        (_database(speakers=[]), "is a damaged database"),
        (_database(threshold="high"), "is a damaged database"),
    ],
)
def test_a_file_that_is_no_database_is_named(content, message, run, voices, tmp_path, capsys):
    file = tmp_path / "speakers.json"
    file.write_text(content)
    for command in (["identify", run], ["enroll", run, "Ada"]):
        assert main([*command, voices[1, "a"], "--database", str(file)]) == 2
        assert f"error: {file}: {message}" in capsys.readouterr().err
    assert file.read_text() == content


def test_what_cannot_be_identified_by_is_refused(speaker_runs, run, voices, tmp_path, capsys):
    a, file = voices[1, "a"], str(tmp_path / "speakers.json")
    assert main(["identify", run, a, "--database", file]) == 2
    assert f"{file}: no such database; mamba-speech enroll makes one" in capsys.readouterr().err
    other = str(speaker_runs / "other")
    assert main(["enroll", other, "Ada", a, "--database", file]) == 0
    capsys.readouterr()
    assert main(["identify", other, a, "--database", file]) == 2
    assert f"{file}: has no threshold" in capsys.readouterr().err
    assert main(["identify", other, a, "--database", file, "--threshold", "0.2"]) == 0
    # which an enrolment may bring
    assert main(["enroll", other, "Bo", a, "--database", file, "--threshold", "0.3"]) == 0
    assert main(["identify", other, a, "--database", file]) == 0
    for name in ("unknown", " ", "a\tb", "a\nb"):
        assert main(["enroll", run, name, a, "--database", file]) == 2
        assert "a speaker's name must be a printable text" in capsys.readouterr().err
    nowhere = str(tmp_path / "nowhere" / "speakers.json")
    assert main(["enroll", run, "Ada", a, "--database", nowhere]) == 2
    assert f"{nowhere}: its folder is not there" in capsys.readouterr().err


def enroll_many(run, name, path, file):
    """Enroll a speaker; the work of one process."""
    sys.exit(SpeakerVerifier.load(run).enroll(name, path, file).error is not None)


def test_two_writers_lose_nothing(run, voices, tmp_path):
    file = tmp_path / "speakers.json"
    context = multiprocessing.get_context("fork")
    names = [f"speaker {number}" for number in range(6)]
    work = [(run, name, voices[1, "a"], file) for name in names]
    writers = [context.Process(target=enroll_many, args=arguments) for arguments in work]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 6
    ranking = SpeakerVerifier.load(run).identify(voices[1, "a"], file).ranking
    assert sorted(name for name, _ in ranking) == names


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

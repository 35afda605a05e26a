"""The commands enroll and identify, as they are typed, and the file of known speakers."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from mamba_speech import AudioError, SpeakerVerifier
from mamba_speech.cli import main
from mamba_speech.speaker.database import SpeakerDatabase, enroll
from mamba_speech.speaker.embedding import Embedding
from tests.support.verification import json_rows, tab_rows, write_voice


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
    found = tab_rows(shown.out)
    assert [row[:2] for row in found] == list(
        map(list, zip(files, ["Ada", "Emil Ö.", "unknown"], strict=True))
    )
    assert found[0][2] == "1.0000" and "threshold 1.0000: given as --threshold" in shown.err
    assert main([*command, "--json"]) == 0
    one, other, unknown = json_rows(capsys.readouterr().out)
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
    assert [row[0] for row in tab_rows(shown.out)] == [voices[1, "a"]]
    assert "Ada has 1 recording " in shown.err
    files = [silent, voices[1, "a"]]
    assert main(["identify", run, *files, "--database", str(file)]) == 1
    shown = capsys.readouterr()
    assert len(tab_rows(shown.out)) == 1 and "1 file was not identified:" in shown.err


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
        (_database(threshold=7), "is a damaged database"),
    ],
)
def test_a_file_that_is_no_database_is_named(content, message, run, voices, tmp_path, capsys):
    file = tmp_path / "speakers.json"
    file.write_text(content)
    for command in (["identify", run], ["enroll", run, "Ada"]):
        assert main([*command, voices[1, "a"], "--database", str(file)]) == 2
        assert f"error: {file}: {message}" in capsys.readouterr().err
    assert file.read_text() == content


def test_voices_of_another_size_than_the_model_s_are_damage(run, voices, database, capsys):
    content = json.loads(database.read_text())
    for voice in content["speakers"].values():
        voice["sum"] = [1.0, 2.0]
    database.write_text(json.dumps(content))
    capsys.readouterr()
    for command in (["identify", run], ["enroll", run, "Bo"]):
        assert main([*command, voices[1, "a"], "--database", str(database)]) == 2
        message = f"error: {database}: is a damaged database of speakers (its voices have 2"
        assert message in capsys.readouterr().err


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


def test_writers_at_the_same_time_lose_nothing(voices, tmp_path):
    file = tmp_path / "speakers.json"
    found = Embedding(path=voices[1, "a"], vector=np.ones(4, dtype=np.float32))
    names = [f"speaker {number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: enroll(file, name, [found], "weights"), names))
    ranking = SpeakerDatabase.read(file).rank(found.vector)
    assert sorted(name for name, _ in ranking) == sorted(names)
    assert {score for _, score in ranking} == {1.0}


def test_python_enrolls_one_recording_or_many_and_waveforms(run, voices, silent, tmp_path):
    verifier, file = SpeakerVerifier.load(run), tmp_path / "speakers.json"
    with pytest.raises(AudioError, match="silent file.wav"):
        verifier.enroll("Ada", silent, file)
    assert not file.exists()
    one = verifier.enroll("Ada", voices[1, "a"], file)
    assert one.path == voices[1, "a"]
    good, bad = verifier.enroll("Ada", [voices[1, "b"], silent], file)
    assert good.error is None and "0.00 s of speech" in bad.error
    sound, rate = soundfile.read(voices[2, "a"])
    for _ in range(2):
        verifier.enroll("Bo", sound, file, rate, threshold=0.25)
    database = SpeakerDatabase.read(file)
    counts = {name: len(voice["recordings"]) for name, voice in database.voices.items()}
    assert counts == {"Ada": 2, "Bo": 1} and database.threshold == 0.25
    assert verifier.identify(sound, file, rate).speaker == "Bo"
    assert verifier.identify(sound, database, rate, threshold=1.0).speaker is None

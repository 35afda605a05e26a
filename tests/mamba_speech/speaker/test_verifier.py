"""The Python interface: loading a run, scores of recordings, the published methods, and SpeechBrain's own class."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.inference.speaker import SpeakerRecognition

from mamba_speech import AudioError, SpeakerVerifier
from mamba_speech.cli import main
from mamba_speech.export import export_run
from mamba_speech.speaker.threshold import Threshold, read_threshold, write_threshold
from tests.support import separation
from tests.support.verification import (
    RATE,
    SSL_RUN,
    STUDENT_RUN,
    Timbre,
    tab_rows,
    write_run,
    write_voice,
)


@pytest.fixture(scope="session")
def verifier(speaker_runs):
    return SpeakerVerifier.load(speaker_runs / "run", "cpu")


@pytest.fixture(scope="session")
def ssl_run(tmp_path_factory):
    """The output folder of a run on a self-supervised network."""
    return write_run(tmp_path_factory.mktemp("ssl") / "run", yaml=SSL_RUN)


@pytest.fixture(scope="session")
def student_run(tmp_path_factory):
    """The output folder of a student that takes crops of one length."""
    return write_run(tmp_path_factory.mktemp("student") / "run", yaml=STUDENT_RUN)


@pytest.fixture
def voices(tmp_path):
    """Two files of one voice and one of another, in folders with a space, two of one name."""
    return [
        write_voice(tmp_path / "one voice" / "a.wav", 1),
        write_voice(tmp_path / "one voice" / "b.wav", 1, seed=1),
        write_voice(tmp_path / "another voice" / "a.wav", 2),
    ]


def contents(folder):
    """What is in a folder and when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_the_score_of_two_recordings_is_symmetric_repeats_and_is_one_for_a_file_with_itself(
    verifier, voices, speaker_runs
):
    a, b, c = voices
    score = verifier.verify(a, b).score
    assert score == verifier.verify(b, a).score == verifier.verify(str(a), str(b)).score
    list(verifier.embed([c, b, a]))
    assert [one.score for one in verifier.verify(a, [c, a, b])][1:] == [1.0, score]
    assert SpeakerVerifier.load(speaker_runs / "run", "cpu").verify(a, b).score == score
    sound, rate = soundfile.read(b, dtype="int16")
    assert verifier.verify(a, sound, rate).score == score
    assert verifier.verify(verifier.embed(a), verifier.embed(b)).score == score


def test_a_decision_names_its_threshold_and_where_it_comes_from(verifier, voices, speaker_runs):
    a, b, c = voices
    found = verifier.verify(a, b)
    source = "equal error rate (3.25 %) on valid_trials.txt (900 trials, 12 speakers)"
    assert (found.threshold, found.threshold_source) == (0.5, source)
    assert (found.path, found.enrolment, found.seconds) == (str(b), str(a), 1.5)
    for threshold in (-1.0, found.score, 1.0):
        again = verifier.verify(a, b, threshold=threshold)
        # above the threshold, not at it
        assert again.same is (found.score > threshold) and again.threshold == threshold
    other = SpeakerVerifier.load(speaker_runs / "other", "cpu")
    undecided = other.verify(a, c)
    assert undecided.same is undecided.threshold is undecided.threshold_source is None
    assert -1 <= undecided.score < 1
    assert SpeakerVerifier.load(speaker_runs / "other", threshold=0.1).verify(a, a).same is True
    for call in (
        lambda: verifier.verify(a, b, threshold=float("nan")),
        lambda: SpeakerVerifier.load(speaker_runs / "run", threshold=2),
    ):
        with pytest.raises(ValueError, match="threshold must be a score, from -1 to 1"):
            call()


def test_a_threshold_of_equal_scores_is_one_that_can_be_read(tmp_path):
    file = tmp_path / "threshold.json"
    for value, written in ((np.inf, 1.0), (-np.inf, -1.0), (np.float32(0.5), 0.5)):
        write_threshold(file, value, "list", 1, 2, 0.5)
        assert read_threshold(file).value == written


def test_one_recording_raises_and_many_go_on(verifier, voices, tmp_path):
    silent = tmp_path / "silent file.wav"
    soundfile.write(silent, np.zeros(RATE), RATE)
    for call in (verifier.embed, lambda path: verifier.verify(voices[0], path)):
        with pytest.raises(AudioError, match="silent file.wav: holds 0.00 s of speech"):
            call(silent)
    with pytest.raises(AudioError, match="silent file.wav"):
        verifier.verify(silent, voices)
    with pytest.raises(ValueError, match="one recording is compared with others; got many"):
        verifier.verify(voices, voices[0])
    with pytest.raises(ValueError, match="needs its samples a second"):
        verifier.embed(np.zeros(RATE))
    bad, good = verifier.verify(voices[0], [silent, voices[1]])
    assert bad.score is bad.same is None and "silent file.wav" in bad.error
    assert good.error is None and good.score is not None
    found = list(verifier.embed([tmp_path / "one voice", silent]))
    assert [one.path for one in found] == [str(voices[0]), str(voices[1]), str(silent)]
    with pytest.raises(ValueError, match="the embedding holds an error"):
        verifier.verify(voices[0], found[2])


def test_a_model_that_reads_one_length_averages_crops(voices):
    verifier = SpeakerVerifier(Timbre(crop_samples=RATE), Threshold(0.9, "a test"), "cpu")
    assert verifier.verify(voices[0], voices[0]).score == 1.0
    assert verifier.model.seen == [(2, RATE)] * 2
    assert verifier.verify(voices[0], voices[1]).threshold_source == "a test"


def test_the_published_methods_load_a_checkpoint_and_give_similarity_and_decision(
    speaker_runs, verifier, voices, monkeypatch
):
    checkpoints = sorted((speaker_runs / "run" / "save").glob("CKPT*"))
    last = SpeakerVerifier.load_from_checkpoint(checkpoints[-1], device="cpu")
    similarity, same = last.verify_speakers(voices[0], voices[1])
    assert similarity == last.verify(voices[0], voices[1]).score
    assert same is (similarity > 0.5)
    saved = torch.load(checkpoints[-1] / "model.ckpt", weights_only=True)
    loaded = last.model.state_dict()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)
    monkeypatch.chdir(checkpoints[-1])
    again = SpeakerVerifier.load_from_checkpoint("model.ckpt")
    assert again.weights_hash == last.weights_hash != verifier.weights_hash
    whole = SpeakerVerifier.load_from_checkpoint(speaker_runs / "run")
    assert whole.weights_hash == verifier.weights_hash
    found = whole.verify_speakers(voices[0], voices[0])
    assert found.similarity == 1.0 and found.same is True


def test_what_is_no_checkpoint_of_a_run_is_named(speaker_runs, tmp_path):
    (checkpoint, _) = sorted((speaker_runs / "run" / "save").glob("CKPT*"))
    alone = shutil.copytree(checkpoint, tmp_path / "alone" / checkpoint.name)
    for path, message in (
        (tmp_path / "nowhere.ckpt", "no such checkpoint"),
        (alone, "no folder above it holds hyperparams.yaml"),
        (speaker_runs / "run" / "save", "is no whole checkpoint"),
    ):
        with pytest.raises(FileNotFoundError, match=f"{path}: {message}".replace("+", r"\+")):
            SpeakerVerifier.load_from_checkpoint(path)


def test_a_moved_run_that_may_only_be_read_loads_and_stays_as_it_is(speaker_runs, tmp_path, voices):
    run = shutil.copytree(speaker_runs / "run", tmp_path / "moved run")
    for path in [run, *run.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = contents(run)
    random = torch.get_rng_state()
    verifier = SpeakerVerifier.load(run, "cpu")
    assert verifier.verify(voices[0], voices[0]).same is True
    assert contents(run) == before
    assert torch.equal(torch.get_rng_state(), random)
    for path in [run, *run.rglob("*")]:
        path.chmod(0o755)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"threshold": "high"}',
        '{"threshold": true}',
        '{"threshold": "nan"}',
        '{"threshold": 7}',
    ],
)
def test_a_threshold_that_cannot_be_read_is_named_in_one_sentence(content, speaker_runs, tmp_path):
    run = shutil.copytree(speaker_runs / "run", tmp_path / "run")
    file = run / "save" / "threshold.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"^{file}: ") as error:
        SpeakerVerifier.load(run)
    assert "\n" not in str(error.value)
    # what is not asked for does not hinder
    assert SpeakerVerifier.load(run, threshold=0.3).threshold.value == 0.3


def test_a_run_of_another_task_is_refused_in_one_sentence(tmp_path, spotters):
    separation.write_run(tmp_path / "separation", "mambatasnet_debug.yaml")
    for run in (tmp_path / "separation", spotters / "causal"):
        with pytest.raises(ValueError, match=f"^{run}.*is a run of another task"):
            SpeakerVerifier.load(run)
    text = (spotters / "causal" / "hyperparams.yaml").read_text()
    run = shutil.copytree(spotters / "causal", tmp_path / "renamed")
    (run / "hyperparams.yaml").write_text(f"{text}\nthreshold_file: threshold.json\n")
    with pytest.raises(ValueError, match="its model gives no speaker embeddings"):
        SpeakerVerifier.load(run)


def test_options_that_do_not_fit_the_model_are_named(tmp_path):
    run = write_run(tmp_path / "run")
    file = run / "hyperparams.yaml"
    text = file.read_text()
    for old, new, message in (
        ("sample_rate: 16000", "sample_rate: 8000", "sample_rate is 8000, and its model reads"),
        ("threshold_file: ", "threshold_file: 5\nunused: ", "threshold_file must be a path; got 5"),
    ):
        assert old in text
        file.write_text(text.replace(old, new, 1))
        with pytest.raises(ValueError, match=f"hyperparams.yaml: {message}"):
            SpeakerVerifier.load(run)


def test_a_run_on_a_self_supervised_network_needs_nothing_but_itself(ssl_run, voices):
    verifier = SpeakerVerifier.load(ssl_run, "cpu")
    assert "front_end.network" in " ".join(verifier.model.state_dict())
    score = verifier.verify(voices[0], voices[1]).score
    assert score == verifier.verify(voices[1], voices[0]).score < 1
    assert SpeakerVerifier.load(ssl_run, "cpu").verify(voices[0], voices[1]).score == score


@pytest.mark.parametrize("kind", ["run", "ssl", "student"])
def test_speechbrains_own_interface_gives_the_same_scores(
    kind, speaker_runs, ssl_run, student_run, voices, tmp_path, monkeypatch
):
    folder = tmp_path / "saved"
    run = {"ssl": ssl_run, "student": student_run}.get(kind, speaker_runs / "run")
    verifier = SpeakerVerifier.load(run, "cpu")
    export_run(run, folder)
    loaded = SpeakerRecognition.from_hparams(source=str(folder), savedir=str(tmp_path / "loaded"))
    assert loaded.hparams.threshold == 0.5
    narrow = write_voice(tmp_path / "narrow.wav", 1, rate=8000)
    # SpeechBrain takes two files of one name for one
    renamed = shutil.copy(voices[2], tmp_path / "c.wav")
    monkeypatch.chdir(tmp_path)
    # SpeechBrain resamples with another filter, which lets some images above 4 kHz pass
    for path, error in ((voices[1], 1e-4), (renamed, 1e-4), (narrow, 0.05)):
        expected = verifier.verify(voices[0], path).score
        score, _ = loaded.verify_files(str(voices[0]), str(path), savedir=str(tmp_path / "got"))
        assert float(score) == pytest.approx(expected, abs=error)
    waves = [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in voices]
    first, second = torch.stack(waves[:2]), torch.stack([waves[2], waves[0]])
    lengths = torch.tensor([1.0, 0.8])
    score, same = loaded.verify_batch(first, second, lengths, lengths, threshold=0.5)
    for number, share in enumerate(lengths.tolist()):
        pair = [one[number][: round(share * len(waves[0]))] for one in (first, second)]
        expected = verifier.verify(*pair, sample_rate=RATE)
        assert float(score[number]) == pytest.approx(expected.score, abs=1e-6)
        assert bool(same[number]) is expected.same


@pytest.mark.data("libri_voxceleb")
def test_real_recordings_of_one_name_in_two_folders_are_two(verifier, data, tmp_path, capsys):
    corpus = data("libri_voxceleb") / "wav"
    a, b, *_ = sorted(corpus.rglob("00001.wav"))
    score = verifier.verify(a, b).score
    assert -1 <= score < 1 and score == verifier.verify(b, a).score
    assert verifier.verify(a, a).score == 1.0
    folders = [str(path) for path in sorted(corpus.iterdir())[:20]]
    out = tmp_path / "out"
    run = ["embed", str(tmp_path / "run"), *folders, "--output_folder", str(out)]
    write_run(tmp_path / "run")
    assert main(run) == 0
    rows = tab_rows(capsys.readouterr().out)
    recordings = sorted(path for folder in folders for path in Path(folder).rglob("*.wav"))
    assert sorted(path for path, _ in rows) == list(map(str, recordings))
    assert len({embedding for _, embedding in rows}) == len(recordings)
    for path, embedding in rows:
        relative = Path(path).relative_to(corpus).with_suffix(".npy")
        assert Path(embedding) == out / relative
        assert np.array_equal(np.load(embedding), verifier.embed(path).vector)

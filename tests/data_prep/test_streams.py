"""Streams of real clips in other speech: parts apart, levels and noise as asked, the truth where it is said to be."""

import numpy as np
import pytest
import soundfile

from data_prep.streams.__main__ import main
from data_prep.streams.sources import noise_of, speech_of
from mamba_speech.files import read_json
from tests.support.faults import refusal

RATE = 16000
WORDS = {"alexa": ("anna", "bob", "carl"), "smart_mirror": ("anna", "bob", "carl")}
PARTS = {"anna": "training", "bob": "validation", "carl": "testing"}


def burst(random, seconds, level=0.1):
    """Noise that swells and fades, so that it has active speech."""
    samples = random.standard_normal(round(seconds * RATE))
    return (level * samples * np.hanning(len(samples))).astype(np.float32)


def write(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE)


@pytest.fixture
def sources(tmp_path):
    """Words by three voices, other speech by four people, noise of three folds."""
    random = np.random.default_rng(0)
    rows = ["path,word,voice,part"]
    for word, voices in WORDS.items():
        for voice in voices:
            for number in range(2):
                name = f"{word}/{voice}_{number}.wav"
                write(tmp_path / "words" / name, burst(random, 0.8))
                rows.append(f"{name},{word},{voice},{PARTS[voice]}")
    (tmp_path / "words/clips.csv").write_text("\n".join(rows) + "\n")
    for speaker in "pqrs":
        for number in range(3):
            write(tmp_path / f"speech/{speaker}/{speaker}{number}.wav", burst(random, 1.5, 0.02))
    for name in ("rain/1-a", "rain/2-b", "rain/3-c", "dog/3-d"):
        write(tmp_path / f"noise/{name}.wav", burst(random, 0.6))
    return tmp_path


def build(sources, output, *options):
    """Run the command; the truth of the part that was asked for, and its folder."""
    command = ["--words", str(sources / "words"), "--background", str(sources / "speech")]
    main([str(output), *command, "--part", "testing", *options])
    return read_json(output / "testing/events.json"), output / "testing"


def samples_of(folder, truth, condition):
    return soundfile.read(folder / truth["streams"][condition]["audio"])[0]


def test_the_truth_says_where_each_clip_is_and_at_which_level(sources):
    truth, folder = build(sources, sources / "out")
    assert truth["labels"] == sorted(WORDS) and len(truth["events"]) == 4
    assert {one["speaker"] for one in truth["events"]} == {"carl"}
    stream = samples_of(folder, truth, "clean")
    assert len(stream) == round(truth["seconds"] * RATE)
    for event in [*truth["events"], *truth["speech"]]:
        assert -29.01 <= event["level_db"] <= -22.99
    for event in truth["events"]:
        clip, _ = soundfile.read(sources / "words" / event["clip"])
        start = round(event["start"] * RATE)
        there = stream[start : start + len(clip)]
        assert np.corrcoef(clip, there)[0, 1] > 0.99
    said = sum(one["end"] - one["start"] for one in truth["events"])
    assert truth["background_seconds"] == pytest.approx(truth["seconds"] - said, abs=0.01)


def test_the_same_command_does_nothing_and_elsewhere_gives_the_same_samples(sources):
    first, folder = build(sources, sources / "out")
    before = (folder / "clean.flac").stat().st_mtime_ns
    again, _ = build(sources, sources / "out")
    assert (folder / "clean.flac").stat().st_mtime_ns == before and again == first
    assert build(sources, sources / "elsewhere")[0]["streams"] == first["streams"]
    other, _ = build(sources, sources / "other", "--seed", "2")
    assert other["streams"]["clean"]["sha256"] != first["streams"]["clean"]["sha256"]


def test_noise_lies_under_the_same_speech_at_the_asked_ratio(sources):
    noisy = ("--noise", str(sources / "noise"), "--snr", "10", "0")
    truth, folder = build(sources, sources / "out", *noisy)
    clean = samples_of(folder, truth, "clean")
    for ratio in (10, 0):
        noise = samples_of(folder, truth, str(ratio)) - clean
        level = 10 * np.log10(np.square(noise).mean())
        assert level == pytest.approx(-26 - ratio, abs=0.5)
    assert {one["file"] for one in truth["noise"]} == {"rain/3-c.wav", "dog/3-d.wav"}
    assert build(sources, sources / "clean")[0]["events"] == truth["events"]


def test_parts_share_no_speaker_and_no_noise(sources):
    halves = [
        {one.speaker for one in speech_of([sources / "speech"], part, ["alexa"])}
        for part in ("validation", "testing")
    ]
    assert halves[0] and halves[1] and not halves[0] & halves[1]
    noises = [set(noise_of(sources / "noise", part)) for part in ("validation", "testing")]
    assert noises[0] and noises[1] and not noises[0] & noises[1]


def test_speech_in_which_a_word_is_said_is_left_out(sources):
    before = speech_of([sources / "speech"], "testing", ["smart_mirror"])
    chosen = before[0].path
    chosen.with_suffix(".txt").write_text("A SMART MIRROR HANGS THERE")
    after = speech_of([sources / "speech"], "testing", ["smart_mirror"])
    assert [one.path for one in after] == [one.path for one in before[1:]]


def test_a_broken_recording_is_left_out_and_listed(sources):
    chosen = speech_of([sources / "speech"], "testing", ["alexa"])[0].path
    silent = np.zeros(round(1.5 * RATE))
    write(chosen, silent)
    truth, _ = build(sources, sources / "out")
    assert truth["skipped"] == [str(chosen)]


def test_limits_leave_so_many_clips_and_so_much_speech(sources):
    truth, _ = build(sources, sources / "out", "--clips_per_word", "1", "--minutes", "0.04")
    assert len(truth["events"]) == 2 and len(truth["speech"]) == 2


def test_sources_that_are_too_few_are_named(sources):
    def refuse(*options):
        command = [sources / "out", "--words", sources / "words", *options]
        return refusal(main, [str(one) for one in command])

    write(sources / "one/p/a.wav", burst(np.random.default_rng(1), 1.5))
    assert "are of one speaker" in refuse("--background", sources / "one")
    assert "does not exist" in refuse("--background", sources / "nowhere")
    speech = ("--background", sources / "speech", "--snr", "10")
    assert "does not exist" in refuse(*speech, "--noise", sources / "nowhere")
    assert "too few" in refuse(*speech, "--noise", sources / "one")

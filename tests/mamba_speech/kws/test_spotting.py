"""Using a trained spotter: windows and streams, events, misses and false alarms, the command."""

import json
import os
import shutil
import sys
import types
from itertools import islice, pairwise

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.inference.classifiers import EncoderClassifier

from mamba_speech.audio import AudioError, load_audio
from mamba_speech.blocks import AudioBlocks
from mamba_speech.cli import main
from mamba_speech.kws.detection import (
    Event,
    EventFinder,
    at_threshold,
    error_curve,
    read_reference,
)
from mamba_speech.kws.export import save_for_speechbrain
from mamba_speech.kws.spot import microphone
from mamba_speech.kws.spotter import KeywordSpotter
from tests.support.keywords import RATE, SPEAKERS, WORDS, say

KINDS = ("causal", "whole")


@pytest.fixture
def runs(spotters):
    """Output folders of a causal and an ordinary network."""
    return spotters


@pytest.fixture(params=KINDS)
def classifier(request, runs):
    return KeywordSpotter(runs / request.param, "cpu")


@pytest.fixture(scope="session")
def stream(tmp_path_factory):
    """Ten seconds with five words, and what is said when."""
    folder = tmp_path_factory.mktemp("stream")
    sound = 0.002 * np.random.default_rng(3).standard_normal(10 * RATE)
    events = []
    for number, word in enumerate([*WORDS, "up", "down"]):
        clip, start = say(word, SPEAKERS[number]), 0.5 + 1.9 * number
        sound[round(start * RATE) :][: len(clip)] += clip
        events.append({"start": start, "end": start + len(clip) / RATE, "label": word})
    soundfile.write(folder / "stream.wav", sound, RATE)
    content = {"audio": "stream.wav", "seconds": 10.0, "events": events}
    (folder / "events.json").write_text(json.dumps(content))
    return folder


def joined(classifier, waveform, sizes, **options):
    """Times and probabilities of a stream that comes in pieces of these sizes."""
    parts = classifier.probabilities(waveform.split(sizes), **options)
    times, probabilities = zip(*parts, strict=True)
    return torch.cat(times), torch.cat(probabilities)


@pytest.mark.parametrize("mode", ["sliding", "streaming"])
def test_pieces_of_any_size_give_what_the_whole_gives(mode, runs, stream):
    classifier = KeywordSpotter(runs / "causal", "cpu")
    waveform = load_audio(stream / "stream.wav", RATE)[: 4 * RATE]
    times, probabilities = joined(classifier, waveform, len(waveform), mode=mode)
    for sizes in (RATE // 10, 777, 3 * RATE):
        again = joined(classifier, waveform, sizes, mode=mode)
        torch.testing.assert_close(again[0], times)
        torch.testing.assert_close(again[1], probabilities, rtol=0, atol=1e-4)


def test_a_window_of_the_stream_is_classified_as_that_clip_is(classifier, stream):
    waveform = load_audio(stream / "stream.wav", RATE)
    times, probabilities = joined(classifier, waveform, RATE, mode="sliding", hop_seconds=0.25)
    assert torch.allclose(times, torch.arange(len(times)) * 0.25)
    assert times[-1] >= 9.5
    for index in (4, 17, 30):
        middle = round(float(times[index]) * RATE)
        clip = waveform[middle - RATE // 2 : middle + RATE // 2]
        expected = classifier.classify([clip])[0]
        torch.testing.assert_close(probabilities[index], expected, rtol=0, atol=1e-5)


def test_a_stream_without_silence_before_it_ends_like_its_clip(runs):
    classifier = KeywordSpotter(runs / "causal", "cpu")
    clip = torch.from_numpy(say("up", SPEAKERS[8], 1.0)).float()
    times, probabilities = joined(classifier, clip, 5000)
    # at half a window the mean covers exactly the clip
    index = int((times - 0.5).abs().argmin())
    expected = classifier.classify([clip])[0]
    torch.testing.assert_close(probabilities[index], expected, rtol=0, atol=1e-3)


def test_the_future_changes_nothing_that_a_stream_has_given(runs, stream):
    classifier = KeywordSpotter(runs / "causal", "cpu")
    waveform = load_audio(stream / "stream.wav", RATE)
    changed = waveform.clone()
    changed[5 * RATE :] = 0.3 * torch.randn(len(changed) - 5 * RATE)
    a, b = (joined(classifier, one, RATE) for one in (waveform, changed))
    past = a[0] + 0.5 <= 5
    assert past.sum() > 50
    assert torch.equal(a[1][past], b[1][past])
    assert not torch.allclose(a[1][~past], b[1][~past])


def test_a_batch_of_clips_gives_what_each_gives_alone(classifier):
    clips = [torch.randn(length) for length in (16000, 9000, 100, 1)]
    together = classifier.classify(clips)
    alone = torch.cat([classifier.classify([clip]) for clip in clips])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_a_network_that_reads_ahead_refuses_to_stream(runs):
    classifier = KeywordSpotter(runs / "whole", "cpu")
    with pytest.raises(ValueError, match="take mode sliding"):
        classifier.probabilities([], mode="streaming")
    with pytest.raises(ValueError, match="mode must be"):
        classifier.probabilities([], mode="jumping")


def course(peaks, seconds=10.0, step=0.05, labels=3):
    """Probabilities with bumps (time, class, height) on a low floor."""
    times = torch.arange(0, seconds, step, dtype=torch.float64)
    probabilities = torch.full((len(times), labels), 0.01, dtype=torch.float64)
    for time, index, height in peaks:
        bump = height * (1 - (times - time).abs() / 0.4).clamp(min=0)
        probabilities[:, index] = torch.maximum(probabilities[:, index], bump)
    return times, probabilities


def found(peaks, **options):
    finder = EventFinder(["no", "yes", "_unknown_"], 1.0, **{"smoothing": 0.0, **options})
    return finder(*course(peaks)) + finder.finish()


def test_every_peak_above_the_threshold_is_one_event():
    events = found([(2, 0, 0.9), (4, 1, 0.7), (6, 2, 0.99), (8, 0, 0.3)])
    assert [(e.label, round(e.middle, 1)) for e in events] == [("no", 2.0), ("yes", 4.0)]


def test_of_two_near_peaks_the_higher_stays_whichever_comes_first():
    for first, second, expected in [(0.9, 0.6, 2.0), (0.6, 0.9, 2.6)]:
        (event,) = found([(2, 0, first), (2.6, 1, second)], suppression=0.75)
        assert event.middle == pytest.approx(expected)
    assert len(found([(2, 0, 0.6), (2.6, 1, 0.9)], suppression=0.5)) == 2


def test_the_threshold_only_takes_events_away():
    random = np.random.default_rng(0)
    peaks = [(t, int(random.integers(2)), random.random()) for t in np.arange(0.5, 9.5, 0.37)]
    everything = found(peaks, threshold=0.0)
    for threshold in (0.2, 0.5, 0.8):
        kept = [event for event in everything if event.confidence >= threshold]
        assert found(peaks, threshold=threshold) == kept


def test_events_do_not_depend_on_how_the_stream_is_cut():
    times, probabilities = course([(2, 0, 0.9), (2.6, 1, 0.95), (5, 1, 0.8), (9.9, 0, 0.7)])
    results = []
    for size in (1, 7, 1000):
        finder = EventFinder(["no", "yes", "_unknown_"], 1.0, smoothing=0.2)
        parts = zip(times.split(size), probabilities.split(size), strict=True)
        results.append([event for part in parts for event in finder(*part)] + finder.finish())
    assert results[0] == results[1] == results[2] and len(results[0]) == 3


@pytest.mark.parametrize(
    "options", [{"threshold": 2}, {"suppression": 0}, {"smoothing": -1}, {"labels": ["_silence_"]}]
)
def test_an_event_finder_refuses_what_makes_no_sense(options):
    with pytest.raises(ValueError, match="must be|no keyword"):
        EventFinder(options.pop("labels", ["yes"]), 1.0, **options)


def event(label, middle, confidence=1.0):
    return Event(label, middle - 0.3, middle + 0.3, confidence)


def test_misses_and_false_alarms_are_counted_as_by_hand():
    reference = [event("yes", 10), event("no", 20), event("yes", 30)]
    events = [
        event("yes", 10.1, 0.9),  # right
        event("yes", 9.9, 0.8),  # the same word again
        event("yes", 20, 0.7),  # another word
        event("no", 40, 0.6),  # nothing there
        event("yes", 30.5, 0.5),  # right, within the tolerance
    ]
    curve = error_curve(events, reference, seconds=1800)
    counts = [(point["hits"], point["false_alarms"]) for point in curve]
    assert counts == [(0, 0), (1, 0), (1, 1), (1, 2), (1, 3), (2, 3)]
    assert at_threshold(curve, 0.65)["false_alarms_per_hour"] == 4
    assert at_threshold(curve, 0.0)["miss_rate"] == pytest.approx(1 / 3)
    assert at_threshold(curve, 0.95)["hits"] == 0
    far = error_curve([event("yes", 30.7)], reference, 1800, tolerance=0.25)
    assert far[-1]["hits"] == 0


def test_misses_fall_and_false_alarms_rise_along_the_curve():
    random = np.random.default_rng(1)
    events = [event("yes", 100 * random.random(), round(random.random(), 1)) for _ in range(200)]
    curve = error_curve(events, [event("yes", t) for t in range(5, 100, 5)], 100)
    for before, after in pairwise(curve):
        assert after["threshold"] < before["threshold"] or before is curve[0]
        assert after["miss_rate"] <= before["miss_rate"]
        assert after["false_alarms"] >= before["false_alarms"]


def test_events_that_are_certain_leave_the_point_at_which_nothing_is_reported():
    curve = error_curve([event("yes", 3, 1.0), event("yes", 9, 1.0)], [event("yes", 9)], 10)
    assert [(one["hits"], one["false_alarms"]) for one in curve] == [(0, 0), (1, 1)]
    assert at_threshold(curve, 1.0)["hits"] == 1


def test_events_are_those_of_the_definition_applied_moment_by_moment():
    random = np.random.default_rng(5)
    for trial in range(60):
        times = torch.arange(int(random.integers(1, 60)), dtype=torch.float64) * 0.0625
        probabilities = random.random((len(times), 3))
        if trial % 3 == 0:
            # with many that are equal
            probabilities = np.round(4 * probabilities) / 4
        smoothing, suppression = random.choice([0, 0.1, 0.25]), random.choice([0.03, 0.33, 0.77])
        finder = EventFinder(["no", "yes", "_unknown_"], 0.0, 0.4, smoothing, suppression)
        events = finder(times, torch.from_numpy(probabilities)) + finder.finish()
        seconds, peaks = times.numpy(), []
        for now in seconds:
            behind = (seconds <= now) & (now - seconds <= smoothing + 1e-9)
            means = probabilities[behind][:, :2].mean(0)
            peaks.append(((seconds[behind][0] + now) / 2, means.max(), int(means.argmax())))
        expected = [
            (("no", "yes")[index], round(middle, 3), round(height, 4))
            for number, (middle, height, index) in enumerate(peaks)
            if height >= 0.4
            and not any(
                abs(other - middle) <= suppression and (rival, -place) > (height, -number)
                for place, (other, rival, _) in enumerate(peaks)
            )
        ]
        assert [(one.label, one.start, one.confidence) for one in events] == expected


def test_a_file_prints_a_line_or_an_object_an_event(runs, stream, capsys):
    path = str(stream / "stream.wav")
    assert main(["spot", str(runs / "whole"), path, "--threshold", "0"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows and all(row[0] == path and row[3] in WORDS for row in rows)
    assert main(["spot", str(runs / "causal"), str(stream), "--threshold", "0", "--json"]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert objects and all(0 <= one["start"] < one["end"] for one in objects)
    assert sorted(objects[0]) == ["confidence", "end", "label", "path", "start"]


def test_a_name_that_is_no_text_is_read_as_any_other(stream, tmp_path):
    good, bad = (tmp_path / os.fsdecode(name) for name in (b"\xff.wav", b"\xfe.wav"))
    shutil.copy(stream / "stream.wav", good)
    bad.write_bytes(b"no audio")
    assert sum(len(block) for block in AudioBlocks(good, RATE)) == 10 * RATE
    with pytest.raises(AudioError, match="cannot be read as audio"):
        AudioBlocks(bad, RATE)


def test_windows_that_leave_samples_between_them_stand_where_their_times_say(runs, stream):
    classifier = KeywordSpotter(runs / "whole", "cpu")
    waveform = load_audio(stream / "stream.wav", RATE)
    options = {"mode": "sliding", "hop_seconds": 2.3}
    times, whole = joined(classifier, waveform, len(waveform), **options)
    assert times.tolist() == pytest.approx([0.0, 2.3, 4.6, 6.9, 9.2])
    for size in (1000, 20000, 50001):
        again, pieces = joined(classifier, waveform, size, **options)
        assert torch.equal(times, again)
        torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-5)


def test_a_bad_file_is_named_and_the_rest_searched(runs, stream, tmp_path, capsys):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"")
    arguments = ["spot", str(runs / "whole"), str(bad), str(stream / "stream.wav")]
    assert main([*arguments, "--threshold", "0"]) == 1
    shown = capsys.readouterr()
    assert "stream.wav\t" in shown.out and f"1 file was not searched:\n  {bad}" in shown.err


def test_a_clip_shorter_than_the_window_and_one_of_another_rate_are_searched(
    runs, tmp_path, capsys
):
    soundfile.write(tmp_path / "short.wav", say("up", SPEAKERS[0], 0.2), RATE)
    soundfile.write(tmp_path / "other.wav", say("up", SPEAKERS[0])[::2], 8000)
    for kind in KINDS:
        assert main(["spot", str(runs / kind), str(tmp_path), "--threshold", "0"]) == 0
        out = capsys.readouterr().out
        assert "short.wav" in out and "other.wav" in out


def test_an_evaluation_writes_its_curve_and_prints_its_point(runs, stream, tmp_path, capsys):
    arguments = ["spot", str(runs / "whole"), str(stream / "stream.wav")]
    arguments += ["--evaluate", str(stream / "events.json"), "--curve", str(tmp_path / "curve")]
    assert main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "curve.json").read_text())
    assert printed["keywords"] == written["keywords"] == 5
    assert written["curve"][0]["miss_rate"] == 1
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert main(arguments) == 0
    assert "5 keywords in 0.2 minutes" in capsys.readouterr().out


def test_wrong_evaluations_get_one_sentence(runs, stream, tmp_path, capsys):
    audio, run = str(stream / "stream.wav"), str(runs / "whole")
    content = json.loads((stream / "events.json").read_text())
    cases = {
        "has 10.0 s": content | {"seconds": 60},
        "must hold `seconds` and `events`": {"events": [{"start": 1}]},
        "holds no event": content | {"events": []},
        "none of its keywords": content | {"events": [{"label": "tree", "start": 1, "end": 2}]},
    }
    path = tmp_path / "events.json"
    for message, wrong in cases.items():
        path.write_text(json.dumps(wrong))
        assert main(["spot", run, audio, "--evaluate", str(path)]) == 2
        assert message in capsys.readouterr().err
    assert main(["spot", run, audio, "--evaluate", str(tmp_path / "none.json")]) == 2
    assert main(["spot", run, audio, audio, "--evaluate", str(stream / "events.json")]) == 2
    assert main(["spot", run, audio, "--curve", "x"]) == 2
    assert "give --evaluate" in capsys.readouterr().err


def test_keywords_that_the_model_does_not_know_are_not_counted_as_missed(runs, stream, tmp_path):
    content = json.loads((stream / "events.json").read_text())
    content["events"].append({"label": "tree", "start": 1, "end": 2})
    path = tmp_path / "events.json"
    path.write_text(json.dumps(content))
    events, seconds = read_reference(path)
    assert len(events) == 6 and seconds == 10.0


def test_without_sounddevice_the_microphone_is_refused_with_what_to_install(
    runs, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["spot", str(runs / "whole"), "microphone"]) == 2
    assert "pip install sounddevice" in capsys.readouterr().err


def test_a_microphone_of_another_rate_is_resampled(monkeypatch):
    tone = np.sin(2 * np.pi * 440 * np.arange(48000) / 48000).astype(np.float32)

    class InputStream:
        """Hands over a second of tone at its rate, in blocks."""

        def __init__(self, samplerate, blocksize, channels, dtype, callback):
            assert (samplerate, channels, dtype) == (48000, 1, "float32")
            self.blocks = tone.reshape(-1, blocksize, 1)
            self.callback = callback

        def __enter__(self):
            for block in self.blocks:
                self.callback(block, len(block), None, None)

        def __exit__(self, *_):
            pass

    def refuse(samplerate, **_):
        if samplerate != 48000:
            raise ConnectionError("Invalid sample rate")

    device = types.ModuleType("sounddevice")
    device.PortAudioError, device.InputStream = ConnectionError, InputStream
    device.check_input_settings = refuse
    device.query_devices = lambda kind: {"default_samplerate": 48000.0}
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    # ten blocks of a tenth of a second; an eleventh would be waited for
    heard = torch.cat(list(islice(microphone(RATE), 10)))
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(len(heard)) / RATE)
    assert 0.98 * RATE < len(heard) <= RATE
    torch.testing.assert_close(heard[100:], expected[100:], rtol=0, atol=0.01)


def test_a_run_without_its_labels_is_refused(runs, tmp_path, capsys):
    run = shutil.copytree(runs / "whole", tmp_path / "run")
    labels = run / "save" / "labels.json"
    for content, message in [("[]", "must list the 3 classes"), ("{", "not a JSON file")]:
        labels.write_text(content)
        assert main(["spot", str(run), "a.wav"]) == 2
        assert message in capsys.readouterr().err
    labels.unlink()
    assert main(["spot", str(run), "a.wav"]) == 2
    assert "labels.json: no such file" in capsys.readouterr().err


def test_speechbrains_own_interface_gives_the_same_words_and_probabilities(
    classifier, runs, tmp_path
):
    kind = "causal" if classifier.causal else "whole"
    folder = tmp_path / "saved"
    save_for_speechbrain(runs / kind, folder)
    loaded = EncoderClassifier.from_hparams(str(folder), savedir=str(folder))
    clips = [torch.from_numpy(say(word, SPEAKERS[1])).float() for word in WORDS]
    clips[0] = clips[0][:8000]
    expected = classifier.classify(clips)
    lengths = torch.tensor([len(clip) for clip in clips])
    wavs = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    log_probs, _, index, words = loaded.classify_batch(wavs, lengths / wavs.shape[1])
    torch.testing.assert_close(log_probs.exp(), expected, rtol=0, atol=1e-5)
    assert words == [classifier.labels[i] for i in expected.argmax(1)] and len(index) == 3
    soundfile.write(tmp_path / "clip.wav", clips[1].numpy(), RATE, "FLOAT")
    log_probs, *_ = loaded.classify_file(str(tmp_path / "clip.wav"), savedir=str(tmp_path / "got"))
    torch.testing.assert_close(log_probs[0].exp(), expected[1], rtol=0, atol=1e-4)

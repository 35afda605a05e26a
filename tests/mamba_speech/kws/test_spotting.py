"""Using a trained spotter: windows and streams, the command, misses and false alarms on a recording."""

import json
import os
import shutil
import sys
import types
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.inference.classifiers import EncoderClassifier

from mamba_speech.audio import AudioError, load_audio
from mamba_speech.blocks import AudioBlocks
from mamba_speech.cli import main
from mamba_speech.evaluation.detection import read_reference
from mamba_speech.export import export_run
from mamba_speech.kws.spotter import KeywordSpotter
from mamba_speech.microphone import microphone
from tests.support.keywords import RATE, SPEAKERS, WORDS, say

KINDS = ("causal", "whole")


@pytest.fixture
def runs(spotters):
    """Output folders of a causal and an ordinary network."""
    return spotters


@pytest.fixture(params=KINDS)
def classifier(request, runs):
    return KeywordSpotter.load(runs / request.param, "cpu")


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
    classifier = KeywordSpotter.load(runs / "causal", "cpu")
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
        expected = classifier.class_probabilities([clip])[0]
        torch.testing.assert_close(probabilities[index], expected, rtol=0, atol=1e-5)


def test_a_stream_without_silence_before_it_ends_like_its_clip(runs):
    classifier = KeywordSpotter.load(runs / "causal", "cpu")
    clip = torch.from_numpy(say("up", SPEAKERS[8], 1.0)).float()
    times, probabilities = joined(classifier, clip, 5000)
    # at half a window the mean covers exactly the clip
    index = int((times - 0.5).abs().argmin())
    expected = classifier.class_probabilities([clip])[0]
    torch.testing.assert_close(probabilities[index], expected, rtol=0, atol=1e-3)


def test_the_future_changes_nothing_that_a_stream_has_given(runs, stream):
    classifier = KeywordSpotter.load(runs / "causal", "cpu")
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
    together = classifier.class_probabilities(clips)
    alone = torch.cat([classifier.class_probabilities([clip]) for clip in clips])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_a_clip_is_classified_by_its_most_probable_class(classifier, tmp_path):
    clip = say("down", SPEAKERS[0])
    soundfile.write(tmp_path / "clip.wav", clip, RATE, "FLOAT")
    found = classifier.classify(tmp_path / "clip.wav")
    expected = classifier.class_probabilities([torch.from_numpy(clip).float()])[0]
    assert str(found) == found.label == classifier.labels[int(expected.argmax())]
    assert found.confidence == float(expected.max()) and found.seconds == 0.9
    assert list(found.probabilities.values()) == sorted(expected.tolist(), reverse=True)
    assert [float(expected[classifier.labels.index(one)]) for one in found.probabilities] == list(
        found.probabilities.values()
    )
    same, bad = classifier.classify([clip, tmp_path / "missing.wav"], sample_rate=RATE)
    assert (same.label, same.confidence) == (found.label, found.confidence)
    assert bad.label is None and "missing.wav: no such file" in bad.error
    with pytest.raises(AudioError, match="no such file"):
        classifier.classify(tmp_path / "missing.wav")


def test_spotting_gives_the_events_of_the_stream_for_files_folders_and_waveforms(
    classifier, stream
):
    path = stream / "stream.wav"
    waveform, _ = soundfile.read(path)
    expected = list(classifier.stream(AudioBlocks(path, RATE), threshold=0.0))
    one = classifier.spot(path, threshold=0.0)
    assert expected and list(one) == one.events == expected and len(one) == len(expected)
    assert one.path == str(path) and one.seconds == 10.0
    assert classifier.spot(waveform, RATE, threshold=0.0).events == expected
    found, bad = classifier.spot([stream, "missing.wav"], threshold=0.0)
    assert found == one and bad.events == [] and "missing.wav" in bad.error
    for options in (
        {"threshold": 2},
        {"mode": "jumping"},
        {"hop_seconds": 0},
        {"hop_seconds": 0.0001},
    ):
        with pytest.raises(ValueError, match="must be"):
            classifier.spot(iter(["missing.wav"]), **options)


@pytest.mark.parametrize("options", [{}, {"smoothing": 0.0}, {"mode": "sliding"}])
def test_events_lie_within_the_stream_however_it_is_cut(classifier, options):
    for samples in (800, 9000, RATE, 2 * RATE + 77):
        # words at both ends, so that events are there
        sound = torch.from_numpy(say("up", SPEAKERS[0], 0.4)).float()
        stream = torch.cat([sound, torch.zeros(2 * RATE), sound])[-samples:]
        found = [
            list(classifier.stream(stream.split(size), threshold=0.0, **options))
            for size in (317, 5000, samples)
        ]
        # sums of other lengths round otherwise
        near = [
            replace(one, confidence=pytest.approx(one.confidence, abs=1e-5)) for one in found[0]
        ]
        assert found[0] and found[1] == near and found[2] == near
        for event in found[0]:
            assert 0 <= event.start <= event.end <= samples / RATE


def test_a_model_that_takes_anything_for_a_word_says_so_once(runs, stream, capsys):
    path = str(stream / "stream.wav")
    assert main(["spot", str(runs / "causal"), path, path, "--json"]) == 0
    output = capsys.readouterr()
    assert output.err.count("the model has no class _unknown_ and no class _silence_") == 1
    assert all(line.startswith("{") for line in output.out.splitlines())


def test_a_network_that_reads_ahead_refuses_to_stream(runs):
    classifier = KeywordSpotter.load(runs / "whole", "cpu")
    with pytest.raises(ValueError, match="take mode sliding"):
        classifier.probabilities([], mode="streaming")
    with pytest.raises(ValueError, match="mode must be"):
        classifier.probabilities([], mode="jumping")


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
    classifier = KeywordSpotter.load(runs / "whole", "cpu")
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


def test_a_curve_without_matplotlib_is_refused_before_anything_is_read(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    curve = ["--evaluate", "none.json", "--curve", str(tmp_path / "curve")]
    assert main(["spot", "no run", "a.wav", *curve]) == 2
    assert "pictures need matplotlib: pip install matplotlib" in capsys.readouterr().err


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

        def __init__(self, samplerate, blocksize, channels, dtype, callback, finished_callback):
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
    # the resampler holds some hundredths of a second back
    assert 0.95 * RATE < len(heard) <= RATE
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
    with pytest.raises(FileExistsError, match="holds files"):
        export_run(runs / kind, runs / kind)
    export_run(runs / kind, folder)
    loaded = EncoderClassifier.from_hparams(str(folder), savedir=str(folder))
    clips = [torch.from_numpy(say(word, SPEAKERS[1])).float() for word in WORDS]
    clips[0] = clips[0][:8000]
    expected = classifier.class_probabilities(clips)
    lengths = torch.tensor([len(clip) for clip in clips])
    wavs = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    log_probs, _, index, words = loaded.classify_batch(wavs, lengths / wavs.shape[1])
    torch.testing.assert_close(log_probs.exp(), expected, rtol=0, atol=1e-5)
    assert words == [classifier.labels[i] for i in expected.argmax(1)] and len(index) == 3
    soundfile.write(tmp_path / "clip.wav", clips[1].numpy(), RATE, "FLOAT")
    log_probs, *_ = loaded.classify_file(str(tmp_path / "clip.wav"), savedir=str(tmp_path / "got"))
    torch.testing.assert_close(log_probs[0].exp(), expected[1], rtol=0, atol=1e-4)

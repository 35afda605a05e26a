"""Long recordings, and recordings without speech, through the recogniser and the command."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from mamba_speech.asr.recognizer import Recognizer
from mamba_speech.asr.voice_activity import drop_unsupported, has_energy, make_gates
from mamba_speech.cli import main
from tests.support.recognition import RATE, write_noise


@pytest.fixture(scope="module")
def recognizer(trained):
    return Recognizer.load(trained, "cpu")


@pytest.fixture
def long_file(tmp_path):
    return write_noise(tmp_path / "long.flac", 23.0, 5)


def test_a_long_recording_has_the_texts_of_its_windows_at_the_files_times(recognizer, long_file):
    result = recognizer.transcribe(long_file, max_window_seconds=6, word_times=True, vad="off")
    assert result.seconds == 23.0 and result.error is None
    assert result.text == " ".join(word.text for word in result.words) != ""
    times = [time for word in result.words for time in (word.start, word.end)]
    assert times == sorted(times) and times[-1] <= 23.0 and max(times) > 12
    samples, _ = soundfile.read(long_file, dtype="float32")
    again = recognizer.transcribe(samples, RATE, max_window_seconds=6, word_times=True, vad="off")
    assert again.text == result.text


def test_short_recordings_among_long_ones_keep_their_texts_and_order(recognizer, long_file, audio):
    files = [audio / "1.wav", long_file, audio / "2.wav", audio / "3.wav"]
    results = list(recognizer.transcribe(files, max_window_seconds=6, vad="off"))
    assert [one.path for one in results] == [str(file) for file in files]
    alone = list(recognizer.transcribe([files[0], *files[2:]], vad="off"))
    assert [results[at].text for at in (0, 2, 3)] == [one.text for one in alone]


def test_a_long_file_that_ends_early_keeps_what_was_read(recognizer, tmp_path):
    whole, cut = write_noise(tmp_path / "whole.wav", 20.0, 6), tmp_path / "cut.wav"
    cut.write_bytes(whole.read_bytes()[: 44 + 2 * RATE * 15])
    result = recognizer.transcribe(cut, max_window_seconds=6, vad="off")
    assert math.isclose(result.seconds, 15.0) and result.text
    assert [one.kind for one in result.warnings] == ["truncated"]


@pytest.mark.parametrize("seconds", ["0", "-3", "nan", "x", "4"])
def test_the_command_refuses_windows_of_no_sense(seconds, trained, long_file, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["transcribe", str(trained), str(long_file), "--max_window_seconds", seconds])
    assert stop.value.code == 2 and "--max_window_seconds" in capsys.readouterr().err


def test_the_files_of_a_long_recording_have_its_words(trained, long_file, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["transcribe", trained, long_file, "--output_folder", out, "--word_times"]
    command += ["--max_window_seconds", "6", "--vad", "off", "--device", "cpu"]
    assert main([str(one) for one in command]) == 0
    text = capsys.readouterr().out.split("\t")[1].strip()
    record = json.loads((out / "long.json").read_text())
    words = [word for one in record["segments"] for word in one["words"]]
    assert " ".join(word["text"] for word in words) == text == record["text"]
    # results that are there are left as they are
    assert main([str(one) for one in command]) == 2
    assert "--resume" in capsys.readouterr().err


def test_after_an_interruption_every_finished_text_is_told(trained, audio, monkeypatch):
    recognizer = Recognizer.load(trained, "cpu")
    files = [audio / f"{number}.wav" for number in range(8)]
    whole = {one.path: one.text for one in recognizer.transcribe(files, batch_seconds=1e-3)}
    decode, calls = recognizer.decode, []

    def stop_at_the_fourth(*inputs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return decode(*inputs)

    monkeypatch.setattr(recognizer, "decode", stop_at_the_fourth)
    stop_at_the_fourth.check_nbest = decode.check_nbest
    results, told = iter(recognizer.transcribe(files, batch_seconds=1.0)), {}
    with pytest.raises(KeyboardInterrupt):
        while True:
            one = next(results)
            told[one.path] = one.text
    assert 3 <= len(told) < len(files)
    assert all(whole[path] == text for path, text in told.items())


@pytest.mark.parametrize("level", [0.0, 1e-3, 0.3])
def test_what_is_steady_has_no_text(level, recognizer):
    random = np.random.default_rng(1)
    steps = np.arange(3 * RATE)
    for sound in (
        np.full(3 * RATE, level),
        level * np.sign(np.sin(steps / 20)),
        level * random.standard_normal(3 * RATE).clip(-3, 3),
    ):
        result = recognizer.transcribe(sound.astype(np.float32), RATE, word_times=True)
        assert (result.text, result.words, result.seconds) == ("", (), 3.0)


def test_a_word_in_a_minute_of_silence_passes_the_gate_of_energy():
    sound = torch.zeros(60 * RATE)
    sound[:4000] = 0.1 * torch.randn(4000)
    assert has_energy(sound, RATE) and not has_energy(sound[8000:], RATE)


def test_a_text_is_dropped_only_where_ctc_is_sure_of_silence_in_every_frame():
    blank = torch.tensor([[0.99, 0.99, 0.1], [0.99, 0.5, 0.99]]).log()
    found = [{"text": "a"}, {"text": "b"}]
    drop_unsupported(found, blank, torch.tensor([2, 3]))
    assert [one["text"] for one in found] == ["", "b"]


def test_a_gate_that_is_none_is_refused():
    with pytest.raises(ValueError, match="vad must be one of auto, silero, energy, off"):
        make_gates("loud")


def test_silero_refuses_noise_and_the_first_speech_ends_its_work(spoken_sentence):
    pytest.importorskip("silero_vad")
    whole, windows = make_gates("silero")
    assert whole is windows
    noise = 0.1 * torch.randn(5 * RATE, generator=torch.Generator().manual_seed(1))
    assert not whole(noise, RATE)
    assert whole(torch.cat([0.1 * noise, spoken_sentence]), RATE)


@pytest.fixture
def spoken_sentence():
    from data_prep.spoken.acoustics import resample
    from data_prep.spoken.synthesiser import Synthesiser
    from data_prep.spoken.voices import speaker_table

    with Synthesiser() as synthesiser:
        voice = speaker_table("en", "test", seed=1)[0].voice
        said = synthesiser.speak(voice, "This is a sentence of some words.", 1)
        return torch.from_numpy(resample(said, synthesiser.sample_rate, RATE)).float()


def test_the_detector_leaves_torch_its_threads():
    pytest.importorskip("silero_vad", reason="needs mamba-speech[vad]")
    script = (
        "import torch; torch.set_num_threads(2)\n"
        "from mamba_speech.asr.voice_activity import SileroGate\n"
        "SileroGate(); print(torch.get_num_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "2", done.stderr

"""Recognition with a trained run: batches, short and bad files, decoding, times."""

import numpy as np
import pytest
import soundfile

from mamba_speech.asr.recognizer import Recognizer
from mamba_speech.audio import AudioError, find_audio
from tests.support.recognition import RATE, write_noise


@pytest.fixture(scope="module")
def recognizer(trained):
    return Recognizer.load(trained, device="cpu")


@pytest.fixture(scope="module")
def files(audio):
    return sorted(audio.glob("*.wav"))


def texts(recognizer, paths, **options):
    return [result.text for result in recognizer.transcribe(paths, **options)]


def test_a_padded_batch_gives_what_each_file_gives_alone(recognizer, files):
    together = texts(recognizer, files)
    alone = [texts(recognizer, [file])[0] for file in files]
    assert together == alone
    assert len(set(together)) > 1


def test_batches_change_nothing_and_results_come_in_the_order_of_the_files(recognizer, files):
    shuffled = [files[index] for index in np.random.default_rng(0).permutation(len(files))]
    results = list(recognizer.transcribe(shuffled, batch_seconds=2.0))
    assert [result.path for result in results] == [str(file) for file in shuffled]
    assert [result.text for result in results] == texts(recognizer, shuffled, batch_seconds=1e9)
    assert [result.seconds for result in results] == [
        soundfile.info(file).duration for file in shuffled
    ]


def test_upstream_takes_files_one_at_a_time(run, files):
    file = run / "hyperparams.yaml"
    file.write_text(file.read_text().replace("fidelity: corrected", "fidelity: upstream"))
    recognizer = Recognizer.load(run, device="cpu")
    assert recognizer.model.fidelity == "upstream"
    assert texts(recognizer, files) == [texts(recognizer, [file])[0] for file in files]


@pytest.mark.parametrize("samples", [1, 100, 161, 1599])
def test_files_shorter_than_a_tenth_of_a_second_are_recognised(
    samples, recognizer, files, tmp_path
):
    path = tmp_path / "short.wav"
    soundfile.write(path, np.full(samples, 0.1), RATE)
    result, neighbour = recognizer.transcribe([path, files[-1]])
    assert result.error is None and result.text == texts(recognizer, [path])[0]
    assert neighbour.text == texts(recognizer, [files[-1]])[0]
    assert recognizer.align(path).seconds == samples / RATE


def test_bad_files_are_reported_and_the_others_recognised(recognizer, files, tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "nothing.wav").write_bytes(b"")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "nan.wav", np.full(999, np.nan), RATE, subtype="FLOAT")
    names = ["text.wav", "nothing.wav", "empty.wav", "nan.wav", "missing.wav"]
    (tmp_path / "folder").mkdir()
    bad = [tmp_path / name for name in [*names, "folder"]]
    results = list(recognizer.transcribe([*bad, files[3]]))
    for result, path in zip(results, bad, strict=False):
        assert result.text is None and result.error.startswith(f"{path}: ")
    assert results[-1].error is None and results[-1].text == texts(recognizer, [files[3]])[0]
    with pytest.raises(AudioError, match="missing.wav: no such file"):
        recognizer.align(tmp_path / "missing.wav")


def test_one_path_gives_one_transcript_and_several_an_iterator(recognizer, files, audio):
    one = recognizer.transcribe(str(files[3]))
    (same,) = recognizer.transcribe([files[3]])
    assert one == same and str(one) == one.text and one.path == str(files[3])
    assert [result.path for result in recognizer.transcribe(audio)] == [str(one) for one in files]
    with pytest.raises(AudioError, match="missing.wav: no such file"):
        recognizer.transcribe("missing.wav")


def test_waveforms_give_what_their_files_give(recognizer, files):
    samples, rate = soundfile.read(files[3], dtype="int16")
    expected = recognizer.transcribe(files[3])
    for waveform in (samples, samples / 2**15, np.stack([samples, samples], 1)):
        found = recognizer.transcribe(waveform, rate)
        assert (found.path, found.text, found.seconds) == (None, expected.text, expected.seconds)
    results = list(recognizer.transcribe([samples, files[1], samples[:0]], sample_rate=rate))
    assert [one.text for one in results] == [expected.text, *texts(recognizer, files[1:2]), None]
    assert results[2].error == "waveform 2: holds no samples" and str(results[2]) == ""
    assert recognizer.align(samples, rate).tokens == recognizer.align(files[3]).tokens
    with pytest.raises(ValueError, match="give sample_rate=16000"):
        recognizer.transcribe(samples)


def test_rate_and_channels_are_free(recognizer, files, tmp_path):
    stereo = write_noise(tmp_path / "stereo.flac", 1.0, 0, rate=44100, channels=2)
    (result,) = recognizer.transcribe([stereo])
    assert result.error is None and abs(result.seconds - 1.0) < 1e-3


def test_the_alignment_spells_the_best_path_within_the_audio(recognizer, files):
    for file in files:
        alignment = recognizer.align(file)
        (result,) = recognizer.transcribe([file])
        spelt = "".join(token for token, _, _ in alignment.tokens).replace("\u2581", " ")
        assert alignment.text == result.text and spelt.strip() == alignment.text.strip()
        times = [time for _, start, end in alignment.tokens for time in (start, end)]
        assert times == sorted(times) and 0 <= times[0] and times[-1] <= alignment.seconds
        assert len(alignment.features) == int(alignment.seconds / alignment.frame_seconds) + 1


def test_words_of_an_alignment_are_those_of_the_text_also_of_a_known_one(recognizer, files):
    for known in (None, "one two"):
        alignment = recognizer.align(files[-1], text=known)
        words = alignment.words
        assert [word.text for word in words] == alignment.text.split() and len(words) > 1
        assert known is None or alignment.text == known
        times = [time for word in words for time in (word.start, word.end)]
        assert times == sorted(times) and 0 <= times[0] and times[-1] <= alignment.seconds
        assert all(0 < word.confidence <= 1 for word in words)
    with pytest.raises(ValueError, match="tokens need"):
        recognizer.align(files[0], text="one two three four " * 9)


def test_beam_search_may_be_asked_for_and_agrees_with_itself_in_a_batch(trained, files):
    recognizer = Recognizer.load(trained, device="cpu", decoding="beam")
    recognizer.decode = type(recognizer.decode)(recognizer.tokenizer, "beam", beam_size=4)
    assert texts(recognizer, files[:3]) == [texts(recognizer, [file])[0] for file in files[:3]]


def test_options_out_of_range_are_named(trained, recognizer, files):
    with pytest.raises(ValueError, match="decoding must be greedy or beam; got 'viterbi'"):
        Recognizer.load(trained, decoding="viterbi")
    with pytest.raises(ValueError, match="device 'gpu' is unknown"):
        Recognizer.load(trained, device="gpu")
    with pytest.raises(ValueError, match="beam_size must be a whole number, 1 or more; got 0"):
        Recognizer.load(trained, decoding="beam", beam_size=0)
    with pytest.raises(ValueError, match="batch_seconds must be more than 0"):
        list(recognizer.transcribe(files, batch_seconds=0))


def test_folders_are_searched_for_audio_and_nothing_else(audio, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name in ("a/b/2.FLAC", "a/1.mp3", "a/._1.mp3", "a/notes.txt", "a/3.Opus"):
        (tmp_path / name).write_bytes(b"")
    found = find_audio([tmp_path / "a", tmp_path / "given.txt", tmp_path / "empty"])
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == ["a/1.mp3", "a/3.Opus", "a/b/2.FLAC", "given.txt", "empty"]

"""Windows of a long recording, and how their words are joined."""

import pytest
import torch

from mamba_speech.asr.alignment import Word
from mamba_speech.asr.long_recordings import check_window, transcribe_long
from mamba_speech.asr.windows import cut_windows, evenly_spread, join_words
from mamba_speech.recordings import Recording

RATE = 1000


@pytest.mark.parametrize("size", [1, 137, 5000, 10**6])
@pytest.mark.parametrize("pauses", [True, False])
def test_windows_cover_the_recording_once_whatever_the_blocks(size, pauses):
    sound = torch.randn(33_333, generator=torch.Generator().manual_seed(1))
    if pauses:
        for start in range(2000, 33_000, 2500):
            sound[start : start + 250] = 0
    windows = list(cut_windows(sound.split(size), RATE, 8.0))
    assert torch.equal(torch.cat([one.waveform[one.before :] for one in windows]), sound)
    assert all(RATE <= len(one.waveform) <= 8 * RATE for one in windows)
    assert [one.after for one in windows[:-1]] == [one.before for one in windows[1:]]
    assert all((one.after == 0) == pauses for one in windows[:-1])
    if pauses:
        # each cut lies in a pause
        assert all(not sound[one.first - 50 : one.first + 50].any() for one in windows[1:])


@pytest.mark.parametrize("size", [1, 137, 5000, 10**6])
def test_long_pauses_end_windows_and_nothing_but_silence_is_left_out(size):
    sound = torch.randn(40_000, generator=torch.Generator().manual_seed(1))
    # also at both ends, and over the end of a window
    pauses = [(0, 700), (3000, 3400), (7700, 9100), (9600, 10_000), (36_000, 40_000)]
    for start, end in pauses:
        sound[start:end] *= 1e-3
    windows = list(cut_windows(sound.split(size), RATE, 8.0))
    heard = torch.zeros(len(sound), dtype=torch.bool)
    for one in windows:
        assert torch.equal(one.waveform, sound[one.first : one.first + len(one.waveform)])
        heard[one.first : one.first + len(one.waveform)] = True
    loud = torch.ones(len(sound), dtype=torch.bool)
    for start, end in pauses:
        loud[start:end] = False
        assert not heard[start + 100 : end - 100].any()
    assert heard[loud].all()
    assert sum(len(one.waveform) - one.before for one in windows) == int(heard.sum())


def test_a_soft_voice_beside_a_loud_one_is_no_pause():
    sound = torch.randn(7000, generator=torch.Generator().manual_seed(1))
    sound[2000:4000] *= 0.03
    sound[3000:3020] = sound[5000:5400] = 0
    starts = [one.first for one in cut_windows(sound.split(999), RATE, 8.0)]
    assert starts[0] == 0 and len(starts) == 2 and 5300 < starts[1] < 5400


def test_a_recording_of_one_window_is_not_cut():
    sound = torch.randn(8000)
    (window,) = cut_windows(sound.split(1000), RATE, 8.0)
    assert torch.equal(window.waveform, sound)


def test_words_that_two_windows_heard_stand_once():
    said = [Word(f"w{at % 3}", at / 2, at / 2 + 0.4, 1.0) for at in range(40)]
    before, after = said[:24], [Word("cut", 7.7, 8.0, 0.1), *said[16:]]
    kept, added = join_words(before, after, 8.0, 12.0)
    assert [*kept, *added] == said


def test_words_on_which_windows_disagree_are_cut_in_the_middle_and_stay_in_order():
    before = [Word(f"a{at}", at, at + 0.8, 1.0) for at in range(12)]
    after = [Word(f"b{at}", at - 0.3, at + 0.5, 1.0) for at in range(8, 20)]
    kept, added = join_words(before, after, 8.0, 12.0)
    assert kept[-1].text == "a9" and added[0].text == "b10"
    times = [time for word in (*kept, *added) for time in (word.start, word.end)]
    assert times == sorted(times)


def speaker_of(sound):
    """A recogniser that reads the numbers of the seconds from the sound."""

    def recognise(waveforms, wanted):
        found = []
        for waveform in waveforms:
            numbers = [str(int(one)) for one in waveform[RATE // 2 :: RATE]]
            words = tuple(
                Word(number, float(at), at + 1.0, 1.0) for at, number in enumerate(numbers)
            )
            text = " ".join(numbers)
            found.append({"text": text, "words": words if wanted["word_times"] else None})
        return found

    return recognise


@pytest.mark.parametrize("word_times", [True, False])
def test_the_text_of_windows_is_the_text_of_the_whole(word_times):
    sound = torch.arange(100.0).repeat_interleave(RATE) + 0.5
    recording = Recording(sound, RATE)
    recording.load = lambda rate: sound
    wanted = {"word_times": word_times, "nbest": 1}
    told = []
    result = transcribe_long(
        speaker_of(sound), recording, RATE, 20.0, 60.0, wanted, lambda *one: told.append(one)
    )
    assert result.error is None and result.text == " ".join(map(str, range(100)))
    assert result.seconds == 100 and told[-1][1] == 100
    if word_times:
        assert [word.start for word in result.words] == list(range(100))
    else:
        assert result.words is None


def test_a_window_on_which_the_model_fails_costs_no_other_its_text():
    sound = torch.arange(60.0).repeat_interleave(RATE) + 0.5
    recording = Recording(sound, RATE)
    recording.load = lambda rate: sound
    works = speaker_of(sound)

    def recognise(waveforms, wanted):
        found = works(waveforms, wanted)
        return [
            MemoryError() if waveform[0] < 20 < waveform[-1] else one
            for waveform, one in zip(waveforms, found, strict=True)
        ]

    wanted = {"word_times": False, "nbest": 1}
    result = transcribe_long(recognise, recording, RATE, 10.0, 0.0, wanted, None)
    assert result.text.startswith("0 1 2") and result.text.endswith("58 59")
    (odd,) = result.warnings
    assert odd.kind == "part_left_out" and "does not fit into memory" in odd.text
    nothing = transcribe_long(
        lambda waveforms, _: [MemoryError()] * len(waveforms),
        recording,
        RATE,
        10.0,
        0.0,
        wanted,
        None,
    )
    assert "does not fit into memory" in nothing.error


def test_windows_of_no_sense_are_refused_in_one_sentence():
    for seconds in (0, -1, 4.9, float("nan"), float("inf"), "40", None, True):
        with pytest.raises(ValueError, match="max_window_seconds must be from 5 to 3600"):
            check_window(seconds)
    with pytest.raises(ValueError, match=r"must hold a chunk of the model, 6 s"):
        check_window(5.5, 6.0)
    check_window(5.5, 5.5)


def test_words_without_times_are_spread_evenly():
    assert [(one.start, one.end) for one in evenly_spread("a b", 4.0, 6.0)] == [(4, 5), (5, 6)]
    assert evenly_spread("", 4.0, 6.0) == ()

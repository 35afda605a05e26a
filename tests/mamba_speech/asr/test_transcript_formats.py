"""Files of transcripts, read by other people's parsers: cues in order, inside the recording, and readable."""

import csv
import io
import json
from itertools import pairwise

import numpy as np
import pytest
import srt
import webvtt

from mamba_speech.asr.alignment import Word
from mamba_speech.asr.nbest import Hypothesis
from mamba_speech.asr.segments import LINE, LINES, LONGEST, PAUSE, SHORTEST, cues_of, segments_of
from mamba_speech.asr.transcript import Transcript
from mamba_speech.asr.transcript_formats import FORMATS

VOCABULARY = ["a", "it's", "42", "<b>", "R&D", "-->", "well-known", "предложение", "é", "x" * 41]
VOCABULARY += ["y" * 43, "z" * 200]


def transcript(seed, words=120):
    """Words of random lengths with pauses between some of them."""
    random = np.random.default_rng(seed)
    clock, found = 0.0, []
    for _ in range(words):
        clock += random.choice([0.0, 0.05, 0.3, 2.0], p=[0.6, 0.2, 0.15, 0.05])
        end = clock + random.choice([0.0, 0.1, 0.4, 9.0], p=[0.05, 0.4, 0.54, 0.01])
        found.append(Word(str(random.choice(VOCABULARY)), clock, end, float(random.random())))
        clock = end
    text = " ".join(word.text for word in found)
    return Transcript(path="a.wav", text=text, seconds=clock + 0.1, words=tuple(found))


def in_order(spans, seconds):
    times = [time for span in spans for time in span]
    return times == sorted(times) and times[0] >= 0 and times[-1] <= seconds + 0.0005


def letters(text):
    return "".join(text.split())


@pytest.mark.parametrize("seed", range(8))
def test_subtitles_read_back_hold_every_word_in_two_short_lines(seed):
    result = transcript(seed)
    subtitles = list(srt.parse(FORMATS["srt"](result)))
    assert [one.index for one in subtitles] == list(range(1, len(subtitles) + 1))
    spans = [(one.start.total_seconds(), one.end.total_seconds()) for one in subtitles]
    assert in_order(spans, result.seconds)
    for one in subtitles:
        lines = one.content.split("\n")
        assert 1 <= len(lines) <= LINES and max(map(len, lines)) <= LINE
    assert letters("".join(one.content for one in subtitles)) == letters(result.text)
    assert max(end - start for start, end in spans) <= LONGEST + 0.001


@pytest.mark.parametrize("word_times", [False, True])
def test_webvtt_reads_back_the_same_cues_and_its_marks_are_in_order(word_times):
    result = transcript(3)
    text = FORMATS["vtt"](result, word_times=word_times)
    captions = webvtt.from_string(text).captions
    cues = cues_of(result.words, result.seconds)
    spans = [(one.start_in_seconds, one.end_in_seconds) for one in captions]
    expected = [(int(one.start + 0.0005), int(one.end + 0.0005)) for one in cues]
    assert [(int(start), int(end)) for start, end in spans] == expected
    # what is between angle brackets is no text; the signs themselves are escaped
    assert all("<b>" not in one.raw_text for one in captions)
    assert ("<00:" in text) == word_times
    assert "-->" not in "".join(one.raw_text for one in captions)


def test_a_word_that_is_cut_over_two_lines_has_one_mark():
    words = (Word("a", 0.5, 0.9, 1.0), Word("b" * 60, 1.0, 1.9, 1.0), Word("c", 2.0, 2.4, 1.0))
    text = " ".join(word.text for word in words)
    result = Transcript(path="x.wav", text=text, seconds=3.0, words=words)
    marked = FORMATS["vtt"](result, word_times=True)
    assert marked.count("<00:") == 2
    assert "<00:00:01.000>b" in marked and "<00:00:02.000>c" in marked


def test_cues_last_as_long_as_they_are_read_where_the_next_one_leaves_the_time():
    words = [Word("hello", 1.0, 1.2, 1.0), Word("world", 9.0, 9.1, 1.0), Word("x" * 40, 9.9, 10, 1)]
    first, second, third = cues_of(words, 20.0)
    assert (first.start, first.end) == (1.0, 1.0 + SHORTEST)
    assert second.start == 9.0 and second.end <= third.start
    assert third.end - third.start >= 40 / 17
    (one,) = cues_of(words[:1], 1.3)
    assert one.end == 1.3


def test_segments_are_cut_at_pauses_and_nowhere_else():
    result = transcript(5)
    segments = segments_of(result.words)
    assert [word for one in segments for word in one.words] == list(result.words)
    for before, after in pairwise(segments):
        assert after.start - before.end >= PAUSE
    for one in segments:
        gaps = [b.start - a.end for a, b in pairwise(one.words)]
        assert all(gap < PAUSE for gap in gaps)


@pytest.mark.parametrize("confidence", [False, True])
def test_the_table_has_a_row_a_segment_or_a_word(confidence):
    result = transcript(6)
    for word_times, parts in ((False, segments_of(result.words)), (True, result.words)):
        text = FORMATS["tsv"](result, word_times=word_times, confidence=confidence)
        rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
        assert [row["text"] for row in rows] == [one.text for one in parts]
        assert [float(row["start"]) for row in rows] == [round(one.start, 3) for one in parts]
        assert ("confidence" in rows[0]) == confidence


def test_json_holds_segments_words_confidences_and_the_best_texts():
    result = transcript(7)
    best = (Hypothesis(result.text, -1.0), Hypothesis("other", float("-inf")))
    result = Transcript(
        path="caf\udce9.wav", text=result.text, seconds=9.5, words=result.words, nbest=best
    )
    record = json.loads(FORMATS["json"](result, word_times=True, confidence=True))
    assert record["path"] == result.path and record["text"] == result.text
    found = [word for one in record["segments"] for word in one["words"]]
    assert [word["text"] for word in found] == result.text.split()
    assert {"text", "start", "end", "confidence"} == found[0].keys()
    assert record["nbest"] == [{"text": result.text, "score": -1}, {"text": "other", "score": None}]
    plain = json.loads(FORMATS["json"](Transcript(path="a.wav", text="x", seconds=1.0)))
    assert plain == {"path": "a.wav", "text": "x", "seconds": 1.0}


def test_a_recording_without_a_word_gives_files_without_a_cue():
    silent = Transcript(path="a.wav", text="", seconds=3.0, words=())
    assert list(srt.parse(FORMATS["srt"](silent))) == []
    assert webvtt.from_string(FORMATS["vtt"](silent)).captions == []
    assert FORMATS["txt"](silent) == "\n" and FORMATS["tsv"](silent) == "start\tend\ttext\n"
    assert json.loads(FORMATS["json"](silent))["segments"] == []

"""Transcripts as text files: plain text, SubRip, WebVTT, a table and JSON.

Sources: W3C, "WebVTT: The Web Video Text Tracks Format", section 3; SubRip's format as VideoLAN and the package `srt`
read it.
"""

import html
import json

from mamba_speech.asr.segments import cues_of, segments_of

# formats whose content is nothing without times
TIMED = ("srt", "vtt", "tsv")


def as_txt(result, word_times=False, confidence=False):
    """The text on one line.

    Example
    -------
    >>> from mamba_speech.asr.transcript import Transcript
    >>> as_txt(Transcript(path="a.wav", text="one two", seconds=1.5))
    'one two\\n'
    """
    return f"{result.text}\n"


def as_srt(result, word_times=False, confidence=False):
    """SubRip, which has no place for words' times and confidences."""
    blocks = (
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n{_joined(cue.lines)}\n"
        for number, cue in enumerate(cues_of(result.words, result.seconds), 1)
    )
    return "\n".join(blocks)


def as_vtt(result, word_times=False, confidence=False):
    """WebVTT; with `word_times` each word but a cue's first has its start in front of it.

    Example
    -------
    >>> from mamba_speech.asr.alignment import Word
    >>> from mamba_speech.asr.transcript import Transcript
    >>> words = (Word("one", 0.5, 0.9, 0.9), Word("two", 1.0, 1.4, 0.8))
    >>> print(as_vtt(Transcript(path="a.wav", text="one two", seconds=1.5, words=words), word_times=True))
    WEBVTT
    <BLANKLINE>
    00:00:00.500 --> 00:00:01.500
    one <00:00:01.000>two
    <BLANKLINE>
    """
    blocks = ["WEBVTT\n"]
    for cue in cues_of(result.words, result.seconds):
        times = f"{_time(cue.start, '.')} --> {_time(cue.end, '.')}"
        text = _marked(cue) if word_times else html.escape(_joined(cue.lines), quote=False)
        blocks.append(f"{times}\n{text}\n")
    return "\n".join(blocks)


def as_tsv(result, word_times=False, confidence=False):
    """A table with a heading: start and end in seconds and the text, a row a segment or, with `word_times`, a word."""
    rows = [("start", "end", *(["confidence"] if confidence else []), "text")]
    for one in result.words if word_times else segments_of(result.words):
        sure = [f"{one.confidence:.3f}"] if confidence else []
        rows.append((f"{one.start:.3f}", f"{one.end:.3f}", *sure, one.text))
    return "".join("\t".join(row) + "\n" for row in rows)


def as_json(result, word_times=False, confidence=False):
    """An object with all there is; see :func:`details_of`."""
    record = result.place() | {"text": result.text, "seconds": result.seconds}
    if result.words is not None:
        record["segments"] = [
            _timed(one, confidence) | (_words(one.words, confidence) if word_times else {})
            for one in segments_of(result.words)
        ]
    record |= nbest_of(result)
    if result.warnings:
        record["warnings"] = [one.kind for one in result.warnings]
    text = json.dumps(record, indent=2, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # a name that holds other bytes than text is escaped, and read as the same name
        text = json.dumps(record, indent=2)
    return text + "\n"


FORMATS = {"txt": as_txt, "srt": as_srt, "vtt": as_vtt, "tsv": as_tsv, "json": as_json}


def details_of(result, word_times=False, confidence=False):
    """What a record on standard output tells beside the text: words, confidence and the best texts, as asked for."""
    found = _words(result.words, confidence) if word_times and result.words is not None else {}
    if confidence and result.words:
        found["confidence"] = _rounded(
            sum(one.confidence for one in result.words) / len(result.words)
        )
    return found | nbest_of(result)


def nbest_of(result):
    """The key `nbest` of a record, where more than one text was asked for."""
    if not result.nbest:
        return {}
    return {"nbest": [{"text": one.text, "score": _rounded(one.score)} for one in result.nbest]}


def _words(words, confidence):
    return {"words": [_timed(one, confidence) for one in words]}


def _timed(one, confidence):
    sure = {"confidence": _rounded(one.confidence)} if confidence else {}
    return {"text": one.text, "start": _rounded(one.start), "end": _rounded(one.end)} | sure


def _rounded(value):
    # JSON has no word for what is infinite
    return round(value, 3) if abs(value) < float("inf") else None


def _time(seconds, mark):
    """Hours, minutes, seconds and milliseconds.

    Example
    -------
    >>> _time(3661.5, ",")
    '01:01:01,500'
    """
    thousandths = round(1000 * seconds)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"


def _joined(lines):
    return "\n".join(lines)


def _marked(cue):
    """The lines of a cue with each word's time in front of it."""
    words, lines, rest = iter(cue.words), [], ""
    for line in cue.lines:
        marked = []
        for text in line.split():
            mark = ""
            # a word that is cut over two lines has one time
            if not rest:
                word = next(words)
                rest = word.text
                if word is not cue.words[0] and _within(word, cue):
                    mark = f"<{_time(word.start, '.')}>"
            rest = rest[len(text) :]
            marked.append(mark + html.escape(text, quote=False))
        lines.append(" ".join(marked))
    return _joined(lines)


def _within(word, cue):
    """Whether a time lies within its cue, as the format wants."""
    return round(1000 * cue.start) < round(1000 * word.start) < round(1000 * cue.end)

"""JSON lists of NeMo, lhotse and others, and Kaldi folders."""

import json

from tests.support.oddities.lists import ALL, ROWS, OddList, files_of, objects, text_of

PART = (("one", 0.25), "two", "three")


def json_lists():
    """JSON lines, arrays and objects."""
    group, file = "JSON lists", "list.jsonl"
    pairs = [{"audio_filepath": path, "text": text} for path, text in ROWS]
    by_id = {text: {"wav": path, "words": text, "text": text} for path, text in ROWS}
    for name, where, text in (
        ("NeMo's JSON lines", "manifest.json", objects()),
        ("JSON lines with a byte order mark", file, "\ufeff" + objects()),
        ("JSON lines with empty lines", file, objects("", "  ")),
        ("a JSON array", "list.json", json.dumps(pairs, indent=2)),
        ("a JSON array on one line", "list.json", json.dumps(pairs)),
        ("SpeechBrain's JSON, an object of objects", "train.json", json.dumps(by_id, indent=4)),
        ("JSON lines compressed by gzip", "list.jsonl.gz", objects()),
        (
            "Hugging Face's metadata.jsonl",
            "metadata.jsonl",
            objects().replace("audio_filepath", "file_name"),
        ),
    ):
        yield OddList(group, name, where, text_of(where, text))
    for name, changes in (
        ("NeMo's offset and duration", {"offset": 0.25, "duration": 0.25}),
        ("an offset of 0 and a shorter duration", {"offset": 0, "duration": 0.25}),
        ("a duration shorter than the file", {"duration": 0.25}),
    ):
        yield OddList(group, name, file, text_of(file, objects(one=changes)), PART)
    whole = text_of(file, objects(one={"duration": 0.603}))
    yield OddList(group, "a rounded duration of the whole file", file, whole)


def bad_lines():
    """JSON lines with one that cannot be used."""
    group, file = "JSON lists", "list.jsonl"
    for name, line, words in (
        ("a line that is no JSON", "{path: a.wav}", "not a JSON object"),
        ("a line that breaks off", '{"audio_filepath": "a.wav", "te', "not a JSON object"),
        ("a line that is a list", '["a.wav", "four"]', "not a JSON object"),
        ("a line without a path", '{"text": "four"}', "no key path"),
        (
            "a path that is further JSON",
            '{"audio_filepath": {"a": 1}, "text": "four"}',
            "further JSON",
        ),
        ("a path that is null", '{"audio_filepath": null, "text": "four"}', "empty"),
        ("a line nested 100,000 deep", "[" * 100_000, "nested too deeply"),
    ):
        yield OddList(group, name, file, text_of(file, objects(line)), faults=(words,))
    line = '{"audio_filepath": "a.wav", "text": null}'
    yield OddList(
        group,
        "a text that is null",
        file,
        text_of(file, objects(line)),
        faults=("transcript",),
        results=4,
    )
    pairs = [{"audio_filepath": path, "text": text} for path, text in ROWS]
    broken = json.dumps(pairs)[:-20]
    yield OddList(
        group,
        "a JSON array that breaks off",
        "list.json",
        text_of("list.json", broken),
        (),
        refused="cannot be read",
        results=2,
    )


def recording(path, text, kind="file"):
    """A recording of lhotse."""
    source = {"type": kind, "channels": [0], "source": path}
    return {
        "id": text,
        "sources": [source],
        "sampling_rate": 16000,
        "num_samples": 9600,
        "duration": 0.6,
    }


def cut(path, text, kind="file", start=0, duration=None):
    """A cut of lhotse."""
    spoken = {
        "id": text,
        "recording_id": text,
        "start": 0,
        "duration": 0.2,
        "text": text,
        "speaker": "anna",
    }
    found = {"id": text, "start": start, "duration": duration, "channel": 0, "type": "MonoCut"}
    return found | {"supervisions": [spoken], "recording": recording(path, text, kind)}


def lhotse():
    """Cuts, and supervisions with their recordings."""
    group = "lhotse's lists"
    lengths = (0.6, 0.5, 0.4)
    cuts = [cut(*row, duration=length) for row, length in zip(ROWS, lengths, strict=True)]
    lines = "".join(f"{json.dumps(one)}\n" for one in cuts)
    yield OddList(group, "cuts", "cuts.jsonl.gz", text_of("cuts.jsonl.gz", lines))
    part = json.dumps(cut(*ROWS[0], start=0.25, duration=0.25)) + "\n"
    yield OddList(group, "a cut of a part", "cuts.jsonl", text_of("cuts.jsonl", part), PART[:1])
    command = lines + json.dumps(cut("touch ran", "four", "command", 0, 1)) + "\n"
    yield OddList(
        group,
        "a recording that is a command",
        "cuts.jsonl",
        text_of("cuts.jsonl", command),
        faults=("never executed",),
    )
    recordings = "".join(f"{json.dumps(recording(*row))}\n" for row in ROWS)
    spoken = "".join(
        json.dumps(
            {
                "id": text,
                "recording_id": text,
                "start": 0.0,
                "duration": length,
                "text": text,
                "channel": 0,
            }
        )
        + "\n"
        for (_, text), length in zip(ROWS, lengths, strict=True)
    )
    both = files_of(my_supervisions_jsonl=spoken, my_recordings_jsonl=recordings)
    yield OddList(group, "supervisions beside recordings", "my_supervisions.jsonl", both)
    alone = files_of(my_supervisions_jsonl=spoken)
    yield OddList(
        group,
        "supervisions alone",
        "my_supervisions.jsonl",
        alone,
        (),
        refused="list of recordings",
    )


def kaldi():
    """Kaldi folders."""
    group = "Kaldi folders"
    script = "".join(f"{text} {path}\n" for path, text in ROWS)
    texts = "".join(f"{text} {text}\n" for text in ALL)
    speakers = "".join(f"{text} anna\n" for text in ALL)
    whole = {"wav_scp": script, "text": texts, "utt2spk": speakers}
    yield OddList(group, "wav.scp, text and utt2spk", ".", files_of(**whole))
    yield OddList(group, "the file wav.scp itself", "wav.scp", files_of(**whole))
    cuts = "one one 0.25 0.5\ntwo two 0 -1\nthree three 0 -1\n"
    yield OddList(group, "segments", ".", files_of(**whole, segments=cuts), PART)
    piped = whole | {"wav_scp": f"{script}four touch ran |\n", "text": f"{texts}four four\n"}
    yield OddList(group, "a pipe in wav.scp", ".", files_of(**piped), faults=("never executed",))
    archive = whole | {"wav_scp": f"{script}four raw.ark:12\n", "text": f"{texts}four four\n"}
    yield OddList(group, "a place in an archive", ".", files_of(**archive), faults=("archive",))
    more = whole | {"text": f"{texts}four four\n"}
    yield OddList(
        group,
        "a text without a recording",
        ".",
        files_of(**more),
        faults=("transcript without audio",),
    )
    fewer = whole | {"text": "one one\ntwo two\n"}
    yield OddList(
        group,
        "a recording without a text",
        ".",
        files_of(**fewer),
        ALL[:2],
        ("no transcript",),
        results=3,
    )
    lost = files_of(**whole, segments=f"{cuts}four nowhere 0 1\n")
    yield OddList(group, "a segment of no recording", ".", lost, PART, ("no recording nowhere",))


ODD = (*json_lists(), *bad_lines(), *lhotse(), *kaldi())

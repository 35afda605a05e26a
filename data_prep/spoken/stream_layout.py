"""A long recording with keywords at known times among other speech, for measuring a spotter.

Voices of the test split, or of the validation split, say sentences that hold no keyword, and between
them single keywords, in one steady background. `OUT/stream.wav` is the sound, `OUT/events.json` says what
is where. The miss rate counts on the events, false alarms on everything else.
"""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from data_prep.spoken import acoustics
from data_prep.spoken.backgrounds import SteadyNoise
from data_prep.spoken.corpus import RECORD, SAMPLE_RATE, SpeakerPool, new_folder
from data_prep.spoken.keywords import SpokenWord, check_words, speak_word, speaker_name
from data_prep.spoken.passages import (
    SENTENCE_PAUSE,
    FreeSentences,
    Said,
    speak_sentence,
    speak_until,
)
from data_prep.spoken.voices import speaker_table
from mamba_speech.files import write_json

logger = logging.getLogger(__name__)

# Part of the options: raised whenever the same options give another recording than before.
VERSION = 1
# Seconds between two things said, around a keyword.
KEYWORD_PAUSE = (0.4, 1.0)
LONGEST_KEYWORD = 1.0
# The background, below full scale; speech is at -30 to -20 dB.
BACKGROUND_DB = -45.0
# Splits that have such a recording, and what the voices' tables call them.
STREAM_SPLITS = {"test": "test", "valid": "dev"}


def generate_stream(
    output_folder,
    minutes=30.0,
    keywords_per_minute=6.0,
    words=None,
    seed=1234,
    noise=True,
    jobs=None,
    overwrite=False,
    split="test",
):
    """Speak a recording for keyword spotting: `stream.wav` and `events.json`.

    `generate_speechcommands` with the same seed has the same voices in its split `split`. If the
    folder already holds the recording that these options describe, nothing is done. An interrupted
    run leaves only a folder `<output_folder>.partial`.

    Arguments
    ---------
    output_folder : str or Path
        Where the recording shall stand; made if it is not there.
    minutes : float
        Least duration of the sentences, pauses and keywords not counted; up to 600.
    keywords_per_minute : float
        Keywords for each of these minutes, every word about equally often.
    words : list of str, optional
        The keywords; by default the 35 words of Speech Commands v0.02. No sentence holds one of
        these or of those.
    seed : int
        Seed of all random choices, 0 or more.
    noise : bool
        Whether there is a background and mild reverberation.
    jobs : int, optional
        Things spoken at a time; by default one for each processor. It does not alter the result.
    overwrite : bool
        Replace a recording made with other options.
    split : str
        Whose voices and sentences: `test`, or `valid` for a recording to choose settings on.

    Returns
    -------
    folder : Path
        `output_folder`. In it `events.json` has `audio` (the file), `sample_rate`, `seconds` (of
        it all), `speech_seconds` (of the sentences), `labels` (the keywords), `events` (each with
        `start` and `end` in seconds, `label` and `speaker`) and `speech` (the sentences likewise,
        with `text`). Up to 50 ms at either end of what was said are silent.

    Raises
    ------
    ValueError
        If an option is out of range, or the folder holds something else.
    RuntimeError
        If eSpeak NG cannot be started, or the grammar has too few sentences.

    Example
    -------
    >>> import tempfile
    >>> from mamba_speech.files import read_json
    >>> folder = generate_stream(tempfile.mkdtemp(), minutes=0.1, keywords_per_minute=20)
    >>> len(read_json(folder / "events.json")["events"])
    2
    """
    words = check_words(words)
    if not 0 < minutes <= 600 or not 0 <= keywords_per_minute <= 60:
        raise ValueError(
            "minutes must be above 0 and at most 600 and keywords_per_minute between 0 and 60, "
            f"not {minutes} and {keywords_per_minute}"
        )
    if seed < 0 or (jobs is not None and jobs < 1):
        raise ValueError(f"seed must be 0 or more, jobs 1 or more, not {seed} and {jobs}")
    if split not in STREAM_SPLITS:
        raise ValueError(f"split must be {' or '.join(STREAM_SPLITS)}, not {split!r}")
    options = {
        "layout": "stream",
        "version": VERSION,
        "minutes": float(minutes),
        "keywords_per_minute": float(keywords_per_minute),
        "words": words,
        "seed": seed,
        "noise": bool(noise),
    }
    if split != "test":
        # only then, so that a recording made without this option is known again
        options["split"] = split
    own = STREAM_SPLITS[split]
    with new_folder(output_folder, options, overwrite) as folder:
        if folder is None:
            logger.info("%s already holds this recording; nothing to do", output_folder)
            return Path(output_folder)
        with SpeakerPool(jobs) as pool:
            engine = pool.version
            sentences = speak_sentences(pool, own, words, minutes * 60, seed, noise)
            number = round(minutes * keywords_per_minute)
            keywords = speak_keywords(pool, own, words, number, seed, noise)
        found = assemble(folder / "stream.wav", sentences, keywords, seed, noise)
        write_record(folder, options, engine, found | {"labels": words})
    logger.info("spoke %.1f minutes into %s", found["seconds"] / 60, output_folder)
    return Path(output_folder)


def speak_sentences(pool, split, words, seconds, seed, noise):
    """Speak sentences without any keyword until there is enough; a list of `Said`."""
    source = FreeSentences(split, words, seed)
    speakers = speaker_table("en", split, seed=seed)

    def speak(synthesiser, plan):
        text, number = plan
        random = np.random.default_rng([seed, 2, number])
        speaker = speakers[random.integers(len(speakers))]
        waveform = speak_sentence(synthesiser, speaker.voice, text, random)
        return Said(speaker_name(speaker, seed), text, put_into_room(waveform, noise, random))

    return speak_until(
        pool, seconds, lambda number: (source.draw(), number), speak, "speaking sentences"
    )


def speak_keywords(pool, split, words, number, seed, noise):
    """Speak so many keywords, every word about equally often, in random order; a list of `Said`."""
    random = np.random.default_rng([seed, 3])
    speakers = speaker_table("en", split, seed=seed)
    rounds = -(-number // len(words))
    order = [words[index] for _ in range(rounds) for index in random.permutation(len(words))]
    plan = [
        SpokenWord(word, speakers[random.integers(len(speakers))], index, (seed, 4, index))
        for index, word in enumerate(order[:number])
    ]
    return list(pool.map(lambda lent, one: speak_keyword(lent, one, noise), plan))


def speak_keyword(synthesiser, spoken, noise):
    """Speak one keyword; a `Said`."""
    random = np.random.default_rng(spoken.seed)
    waveform, _ = speak_word(synthesiser, spoken, LONGEST_KEYWORD, random)
    return Said(
        speaker_name(spoken.speaker, spoken.seed[0]),
        spoken.word,
        put_into_room(waveform, noise, random),
    )


def put_into_room(waveform, noise, random):
    """Reverberate and level clean speech as `acoustics` does, but add no noise; int16 samples."""
    scene = replace(acoustics.draw_scene(random, noise), snr_db=None)
    waveform = acoustics.apply_scene(waveform, SAMPLE_RATE, scene, random)
    return np.round(waveform * 32767).astype("<i2")


def assemble(path, sentences, keywords, seed, noise):
    """Write the recording, a keyword after a sentence at a time, and say what is where.

    Arguments
    ---------
    path : Path
    sentences, keywords : list of Said
    seed : int
    noise : bool
        Whether there is a background.

    Returns
    -------
    found : dict
        The fields of `events.json` but for `labels`, and `sha256` of the samples.
    """
    random = np.random.default_rng([seed, 5])
    background = SteadyNoise(BACKGROUND_DB, np.random.default_rng([seed, 6]))
    slots = np.sort(random.integers(len(sentences), size=len(keywords)))
    said = [("speech", one) for one in sentences]
    # Backwards, so that the places still to come stay where they are.
    for slot, keyword in reversed(list(zip(slots, keywords, strict=True))):
        said.insert(int(slot) + 1, ("events", keyword))
    found = {"events": [], "speech": []}
    digest, position, before = hashlib.sha256(), 0, "speech"
    # A second of nothing at the end, so that a window around the last keyword is whole.
    said.append(("end", Said("", "", np.zeros(SAMPLE_RATE, dtype="<i2"))))
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16") as file:
        for kind, one in said:
            pauses = KEYWORD_PAUSE if "events" in (kind, before) else SENTENCE_PAUSE
            pause = int(random.uniform(*pauses) * SAMPLE_RATE)
            piece = np.concatenate([np.zeros(pause), one.samples / 32768])
            if noise:
                piece = piece + background.next(len(piece))
            samples = np.round(np.clip(piece, -1, 1) * 32767).astype("<i2")
            file.write(samples)
            digest.update(samples.tobytes())
            start = (position + pause) / SAMPLE_RATE
            position += len(samples)
            if kind in found:
                text = {"label": one.text} if kind == "events" else {"text": one.text}
                times = {"start": round(start, 4), "end": round(position / SAMPLE_RATE, 4)}
                found[kind].append(times | text | {"speaker": one.speaker})
            before = kind
    return {
        "audio": path.name,
        "sample_rate": SAMPLE_RATE,
        "seconds": position / SAMPLE_RATE,
        "speech_seconds": round(sum(one.seconds for one in sentences), 4),
        **found,
        "sha256": digest.hexdigest(),
    }


def write_record(folder, options, engine, found):
    """Write `events.json`, `README.txt` and, last of all, `corpus.json`."""
    digest = found.pop("sha256")
    write_json(folder / "events.json", found)
    (folder / "README.txt").write_text(
        f"Synthetic speech by eSpeak NG {engine} (GPL-3.0-or-later, run as a separate program; no\n"
        "part of it is in this folder). No person speaks here. events.json says which keywords\n"
        "stream.wav holds and when, and which sentences stand between them.\n",
        encoding="utf-8",
    )
    record = {
        "options": options,
        "engine": f"eSpeak NG {engine}",
        "synthetic": True,
        "seconds": found["seconds"],
        "events": len(found["events"]),
        "sha256": digest,
    }
    write_json(folder / RECORD, record)

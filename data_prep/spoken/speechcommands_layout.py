"""Spoken words in the layout of Speech Commands, which its preparation then reads like the real one.

`OUT/<word>/<speaker>_nohash_<n>.wav`, one second each at 16 kHz, with `validation_list.txt`,
`testing_list.txt`, `_background_noise_` and `_other_speech_`, sentences without these words. A
speaker's name is chosen so that the corpus' own hash puts the speaker into the split that the lists
say. `OUT/corpus.json` records the options and the counts, `OUT/clips.csv` the voice, the acoustics
and a hash of each clip.

Source of the layout: Warden, arXiv 1804.03209, section 5.
"""

import hashlib
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from data_prep.keywords.clips import NOISE_FOLDER, OTHER_SPEECH
from data_prep.keywords.splits import LISTS
from data_prep.spoken import acoustics
from data_prep.spoken.backgrounds import BACKGROUNDS, make_background
from data_prep.spoken.corpus import RECORD, SAMPLE_RATE, SpeakerPool, new_folder
from data_prep.spoken.keywords import (
    SPLITS,
    SpokenWord,
    check_words,
    speak_word,
    speaker_name,
)
from data_prep.spoken.near_misses import near_misses as near_misses_of
from data_prep.spoken.passages import speak_passages
from data_prep.spoken.synthesiser import Synthesiser
from data_prep.spoken.voices import speaker_table
from mamba_speech.files import to_pcm16, write_csv, write_json

logger = logging.getLogger(__name__)

# Part of the options: raised whenever the same options give other speech than before.
VERSION = 1
CLIP_SECONDS = 1.0


def generate_speechcommands(
    output_folder,
    voices=64,
    valid_voices=7,
    test_voices=16,
    repeats=2,
    words=None,
    seed=1234,
    noise=True,
    noise_seconds=60.0,
    other_speech_minutes=30.0,
    near_misses=0,
    jobs=None,
    overwrite=False,
):
    """Speak a corpus in the layout of Speech Commands v0.02.

    The splits share no accent and no variant of the voices. If the folder already holds the corpus
    that these options describe, nothing is done. A run that is interrupted leaves only a folder
    `<output_folder>.partial`, which the next run replaces.

    Arguments
    ---------
    output_folder : str or Path
        Where the corpus shall stand; made if it is not there.
    voices, valid_voices, test_voices : int
        Voices for training (up to 275), validation (up to 7) and test (up to 16).
    repeats : int
        How often each voice says each word, each time at another rate, pitch, place and level.
    words : list of str, optional
        By default the 35 words of version 0.02.
    seed : int
        Seed of all random choices, 0 or more.
    noise : bool
        Whether to add noise and mild reverberation to the words.
    noise_seconds : float
        Length of each background recording, 1 or more.
    other_speech_minutes : float
        Speech without any of the words, 0 to 600, each split's share being its share of the voices:
        sentences by these voices, in `_other_speech_`. 0 makes no such folder.
    near_misses : int
        Words and phrases that sound most like each word, so many of each; about half of the other speech is then made
        of them. See `near_misses.near_misses`.
    jobs : int, optional
        Words spoken at a time; by default one for each processor. It does not alter the result.
    overwrite : bool
        Replace a corpus made with other options.

    Returns
    -------
    data_folder : Path
        `output_folder`, to be passed to `prepare_speechcommands` with `split` `lists` or
        `official`, which give the same.

    Raises
    ------
    ValueError
        If an option is out of range, or the folder holds something else.
    RuntimeError
        If eSpeak NG cannot be started.

    Example
    -------
    >>> import tempfile
    >>> folder = generate_speechcommands(
    ...     tempfile.mkdtemp(), voices=2, valid_voices=1, test_voices=1, repeats=1,
    ...     words=["yes", "no"], noise_seconds=1.0, other_speech_minutes=0,
    ... )
    >>> len(list(folder.glob("yes/*_nohash_0.wav")))
    4
    """
    words = check_words(words)
    if repeats < 1 or seed < 0 or noise_seconds < 1 or (jobs is not None and jobs < 1):
        raise ValueError(
            "repeats and jobs must be 1 or more, seed 0 or more and noise_seconds 1 or more, "
            f"not {repeats}, {jobs}, {seed} and {noise_seconds}"
        )
    if not 0 <= other_speech_minutes <= 600:
        raise ValueError(
            f"other_speech_minutes must be between 0 and 600, not {other_speech_minutes}"
        )
    if near_misses < 0 or (near_misses and not other_speech_minutes):
        raise ValueError(
            "near_misses must be 0 or more, and is a part of the other speech: give other_speech_minutes too, not "
            f"{near_misses} and {other_speech_minutes}"
        )
    counts = {"train": voices, "dev": valid_voices, "test": test_voices}
    speakers = {
        name: speaker
        for split, number in counts.items()
        for speaker in speaker_table("en", split, number, seed)
        for name in [speaker_name(speaker, seed)]
    }
    options = {
        "layout": "speechcommands",
        "version": VERSION,
        "voices": voices,
        "valid_voices": valid_voices,
        "test_voices": test_voices,
        "repeats": repeats,
        "words": words,
        "seed": seed,
        "noise": bool(noise),
        "noise_seconds": float(noise_seconds),
    }
    if other_speech_minutes:
        # only then, so that a corpus made without is known again
        options["other_speech_minutes"] = float(other_speech_minutes)
    if near_misses:
        options["near_misses"] = near_misses
    with new_folder(output_folder, options, overwrite) as folder:
        if folder is None:
            logger.info("%s already holds this spoken corpus; nothing to do", output_folder)
            return Path(output_folder)
        for name in words:
            (folder / name).mkdir()
        names = {speaker.id: name for name, speaker in speakers.items()}
        plan = [
            SpokenWord(word, speaker, turn, (seed, speaker.id, number, turn))
            for number, word in enumerate(words)
            for speaker in speakers.values()
            for turn in range(repeats)
        ]
        with SpeakerPool(jobs) as pool:
            engine = pool.version
            clips = pool.map(
                lambda lent, one: write_clip(folder, names[one.speaker.id], one, noise, lent), plan
            )
            rows = list(tqdm(clips, total=len(plan), desc="speaking words", mininterval=0.5))
            others = []
            if other_speech_minutes:
                seconds = 60 * other_speech_minutes / len(speakers)
                misses = find_misses(words, near_misses)
                others = write_other_speech(
                    pool, folder, speakers, seconds, words, seed, noise, misses
                )
        write_backgrounds(folder / NOISE_FOLDER, noise_seconds, seed)
        write_tables(folder, speakers, rows, others)
        write_record(folder, options, engine, rows, others)
    logger.info("spoke %d clips by %d voices into %s", len(rows), len(speakers), output_folder)
    return Path(output_folder)


def write_clip(folder, name, spoken, noise, synthesiser):
    """Speak one word into a clip of a second, write it, and return its row of `clips.csv`."""
    random = np.random.default_rng(spoken.seed)
    scene = acoustics.draw_scene(random, noise)
    word, voice = speak_word(synthesiser, spoken, CLIP_SECONDS, random)
    clip = np.zeros(int(CLIP_SECONDS * SAMPLE_RATE))
    # Mostly somewhere in the middle, as people say it after a sign to speak.
    start = int((len(clip) - len(word)) * random.uniform(0.1, 0.9))
    clip[start : start + len(word)] = word
    clip = acoustics.apply_scene(clip, SAMPLE_RATE, scene, random)
    samples = np.round(clip * 32767).astype("<i2")
    path = f"{spoken.word}/{name}_nohash_{spoken.turn}.wav"
    soundfile.write(folder / path, samples, SAMPLE_RATE, subtype="PCM_16")
    return {
        "path": path,
        "split": SPLITS[spoken.speaker.split],
        "speaker": name,
        "voice": voice.name,
        "rate": voice.rate,
        "pitch": voice.pitch,
        "start": f"{start / SAMPLE_RATE:.4f}",
        "seconds": f"{len(word) / SAMPLE_RATE:.4f}",
        "rt60": "" if scene.rt60 is None else scene.rt60,
        "snr_db": "" if scene.snr_db is None else scene.snr_db,
        "noise": "" if scene.snr_db is None else scene.colour,
        "pcm_sha256": hashlib.sha256(samples.tobytes()).hexdigest(),
    }


def find_misses(words, count):
    """All near misses of the words, each once, in the order of the words."""
    if not count:
        return []
    with Synthesiser() as synthesiser:
        found = near_misses_of(synthesiser, words, count)
    return list(dict.fromkeys(one for own in found.values() for one in own))


def write_other_speech(pool, folder, speakers, seconds, words, seed, noise, misses=()):
    """Speak and write recordings without keywords; returns their rows of `other_speech.csv`.

    Arguments
    ---------
    pool : SpeakerPool
    folder : Path
        The corpus.
    speakers : dict of str to Speaker
    seconds : float
        For each speaker on average.
    words : list of str
    seed : int
    noise : bool
    misses : list of str, optional
        What sounds like a keyword, for a part of the speech.
    """
    rows = []
    (folder / OTHER_SPEECH).mkdir()
    for split, name in SPLITS.items():
        own = [one for one in speakers.values() if one.split == split]
        said = speak_passages(pool, own, split, seconds * len(own), words, seed, noise, misses)
        for index, one in enumerate(said):
            path = f"{OTHER_SPEECH}/{one.speaker}_nohash_{index // len(own)}.wav"
            soundfile.write(folder / path, one.samples, SAMPLE_RATE, subtype="PCM_16")
            digest = hashlib.sha256(one.samples.tobytes()).hexdigest()
            row = {"path": path, "split": name, "speaker": one.speaker, "text": one.text}
            rows.append(row | {"seconds": f"{one.seconds:.4f}", "pcm_sha256": digest})
    return rows


def write_backgrounds(folder, seconds, seed):
    """Write one recording of every background."""
    folder.mkdir()
    for number, name in enumerate(BACKGROUNDS):
        random = np.random.default_rng([seed, 1, number])
        waveform = make_background(name, seconds, SAMPLE_RATE, random)
        samples = to_pcm16(waveform)
        soundfile.write(folder / f"{name}.wav", samples, SAMPLE_RATE, subtype="PCM_16")


def write_tables(folder, speakers, rows, others):
    """Write the list files, `voices.csv`, `clips.csv` and, if there are any, `other_speech.csv`."""
    for split in ("valid", "test"):
        lines = "".join(f"{row['path']}\n" for row in rows if row["split"] == split)
        (folder / LISTS[split]).write_text(lines, encoding="utf-8")
    voices = [
        {"speaker": name, "split": SPLITS[one.split], "sex": one.sex} | asdict(one.voice)
        for name, one in speakers.items()
    ]
    tables = {"voices.csv": voices, "clips.csv": rows, "other_speech.csv": others}
    for name, table in tables.items():
        if table:
            write_csv(folder / name, table[0], table)


def write_record(folder, options, engine, rows, others):
    """Write `README.txt` and, last of all, `corpus.json` with options, counts and hashes."""
    record = {"options": options, "engine": f"eSpeak NG {engine}", "synthetic": True, "splits": {}}
    for split in SPLITS.values():
        own = [row for row in rows if row["split"] == split]
        hashes = "".join(f"{row['path']} {row['pcm_sha256']}\n" for row in own)
        record["splits"][split] = {
            "clips": len(own),
            "speakers": len({row["speaker"] for row in own}),
            "sha256": hashlib.sha256(hashes.encode()).hexdigest(),
        }
    if others:
        hashes = "".join(f"{row['path']} {row['pcm_sha256']}\n" for row in others)
        record["other_speech"] = {
            "recordings": len(others),
            "seconds": round(sum(float(row["seconds"]) for row in others), 1),
            "sha256": hashlib.sha256(hashes.encode()).hexdigest(),
        }
    splits = "".join(
        f"  {name}: {one['clips']} clips, {one['speakers']} voices, sha256 {one['sha256'][:16]}\n"
        for name, one in record["splits"].items()
    )
    (folder / "README.txt").write_text(
        f"Synthetic speech. Every word was spoken by eSpeak NG {engine}, a rule-based synthesiser;\n"
        "noise, reverberation and background recordings are computed. No person speaks here, and\n"
        "results on it say nothing about real speech. eSpeak NG is free software under the GNU\n"
        "General Public License, version 3 or later; it ran as a separate program to make this\n"
        "audio and no part of it is in this folder.\n"
        "\nLayout: that of Speech Commands (arXiv 1804.03209). clips.csv names the voice, acoustics\n"
        "and sample hash of each clip, voices.csv describes the speakers. In _other_speech_, if it\n"
        "is there, the same voices say sentences without any of the words; other_speech.csv has\n"
        "their texts.\n"
        f"\nSplits\n{splits}\nOptions\n"
        + "".join(f"  {key} = {value}\n" for key, value in options.items()),
        encoding="utf-8",
    )
    write_json(folder / RECORD, record)

"""Spoken corpora in the layout of LibriSpeech, which its preparation then reads like the real one.

`OUT/LibriSpeech/<split>/<speaker>/<chapter>/<speaker>-<chapter>-<utterance>.flac`, with a
`.trans.txt` in upper case beside the audio of each chapter. `OUT/corpus.json` records the options
and the counts, `OUT/utterances.csv` the voice, the acoustics and a hash of each utterance.

Source of the layout: Panayotov et al., "LibriSpeech: an ASR corpus based on public domain audio
books", ICASSP 2015, and the corpus at https://www.openslr.org/12.
"""

import hashlib
import logging
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import soundfile

from data_prep.spoken.corpus import RECORD, SAMPLE_RATE, SpeakerPool, new_folder, speak_split
from data_prep.spoken.texts import Grammar
from data_prep.spoken.voices import speaker_table
from mamba_speech.files import write_csv, write_json

logger = logging.getLogger(__name__)

# Part of the options: raised whenever the same options give other speech than before.
VERSION = 2
SPLITS = ("train", "dev", "test")
UTTERANCES_A_CHAPTER = 50
DEFAULT_TRAIN_VOICES = 72


@dataclass(frozen=True)
class Written:
    """What the tables say of one utterance on disk."""

    split: str
    speaker: int
    id: str
    path: str
    seconds: float
    text: str
    row: dict


def generate_librispeech(
    output_folder,
    hours=1.0,
    dev_minutes=4.0,
    test_minutes=6.0,
    seed=1234,
    language="en",
    noise=True,
    train_voices=None,
    jobs=None,
    overwrite=False,
):
    """Speak a corpus in LibriSpeech's layout.

    Its splits, `train-spoken`, `dev-spoken` and `test-spoken`, share no sentence, no accent and no
    variant of the voices. If the folder already holds the corpus that these options describe,
    nothing is done. A run that is interrupted leaves only a folder `<output_folder>.partial`,
    which the next run replaces.

    Arguments
    ---------
    output_folder : str or Path
        Where the corpus shall stand; made if it is not there.
    hours : float
        Speech for training, in hours.
    dev_minutes, test_minutes : float
        Speech for the other splits, in minutes; 0 leaves a split out.
    seed : int
        Seed of all random choices, 0 or more.
    language : str
        `en`, or `ru` for Russian in Cyrillic letters.
    noise : bool
        Whether to add noise and mild reverberation.
    train_voices : int, optional
        Number of training voices; by default 72, or all if the language has fewer.
    jobs : int, optional
        Utterances spoken at a time; by default one for each processor. It does not alter the
        result.
    overwrite : bool
        Replace a corpus made with other options.

    Returns
    -------
    data_folder : Path
        `output_folder`, to be passed to `prepare_librispeech`.

    Raises
    ------
    ValueError
        If an option is out of range, or the folder holds something else.
    RuntimeError
        If eSpeak NG cannot be started, or the grammar has too few sentences.

    Example
    -------
    >>> import tempfile
    >>> folder = generate_librispeech(
    ...     tempfile.mkdtemp(), hours=0.002, dev_minutes=0, test_minutes=0.05, train_voices=2
    ... )
    >>> sorted(split.name for split in (folder / "LibriSpeech").iterdir() if split.is_dir())
    ['test-spoken', 'train-spoken']
    """
    seconds = {"train": 3600 * hours, "dev": 60 * dev_minutes, "test": 60 * test_minutes}
    check_options(seconds, seed, jobs)
    grammar = Grammar(language)
    speakers = {
        split: speaker_table(language, split, seed=seed) for split in SPLITS if seconds[split] > 0
    }
    if train_voices is None:
        train_voices = min(DEFAULT_TRAIN_VOICES, len(speakers["train"]))
    speakers["train"] = speaker_table(language, "train", train_voices, seed)
    options = {
        "layout": "librispeech",
        "version": VERSION,
        "hours": float(hours),
        "dev_minutes": float(dev_minutes),
        "test_minutes": float(test_minutes),
        "seed": seed,
        "language": language,
        "noise": bool(noise),
        "train_voices": train_voices,
    }
    with new_folder(output_folder, options, overwrite) as folder:
        if folder is None:
            logger.info("%s already holds this spoken corpus; nothing to do", output_folder)
            return Path(output_folder)
        with SpeakerPool(jobs) as pool:
            utterances = [
                one
                for split in speakers
                for one in speak_split(
                    pool,
                    speakers[split],
                    grammar,
                    split,
                    seconds[split],
                    seed=seed,
                    noise=noise,
                    finish=lambda spoken: write_audio(folder, spoken),
                )
            ]
            engine = pool.version
        write_tables(folder, speakers, utterances)
        write_record(folder, options, engine, grammar, utterances)
    minutes = sum(one.seconds for one in utterances) / 60
    logger.info("spoke %.1f minutes into %s", minutes, output_folder)
    return Path(output_folder)


def check_options(seconds, seed, jobs):
    """Refuse lengths, seeds and worker counts out of range with a ValueError."""
    if not 0 < seconds["train"] <= 1000 * 3600:
        raise ValueError(f"hours must be above 0 and at most 1000, not {seconds['train'] / 3600}")
    for split in ("dev", "test"):
        if not 0 <= seconds[split] <= 1000 * 60:
            raise ValueError(
                f"{split}_minutes must be between 0 and 1000, not {seconds[split] / 60}"
            )
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, not {seed}")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be 1 or more, not {jobs}")


def split_name(split):
    """Folder name of a split."""
    return f"{split}-spoken"


def write_audio(folder, spoken):
    """Write one utterance as 16-bit FLAC; return what the tables need of it."""
    utterance, scene = spoken.utterance, spoken.scene
    speaker = utterance.speaker
    # Chapter numbers are unique in the corpus, as LibriSpeech's are.
    chapter = 100 * speaker.id + utterance.turn // UTTERANCES_A_CHAPTER
    name = f"{speaker.id}-{chapter}-{utterance.turn % UTTERANCES_A_CHAPTER:04d}"
    path = f"LibriSpeech/{split_name(speaker.split)}/{speaker.id}/{chapter}/{name}.flac"
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(target, spoken.waveform, SAMPLE_RATE, subtype="PCM_16")
    row = {
        "id": name,
        "split": split_name(speaker.split),
        "seconds": f"{spoken.seconds:.3f}",
        "speaker": speaker.id,
        "voice": speaker.voice.name,
        "rate": spoken.rate,
        "pitch": speaker.voice.pitch,
        "rt60": "" if scene.rt60 is None else scene.rt60,
        "snr_db": "" if scene.snr_db is None else scene.snr_db,
        "noise": "" if scene.snr_db is None else scene.colour,
        "pcm_sha256": spoken.digest(),
    }
    text = utterance.text.upper()
    return Written(speaker.split, speaker.id, name, path, spoken.seconds, text, row)


def write_tables(folder, speakers, utterances):
    """Write the transcripts, `SPEAKERS.TXT`, `voices.csv` and `utterances.csv`."""
    transcripts = {}
    for one in utterances:
        chapter, _, _ = one.id.rpartition("-")
        path = (folder / one.path).with_name(f"{chapter}.trans.txt")
        transcripts.setdefault(path, []).append(f"{one.id} {one.text}\n")
    for path, lines in transcripts.items():
        path.write_text("".join(lines), encoding="utf-8")
    write_csv(folder / "utterances.csv", utterances[0].row, [one.row for one in utterances])
    seconds = Counter()
    for one in utterances:
        seconds[one.speaker] += one.seconds
    present = [one for split in speakers.values() for one in split if one.id in seconds]
    lines = [
        "; Speakers are voices of eSpeak NG; see voices.csv beside this folder\n",
        ";ID  |SEX| SUBSET           |MINUTES| NAME\n",
    ]
    for one in present:
        minutes = seconds[one.id] / 60
        lines.append(
            f"{one.id:<5} | {one.sex} | {split_name(one.split):<16} | {minutes:5.2f} | "
            f"{one.voice.name}\n"
        )
    (folder / "LibriSpeech" / "SPEAKERS.TXT").write_text("".join(lines), encoding="utf-8")
    rows = [
        {"speaker": one.id, "split": split_name(one.split), "sex": one.sex} | asdict(one.voice)
        for one in present
    ]
    write_csv(folder / "voices.csv", rows[0], rows)


def write_record(folder, options, engine, grammar, utterances):
    """Write `README.txt` and, last of all, `corpus.json` with options, counts and hashes."""
    vocabulary = set(" ".join(grammar.vocabulary()).upper().split())
    words = {
        split: {word for one in utterances if one.split == split for word in one.text.split()}
        for split in SPLITS
    }
    record = {
        "options": options,
        "engine": f"eSpeak NG {engine}",
        "synthetic": True,
        "vocabulary": len(vocabulary),
        "vocabulary_not_in_train": sorted(vocabulary - words["train"]),
        "splits": {},
    }
    for split in SPLITS:
        own = [one for one in utterances if one.split == split]
        if not own:
            continue
        digest = hashlib.sha256()
        for one in own:
            digest.update(f"{one.id} {one.row['pcm_sha256']} {one.text}\n".encode())
        record["splits"][split_name(split)] = {
            "utterances": len(own),
            "minutes": round(sum(one.seconds for one in own) / 60, 2),
            "speakers": len({one.speaker for one in own}),
            "words": len(words[split]),
            "words_not_in_train": sorted(words[split] - words["train"]),
            "sha256": digest.hexdigest(),
        }
    (folder / "README.txt").write_text(describe(options, engine, record), encoding="utf-8")
    write_json(folder / RECORD, record)


def describe(options, engine, record):
    """The text of `README.txt`."""
    splits = "".join(
        f"  {name}: {counts['utterances']} utterances, {counts['minutes']} minutes, "
        f"{counts['speakers']} voices, sha256 {counts['sha256'][:16]}\n"
        for name, counts in record["splits"].items()
    )
    settings = "".join(f"  {key} = {value}\n" for key, value in options.items())
    return (
        f"Synthetic speech. Every sentence was spoken by eSpeak NG {engine}, a rule-based\n"
        "synthesiser, and drawn from a small grammar; noise and reverberation are computed.\n"
        "No person speaks here, and results on it say nothing about real speech.\n"
        "eSpeak NG is free software under the GNU General Public License, version 3 or later;\n"
        "it ran as a separate program to make this audio and no part of it is in this folder.\n"
        "\nLayout: that of LibriSpeech (https://www.openslr.org/12). utterances.csv names the\n"
        "voice, acoustics and sample hash of each utterance, voices.csv describes the speakers.\n"
        f"\nSplits\n{splits}\nOptions\n{settings}"
    )

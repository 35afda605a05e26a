"""Spoken voices in the layout of VoxCeleb, which its preparation then reads like the real one.

`OUT/wav/<speaker>/<session>/<n>.wav` at 16 kHz, with `vox1_meta.csv` and the trial list `veri_test2.txt` over
voices that the rest does not have. `OUT/corpus.json` records the options and the counts, `OUT/voices.csv` the
voices, `OUT/utterances.csv` the session, the acoustics and a hash of each utterance.

Source of the layout: Nagrani et al., arXiv 1706.08612, and https://mm.kaist.ac.kr/datasets/voxceleb/.
"""

import hashlib
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from data_prep.speakers.pairs import draw_trials
from data_prep.spoken.corpus import RECORD, SAMPLE_RATE, SpeakerPool, new_folder
from data_prep.spoken.people import Person, Session, draw_session, people, speak_in_session
from data_prep.spoken.texts import Grammar, SentenceSource
from data_prep.trials import write_trials
from mamba_speech.files import to_pcm16, write_csv, write_json

logger = logging.getLogger(__name__)

# Part of the options: raised whenever the same options give other speech than before.
VERSION = 1
TRIALS = "veri_test2.txt"
# An utterance has sentences until it has so many words: some four seconds.
WORDS = 8


@dataclass(frozen=True)
class SpeakerUtterance:
    """What is to be said: by whom, in which session, as which file, and the seed of all that is random."""

    person: Person
    session: Session
    number: int
    path: str
    text: str
    seed: tuple


def generate_voxceleb(
    output_folder,
    voices=64,
    test_voices=16,
    sessions=4,
    utterances=4,
    trials=3000,
    seed=1234,
    noise=True,
    jobs=None,
    overwrite=False,
):
    """Speak a corpus in the layout of VoxCeleb1.

    Training and test voices share no accent and no variant of the vocal tract. If the folder already holds the
    corpus that these options describe, nothing is done. A run that is interrupted leaves only a folder
    `<output_folder>.partial`, which the next run replaces.

    Arguments
    ---------
    output_folder : str or Path
        Where the corpus shall stand; made if it is not there.
    voices, test_voices : int
        Voices for training and validation (up to 330), and for the trial list (up to 48).
    sessions : int
        Sessions of each voice, 2 or more. Each has its own room, noise, microphone, rate and pitch.
    utterances : int
        Utterances of each session, some four seconds each.
    trials : int
        Length of the trial list at most. Half are target trials, which join two sessions. Half are impostor trials,
        and half of the impostor trials join voices of one sex.
    seed : int
        Seed of all random choices, 0 or more.
    noise : bool
        Whether sessions differ in room, noise and microphone.
    jobs : int, optional
        Utterances spoken at a time; by default one for each processor. It does not alter the result.
    overwrite : bool
        Replace a corpus made with other options.

    Returns
    -------
    data_folder : Path
        `output_folder`, to be passed to `prepare_voxceleb` with its `veri_test2.txt`.

    Raises
    ------
    ValueError
        If an option is out of range, or the folder holds something else.
    RuntimeError
        If eSpeak NG cannot be started.

    Example
    -------
    >>> import tempfile
    >>> folder = generate_voxceleb(
    ...     tempfile.mkdtemp(), voices=2, test_voices=2, sessions=2, utterances=1, noise=False
    ... )
    >>> len(list(folder.glob("wav/id*/*/00001.wav")))
    8
    """
    if sessions < 2 or utterances < 1 or trials < 2 or seed < 0 or (jobs is not None and jobs < 1):
        raise ValueError(
            "sessions and trials must be 2 or more, utterances and jobs 1 or more, and seed 0 or more, "
            f"not {sessions}, {trials}, {utterances}, {jobs} and {seed}"
        )
    speakers = people("train", voices, seed) + people("test", test_voices, seed)
    options = {
        "layout": "voxceleb",
        "version": VERSION,
        "voices": voices,
        "test_voices": test_voices,
        "sessions": sessions,
        "utterances": utterances,
        "trials": trials,
        "seed": seed,
        "noise": bool(noise),
    }
    with new_folder(output_folder, options, overwrite) as folder:
        if folder is None:
            logger.info("%s already holds this spoken corpus; nothing to do", output_folder)
            return Path(output_folder)
        plan = [
            one
            for person in speakers
            for one in plan_person(person, sessions, utterances, seed, noise)
        ]
        with SpeakerPool(jobs) as pool:
            engine = pool.version
            spoken = pool.map(lambda lent, one: write_utterance(folder, one, lent), plan)
            rows = list(tqdm(spoken, total=len(plan), desc="speaking", mininterval=0.5))
        pairs = choose_trials(speakers, plan, trials, seed)
        write_trials(folder / TRIALS, pairs)
        write_tables(folder, speakers, rows)
        write_record(folder, options, engine, speakers, rows, pairs)
    logger.info("spoke %d utterances by %d voices into %s", len(rows), len(speakers), output_folder)
    return Path(output_folder)


def plan_person(person, sessions, utterances, seed, noise):
    """What a person says in all sessions, as a list of `SpeakerUtterance`."""
    # Each person draws sentences alone: others may say the same ones.
    source = SentenceSource(Grammar("en"), person.split, 100003 * seed + person.id)
    plan = []
    for number in range(sessions):
        session = draw_session((seed, person.id, number), noise)
        name = hashlib.sha256(f"{seed} {person.id} {number}".encode()).hexdigest()[:11]
        for turn in range(utterances):
            path = f"{person.name}/{name}/{turn + 1:05d}.wav"
            text = draw_text(source)
            at = (seed, person.id, number, turn, 2)
            plan.append(SpeakerUtterance(person, session, number, path, text, at))
    return plan


def draw_text(source):
    """Sentences of eight words or more together, each with a capital and a full stop."""
    sentences = []
    while sum(len(one.split()) for one in sentences) < WORDS:
        sentence = source.draw()
        sentences.append(sentence[0].upper() + sentence[1:] + ".")
    return " ".join(sentences)


def write_utterance(folder, one, synthesiser):
    """Speak an utterance, write it, and return its row of `utterances.csv`."""
    random = np.random.default_rng(one.seed)
    waveform = speak_in_session(synthesiser, one.person, one.session, one.text, random)
    samples = to_pcm16(waveform)
    path = folder / "wav" / one.path
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
    scene = one.session.scene
    return {
        "path": one.path,
        "split": one.person.split,
        "speaker": one.person.name,
        "session": one.number,
        "seconds": f"{len(samples) / SAMPLE_RATE:.3f}",
        "rate": f"{one.session.rate:.3f}",
        "pitch": one.session.pitch,
        "tilt": one.session.tilt,
        "rt60": "" if scene.rt60 is None else scene.rt60,
        "snr_db": "" if scene.snr_db is None else scene.snr_db,
        "noise": "" if scene.snr_db is None else scene.colour,
        "text": one.text,
        "pcm_sha256": hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest(),
    }


def choose_trials(speakers, plan, count, seed):
    """The trials of the test voices, as (label, path, path), in a drawn order."""
    sessions, paths = {}, [one.path for one in plan]
    for index, one in enumerate(plan):
        if one.person.split == "test":
            own = sessions.setdefault(one.person.name, {})
            own.setdefault(one.number, []).append(index)
    sexes = {one.name: one.sex for one in speakers}
    pairs = draw_trials(sessions, sexes, count, seed)
    order = np.random.default_rng([seed, 22]).permutation(len(pairs))
    return [(label, paths[a], paths[b]) for label, a, b in (pairs[k] for k in order)]


def write_tables(folder, speakers, rows):
    """Write `vox1_meta.csv` with its columns as VoxCeleb1 has them, `voices.csv` and `utterances.csv`."""
    meta = ["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"]
    for one in speakers:
        part = "dev" if one.split == "train" else "test"
        cells = (one.name, one.voice.name, one.sex.lower(), one.voice.base, part)
        meta.append("\t".join(cells) + "\n")
    (folder / "vox1_meta.csv").write_text("".join(meta), encoding="utf-8")
    voices = [
        {"speaker": one.name, "split": one.split, "sex": one.sex}
        | asdict(one.voice)
        | {"tract": one.tract}
        for one in speakers
    ]
    write_csv(folder / "voices.csv", voices[0], voices)
    write_csv(folder / "utterances.csv", rows[0], rows)


def write_record(folder, options, engine, speakers, rows, pairs):
    """Write `README.txt` and, last of all, `corpus.json` with options, counts and hashes."""
    record = {"options": options, "engine": f"eSpeak NG {engine}", "synthetic": True, "splits": {}}
    for split in ("train", "test"):
        own = [row for row in rows if row["split"] == split]
        hashes = "".join(f"{row['path']} {row['pcm_sha256']}\n" for row in own)
        record["splits"][split] = {
            "voices": sum(one.split == split for one in speakers),
            "utterances": len(own),
            "minutes": round(sum(float(row["seconds"]) for row in own) / 60, 2),
            "sha256": hashlib.sha256(hashes.encode()).hexdigest(),
        }
    targets = sum(label for label, *_ in pairs)
    record["trials"] = {"target": targets, "impostor": len(pairs) - targets}
    splits = "".join(
        f"  {name}: {one['voices']} voices, {one['utterances']} utterances, {one['minutes']} minutes, "
        f"sha256 {one['sha256'][:16]}\n"
        for name, one in record["splits"].items()
    )
    (folder / "README.txt").write_text(
        f"Synthetic speech. Every utterance was spoken by eSpeak NG {engine}, a rule-based\n"
        "synthesiser; rooms, noise and microphones are computed. No person speaks here, and error\n"
        "rates on it say nothing about real speakers. eSpeak NG is free software under the GNU\n"
        "General Public License, version 3 or later; it ran as a separate program to make this\n"
        "audio and no part of it is in this folder.\n"
        "\nLayout: that of VoxCeleb1 (https://mm.kaist.ac.kr/datasets/voxceleb/). voices.csv\n"
        "describes the voices, utterances.csv the session, acoustics and sample hash of each\n"
        f"utterance. {TRIALS} has {targets} target and {len(pairs) - targets} impostor trials of the test voices,\n"
        "which no other recording has.\n"
        f"\nSplits\n{splits}\nOptions\n"
        + "".join(f"  {key} = {value}\n" for key, value in options.items()),
        encoding="utf-8",
    )
    write_json(folder / RECORD, record)

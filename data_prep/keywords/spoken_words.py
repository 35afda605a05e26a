"""Words spoken by eSpeak NG beside recordings: more voices for the training than few people have.

Only the training hears them. Validation and test stay with people.
"""

import re
from pathlib import Path

import numpy as np
import soundfile

from data_prep.inspection import inspect
from data_prep.keywords.clips import COLUMNS

FOLDER = "spoken_words"
# raised when the same options give other speech than before
VERSION = 1
# of silence before and after a word, and of the longest word
EDGE_SECONDS, LONGEST_SECONDS = 0.3, 1.4


def add_spoken_words(save_folder, words, voices, seed):
    """Rows of the training manifest for words that are spoken, unless they are there already.

    Arguments
    ---------
    save_folder : Path
        Where the clips go, into the folder `spoken_words`.
    words : list of str
        A name of several parts, such as `smart_mirror`, is spoken as several words.
    voices : int
        Voices that say each word, up to 275.
    seed : int

    Returns
    -------
    rows : list of dict
        With the keys `COLUMNS`.

    Raises
    ------
    ValueError
        If eSpeak NG cannot be started or says nothing for a word, or there are fewer voices.
    """
    folder = Path(save_folder) / FOLDER
    try:
        speak_words(folder, words, voices, seed)
    except RuntimeError as error:
        raise ValueError(f"the words cannot be spoken ({error}): set spoken_voices to 0") from error
    rows = []
    for word in words:
        for path in sorted((folder / word).glob("*.wav")):
            speaker, (frames, rate, _) = path.stem.partition("_nohash_")[0], inspect(path)
            values = (f"spoken_{word}_{path.stem}", round(frames / rate, 6), str(path), 0, frames)
            rows.append(dict(zip(COLUMNS, (*values, word, speaker, word), strict=True)))
    return rows


def speak_words(folder, words, voices, seed):
    """Speak each word by each voice into `<word>/<speaker>_nohash_0.wav`, unless that is there already.

    Returns
    -------
    folder : Path
        With `corpus.json`.
    """
    from data_prep.spoken.corpus import RECORD, SpeakerPool, new_folder
    from data_prep.spoken.keywords import SpokenWord
    from data_prep.spoken.voices import speaker_table
    from mamba_speech.files import write_json

    options = {"layout": "spoken_words", "version": VERSION, "words": words, "seed": seed}
    options |= {"voices": voices}
    with new_folder(folder, options, overwrite=True) as temporary:
        if temporary is None:
            return folder
        for word in words:
            (temporary / word).mkdir()
        speakers = speaker_table("en", "train", voices, seed)
        plan = [
            (word, SpokenWord(_text(word), speaker, 0, (seed, 11, speaker.id, number)))
            for number, word in enumerate(words)
            for speaker in speakers
        ]
        with SpeakerPool() as pool:
            clips = list(pool.map(lambda lent, one: _write(temporary, *one, seed, lent), plan))
            engine = f"eSpeak NG {pool.version}"
        write_json(temporary / RECORD, {"options": options, "engine": engine, "clips": len(clips)})
    return folder


def _text(word):
    return " ".join(re.findall(r"[^\W_]+", word)) or word


def _write(folder, word, spoken, seed, synthesiser):
    """Speak one word in a room with noise, and write it."""
    from data_prep.spoken import acoustics
    from data_prep.spoken.corpus import SAMPLE_RATE
    from data_prep.spoken.keywords import speak_word, speaker_name

    random = np.random.default_rng(spoken.seed)
    waveform, _ = speak_word(synthesiser, spoken, LONGEST_SECONDS, random)
    waveform = np.pad(waveform, round(EDGE_SECONDS * SAMPLE_RATE))
    scene = acoustics.draw_scene(random)
    waveform = acoustics.apply_scene(waveform, SAMPLE_RATE, scene, random)
    path = folder / word / f"{speaker_name(spoken.speaker, seed)}_nohash_0.wav"
    soundfile.write(path, np.round(waveform * 32767).astype("<i2"), SAMPLE_RATE, subtype="PCM_16")
    return path

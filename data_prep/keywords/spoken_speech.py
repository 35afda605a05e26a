"""Other speech for a keyword corpus that has none: sentences without the keywords, spoken by eSpeak NG."""

import hashlib
import logging
import re
from pathlib import Path

import soundfile

from data_prep.keywords.clips import OTHER_SPEECH
from mamba_speech.files import write_json

logger = logging.getLogger(__name__)

SPOKEN, AUTO = "spoken", "auto"
FOLDER = "spoken_speech"
# raised when the same options give other speech than before
VERSION = 1
# voices and minutes of each split
VOICES = {"train": 40, "dev": 7, "test": 7}
MINUTES = {"train": 14.0, "dev": 4.0, "test": 5.0}


def choose_other_speech(root, folder, words, save_folder, seed):
    """The folder that other speech is taken from; it is spoken where there is none.

    Arguments
    ---------
    root : Path
        The keyword corpus.
    folder : str or Path or None
        `spoken`: it is spoken. `auto`: `_other_speech_` of the corpus, and spoken where there is no such
        folder. Any other name, or None, is given back.
    words : list of str
        The keywords, which are not spoken.
    save_folder : Path
        Where spoken speech goes, into the folder `spoken_speech`.
    seed : int

    Returns
    -------
    folder : Path or None

    Raises
    ------
    ValueError
        If eSpeak NG cannot be started.
    """
    if str(folder) == AUTO and (root / OTHER_SPEECH).is_dir():
        return None
    if str(folder) not in (SPOKEN, AUTO):
        return folder
    logger.info(
        "other speech is spoken by eSpeak NG; give a folder of real speech as other_speech to have fewer false alarms"
    )
    try:
        return speak_other_speech(Path(save_folder) / FOLDER, words, seed)
    except RuntimeError as error:
        raise ValueError(
            f"other speech cannot be spoken ({error}): give a folder of recordings without the words as other_speech"
        ) from error


def speak_other_speech(folder, words, seed, minutes=None, voices=None):
    """Speak sentences without the keywords into a folder, unless they are there already.

    Arguments
    ---------
    folder : Path
    words : list of str
    seed : int
    minutes, voices : dict of str to float or int, optional
        Duration, and number of voices, of the splits `train`, `dev` and `test`.

    Returns
    -------
    folder : Path
        With recordings `<speaker>_nohash_<n>.wav` below `_other_speech_`, and `corpus.json`.
    """
    from data_prep.spoken.corpus import RECORD, SAMPLE_RATE, SpeakerPool, new_folder
    from data_prep.spoken.passages import speak_passages
    from data_prep.spoken.voices import speaker_table

    minutes, voices = minutes or MINUTES, voices or VOICES
    said = sorted({part for word in words for part in re.findall(r"[^\W\d_]+", word.casefold())})
    options = {"layout": "other_speech", "version": VERSION, "words": said, "seed": seed}
    options |= {"minutes": minutes, "voices": voices}
    with new_folder(folder, options, overwrite=True) as temporary:
        if temporary is None:
            return folder
        (temporary / OTHER_SPEECH).mkdir()
        digest, count = hashlib.sha256(), 0
        with SpeakerPool() as pool:
            for split, number in voices.items():
                own, seconds = speaker_table("en", split, number, seed), 60 * minutes[split]
                passages = speak_passages(pool, own, split, seconds, said, seed, True)
                for index, one in enumerate(passages):
                    name = f"{one.speaker}_nohash_{index // len(own)}"
                    path = temporary / OTHER_SPEECH / name
                    soundfile.write(f"{path}.wav", one.samples, SAMPLE_RATE, subtype="PCM_16")
                    path.with_suffix(".txt").write_text(one.text, encoding="utf-8")
                    digest.update(one.samples.tobytes())
                    count += 1
            record = {"options": options, "engine": f"eSpeak NG {pool.version}"}
        record |= {"recordings": count, "sha256": digest.hexdigest()}
        write_json(temporary / RECORD, record)
    return folder

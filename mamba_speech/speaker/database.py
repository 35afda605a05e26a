"""Known speakers in one JSON file: a voice for each name, the model that made it, and the threshold to identify by."""

import fcntl
import hashlib
import math
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mamba_speech.files import read_json, write_json
from mamba_speech.speaker.embedding import file_hash, similarity
from mamba_speech.speaker.threshold import given_threshold

FORMAT = "mamba-speech speakers 1"
# printed by `identify` for a voice that nobody of the database has
UNKNOWN = "unknown"


class SpeakerDatabase:
    """Known speakers. A voice is the mean of its recordings' embeddings, each of length 1.

    Arguments
    ---------
    weights : str
        Hash of the model, see :func:`mamba_speech.speaker.embedding.model_hash`.
    threshold : float, optional
        A higher score means the speaker; a lower one is unknown.
    path : str or Path, optional
        Named in errors.

    Attributes
    ----------
    voices : dict of str to dict
        By name: ``sum`` (embedding_size,) of the embeddings, and ``recordings``, the hashes of their files.

    Example
    -------
    >>> database = SpeakerDatabase("weights of a model", threshold=0.5)
    >>> database.add("Ada", np.array([2.0, 0.0]), "hash of a file")
    True
    >>> database.rank(np.array([3.0, 4.0]))
    [('Ada', 0.6)]
    """

    def __init__(self, weights, threshold=None, path="the database"):
        self.weights, self.threshold, self.path = weights, threshold, path
        self.voices = {}

    @classmethod
    def read(cls, path):
        """The database in a file.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If the file is something else, or damaged.
        """
        try:
            content = read_json(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{path}: no such database; mamba-speech enroll makes one"
            ) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"{path}: is no database of speakers")
        try:
            database = cls(str(content["weights"]), content["threshold"], path)
            for name, voice in content["speakers"].items():
                database.voices[name] = {
                    "sum": _vector(voice["sum"]),
                    "recordings": list(map(str, voice["recordings"])),
                }
            if database.threshold is not None:
                database.threshold = given_threshold(float(database.threshold)).value
            if len({len(voice["sum"]) for voice in database.voices.values()}) > 1:
                raise ValueError("its voices are of several models")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: is a damaged database of speakers ({error})") from error
        return database

    def write(self):
        """Write the database into its file, whole or not at all."""
        speakers = {
            name: {"sum": voice["sum"].tolist(), "recordings": voice["recordings"]}
            for name, voice in sorted(self.voices.items())
        }
        content = {"format": FORMAT, "weights": self.weights, "threshold": self.threshold}
        write_json(self.path, content | {"speakers": speakers})

    def check_model(self, weights):
        """Refuse a model other than the one that made the database.

        Raises
        ------
        ValueError
            If it is another model.
        """
        if weights != self.weights:
            raise ValueError(
                f"{self.path}: was made with another model (weights {self.weights[:8]}, this run has {weights[:8]}); "
                "give the run that made it, or enroll its speakers into another database"
            )

    def add(self, name, vector, content):
        """Add a recording to a voice.

        Arguments
        ---------
        name : str
        vector : numpy.ndarray
            (embedding_size,), the recording's embedding.
        content : str
            Hash of the recording.

        Returns
        -------
        added : bool
            False if the voice has this recording already: it counts once.

        Raises
        ------
        ValueError
            If the name cannot be one.
        """
        check_name(name)
        self.check_size(len(vector))
        vector = vector.astype(np.float64)
        vector /= math.sqrt(math.fsum((vector * vector).tolist()))
        voice = self.voices.setdefault(name, {"sum": np.zeros(len(vector)), "recordings": []})
        if content in voice["recordings"]:
            return False
        voice["sum"] = voice["sum"] + vector
        voice["recordings"].append(content)
        return True

    def check_size(self, size):
        """Refuse embeddings of another size than the voices'.

        Arguments
        ---------
        size : int
            Numbers in an embedding of the model.

        Raises
        ------
        ValueError
            If a voice has more numbers, or fewer.
        """
        sizes = {len(voice["sum"]) for voice in self.voices.values()} - {size}
        if sizes:
            raise ValueError(
                f"{self.path}: is a damaged database of speakers (its voices have {min(sizes)} numbers, and the "
                f"model's {size})"
            )

    def check_voices(self):
        """Raise ``ValueError`` if nobody is enrolled."""
        if not self.voices:
            raise ValueError(f"{self.path}: holds no speaker; enroll one first")

    def limit(self, given=None):
        """The threshold: the one given, else the database's.

        Raises
        ------
        ValueError
            If there is neither, or the one given is no score.
        """
        limit = self.threshold if given is None else given_threshold(given).value
        if limit is None:
            raise ValueError(
                f"{self.path}: has no threshold, since the run that made it has none; give a threshold"
            )
        return limit

    def rank(self, vector):
        """All speakers with their scores for an embedding, the nearest first.

        Arguments
        ---------
        vector : numpy.ndarray
            (embedding_size,)

        Returns
        -------
        list of (str, float)

        Raises
        ------
        ValueError
            If nobody is enrolled.
        """
        self.check_voices()
        self.check_size(len(vector))
        scores = ((name, similarity(vector, one["sum"])) for name, one in self.voices.items())
        return sorted(scores, key=lambda pair: (-pair[1], pair[0]))


def enroll(path, name, embeddings, weights, run_threshold=None, threshold=None, replace=False):
    """Add embeddings of a speaker to the database in a file, while no other process writes to it.

    Arguments
    ---------
    path : str or Path
        Made if it is not there.
    name : str
        Of the speaker.
    embeddings : list of mamba_speech.speaker.embedding.Embedding
        Those with an error are left out; without any other the file stays as it is.
    weights : str
        Hash of the model that made them.
    run_threshold : float, optional
        Threshold of a database that has none.
    threshold : float, optional
        Threshold of the database from now on.
    replace : bool
        Removal of the recordings that the name has so far.

    Returns
    -------
    (int, int)
        Recordings that were new, and those that the voice has now.

    Raises
    ------
    OSError, ValueError
        If the name cannot be one, or the database is damaged, of another model, or cannot be written.
    """
    check_name(name)
    threshold = None if threshold is None else given_threshold(threshold).value
    good = [one for one in embeddings if one.error is None]
    if not good:
        return 0, 0
    with locked(path):
        database = SpeakerDatabase(weights, path=path)
        if Path(path).exists():
            database = SpeakerDatabase.read(path)
        database.check_model(weights)
        if replace:
            database.voices.pop(name, None)
        if threshold is not None or database.threshold is None:
            database.threshold = run_threshold if threshold is None else threshold
        added = sum(database.add(name, one.vector, _content_hash(one)) for one in good)
        database.write()
    return added, len(database.voices[name]["recordings"])


def _content_hash(embedding):
    """A hash of a recording's file; of a waveform, of its embedding."""
    if embedding.path is not None:
        return file_hash(embedding.path)
    return hashlib.sha256(embedding.vector.tobytes()).hexdigest()[:32]


@contextmanager
def locked(path):
    """Hold a database for one writer; another one waits. A context manager.

    The lock is a file beside the database, which stays there.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder is not there")
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_name(name):
    """Refuse a text that cannot be a speaker's name.

    Raises
    ------
    ValueError
        If it is empty, reserved, or does not print as one column.

    Example
    -------
    >>> check_name("unknown")
    Traceback (most recent call last):
        ...
    ValueError: a speaker's name must be a printable text other than 'unknown'; got 'unknown'
    """
    if not name.strip() or not name.isprintable() or name == UNKNOWN:
        raise ValueError(
            f"a speaker's name must be a printable text other than {UNKNOWN!r}; got {name!r:.60}"
        )


def _vector(numbers):
    vector = np.array(numbers, dtype=np.float64)
    if vector.ndim != 1 or not (np.isfinite(vector).all() and vector.any()):
        raise ValueError("a voice is no list of numbers")
    return vector

"""Embeddings kept in one file, so that no recording is embedded twice by the same weights."""

import sqlite3
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mamba_speech.speaker.embedding import Embedding

# of SQLite's header: the file is one of these
APPLICATION = 0x6D737665
# seconds for which another process is waited for
PATIENCE = 60.0
# embeddings that a killed run may have to compute again
UNWRITTEN = 100


class EmbeddingStore:
    """Embeddings by the hash of the weights and the hash of the file; a context manager.

    Several processes may share a store. A renamed or moved recording is found again, a changed one is not.

    Arguments
    ---------
    path : str or Path
        An SQLite file; made if it is not there.

    Raises
    ------
    FileNotFoundError
        If its folder is not there.
    ValueError
        If the file is no store, or is damaged.

    Example
    -------
    >>> import tempfile
    >>> found = Embedding(vector=np.ones(2, dtype=np.float32), seconds=3.0, speech_seconds=2.5)
    >>> with tempfile.TemporaryDirectory() as folder, EmbeddingStore(f"{folder}/embeddings.sqlite") as store:
    ...     store.put("weights", "file", found)
    ...     store.get("weights", "file").vector.tolist(), store.get("others", "file")
    ([1.0, 1.0], None)
    """

    def __init__(self, path):
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"{self.path}: its folder is not there")
        # written together and at once: the file is locked for a moment only
        self._unwritten = {}
        with self._errors():
            self._file = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
            self._prepare()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _prepare(self):
        if self._application() == APPLICATION:
            return
        # of two that make the file, one waits here and finds it made
        self._file.execute("BEGIN IMMEDIATE")
        (tables,) = self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if self._application() != APPLICATION and tables:
            self._file.close()
            raise ValueError(f"{self.path}: holds no embeddings; give another file for them")
        self._file.execute(f"PRAGMA application_id = {APPLICATION}")
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS embeddings (weights TEXT, content TEXT, vector BLOB, seconds REAL, "
            "speech_seconds REAL, PRIMARY KEY (weights, content)) WITHOUT ROWID"
        )
        self._file.execute("COMMIT")

    def _application(self):
        return self._file.execute("PRAGMA application_id").fetchone()[0]

    def get(self, weights, content):
        """The embedding of a recording, or None.

        Arguments
        ---------
        weights : str
            See :func:`mamba_speech.speaker.embedding.model_hash`.
        content : str
            See :func:`mamba_speech.speaker.embedding.file_hash`.

        Returns
        -------
        Embedding or None
            Without a path.
        """
        if (weights, content) in self._unwritten:
            return self._unwritten[weights, content]
        with self._errors():
            row = self._file.execute(
                "SELECT vector, seconds, speech_seconds FROM embeddings WHERE weights = ? AND content = ?",
                (weights, content),
            ).fetchone()
        if row is None:
            return None
        vector = np.frombuffer(row[0], dtype="<f4").astype(np.float32)
        return Embedding(vector=vector, seconds=row[1], speech_seconds=row[2])

    def put(self, weights, content, embedding):
        """Keep an embedding; see :meth:`get`."""
        self._unwritten[weights, content] = embedding
        if len(self._unwritten) >= UNWRITTEN:
            self.flush()

    def flush(self):
        """Write the embeddings that were put since the last time."""
        rows = [
            (*key, one.vector.astype("<f4").tobytes(), one.seconds, one.speech_seconds)
            for key, one in self._unwritten.items()
        ]
        with self._errors():
            self._file.execute("BEGIN IMMEDIATE")
            self._file.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?, ?, ?)", rows)
            self._file.execute("COMMIT")
        self._unwritten = {}

    def close(self):
        """Write the last embeddings and close the file."""
        self.flush()
        self._file.close()

    @contextmanager
    def _errors(self):
        try:
            yield
        except sqlite3.OperationalError as error:
            raise RuntimeError(f"{self.path}: cannot be read or written ({error})") from error
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{self.path}: no file of embeddings, or a damaged one ({error}); delete it or give another"
            ) from error

"""Where results come from: the code, the machine, and the lists of the data."""

import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

from mamba_speech.files import read_csv

ROOT = Path(__file__).resolve().parents[1]
GIT_SECONDS = 5


def processor():
    """The processor's name as Linux reports it, and its widest vectors.

    Returns
    -------
    str
        Elsewhere: what Python knows of it.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    name = fields.get("model name", platform.machine())
    flags = fields.get("flags", "").split()
    widest = next((flag for flag in ("avx512f", "avx2", "avx", "sse2") if flag in flags), None)
    return f"{name} ({widest})" if widest else name


def utc_now():
    """The time in UTC to the second, as ISO 8601 has it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def load_average():
    """The load average of the last minute; ``None`` where the system keeps none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def version_of(package):
    """The version of an installed package; ``None`` if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_environment():
    """The environment without variables of git such as ``GIT_DIR``, by which it would look at another repository.

    Returns
    -------
    dict of str: str
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # a question must not lock the index of somebody who commits
    return kept | {"GIT_OPTIONAL_LOCKS": "0"}


@functools.cache
def find_commit(root=ROOT):
    """The commit of a working tree, and whether files that git tracks differ from it.

    Git is asked once a process, and only where ``root`` is the top of a working tree.

    Arguments
    ---------
    root : Path

    Returns
    -------
    (str, bool) or None
        None outside a working tree, without git or a commit, or if git refuses or does not answer.

    Example
    -------
    >>> find_commit(Path("/nowhere")) is None
    True
    """
    if not (root / ".git").exists():
        return None
    # untracked files would be searched for in all of results/
    command = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        done = subprocess.run(
            command,
            check=True,
            cwd=root,
            env=git_environment(),
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.splitlines()
    found = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), None)
    if found in (None, "(initial)"):
        return None
    return found, any(not line.startswith("#") for line in lines)


def hash_list(path):
    """The SHA-256 of what a list says, which does not depend on where the list or its recordings lie.

    - A manifest (``.csv``) counts without its paths to recordings, the columns ``wav`` and those that end in ``_wav``.
    - A SentencePiece model (``.model``) counts by its tokens and their scores. Its file also names the folder where it
      was learnt.
    - Any other file counts byte by byte.

    Arguments
    ---------
    path : str or Path

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a manifest is no CSV; see :func:`mamba_speech.files.read_csv`.
    """
    path = Path(path)
    if path.suffix == ".csv":
        return _hash_manifest(path)
    if path.suffix == ".model":
        # here, since commands that ask for the load alone begin at once
        import sentencepiece

        tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(path))
        pairs = [
            (tokenizer.id_to_piece(i), tokenizer.get_score(i))
            for i in range(tokenizer.vocab_size())
        ]
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _hash_manifest(path):
    digest, separator = hashlib.sha256(b"["), ""
    for _, row in read_csv(path)[1]:
        # the empty start and stop of whole files say nothing
        row = {
            k: "" if k == "wav" or k.endswith("_wav") else v
            for k, v in row.items()
            if v or k not in ("start", "stop")
        }
        digest.update((separator + json.dumps(row, sort_keys=True)).encode())
        separator = ", "
    digest.update(b"]")
    return digest.hexdigest()

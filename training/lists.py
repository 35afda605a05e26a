"""What tells one list of a run from another: hashes of manifests, tokenizers and labels, wherever their files lie."""

import csv
import hashlib
import json
from pathlib import Path

import sentencepiece


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
    """
    path = Path(path)
    if path.suffix == ".csv":
        return _hash_manifest(path)
    if path.suffix == ".model":
        tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(path))
        pairs = [
            (tokenizer.id_to_piece(i), tokenizer.get_score(i))
            for i in range(tokenizer.vocab_size())
        ]
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _hash_manifest(path):
    digest, separator = hashlib.sha256(b"["), ""
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            row = {k: "" if k == "wav" or k.endswith("_wav") else v for k, v in row.items()}
            digest.update((separator + json.dumps(row, sort_keys=True)).encode())
            separator = ", "
    digest.update(b"]")
    return digest.hexdigest()

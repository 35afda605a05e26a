"""Speakers of a small corpus of words, its lists, and the manifests read back."""

import csv
import json

from data_prep.keywords.splits import SPLITS

# Speakers of the published lists of version 0.02 that the rule must put where those lists do.
IN_VALIDATION_LIST = "8b775397 2643992f 060cd039 f5e5e8b0 dbb40d24 d57febf0 16db1582 171b56dc"
IN_TESTING_LIST = "2aa787cf ffa76c4a 24ad3ebe d7467392 5828dfa2 91223b83 f0ae7203 95ba4996"

# Names that the rule leaves for training.
TRAINING = ["aaaa0003", "aaaa0004", "aaaa0005"]
SPEAKERS = TRAINING + IN_VALIDATION_LIST.split()[:1] + IN_TESTING_LIST.split()[:1]


def read_table(path):
    """Rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_rows(prepared):
    """Rows of each split."""
    return {split: read_table(prepared[split]) for split in SPLITS}


def read_labels(prepared):
    """The classes in the order of their numbers."""
    return json.loads(prepared["labels"].read_text(encoding="utf-8"))


def write_lists(folder, validation, testing, training=None):
    """Write list files."""
    lists = {"validation": validation, "testing": testing, "training": training}
    for name, lines in lists.items():
        if lines is not None:
            text = "".join(f"{line}\n" for line in lines)
            (folder / f"{name}_list.txt").write_text(text, encoding="utf-8")

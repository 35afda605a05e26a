#!/usr/bin/env python3
"""Memorise forty utterances of a corpus: the shortest proof that the whole path from audio to text can learn.

    python examples/memorise.py --data_folder LibriSpeech --split train-clean-100

A model that cannot bring the word error rate on its own training speech under 5 % has a fault somewhere
between the waveform and the text. The forty are the first of the split, by id, that are longer than
``--min_seconds``; training has no augmentation, and what is tested is what was trained on.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from data_prep.librispeech_prepare import prepare_librispeech
from mamba_speech.arguments import seconds, whole_number
from mamba_speech.audio.names import safe_streams
from mamba_speech.files import read_csv
from training.results import read_rows

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "LibriSpeech" / "ASR"


def choose(data_folder, split, count, min_seconds, folder):
    """Write a manifest of the utterances to memorise, and return its path.

    Raises
    ------
    SystemExit
        If the corpus cannot be read or has too few utterances of that length.
    """
    try:
        prepare_librispeech(data_folder, folder / "corpus", tr_splits=[split])
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    rows = [row for _, row in read_csv(folder / "corpus" / f"{split}.csv")[1]]
    rows.sort(key=lambda row: row["ID"])
    rows = [row for row in rows if float(row["duration"]) > min_seconds][:count]
    if len(rows) < count:
        raise SystemExit(
            f"{split} has {len(rows)} utterances over {min_seconds} s: lower --count or --min_seconds"
        )
    manifest = folder / "memorise.jsonl"
    entries = (
        {"id": r["ID"], "path": r["wav"], "text": r["wrd"], "speaker": r["spk_id"]} for r in rows
    )
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return manifest


def main():
    """Choose, train, and report the word error rate on the training speech."""
    safe_streams()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data_folder", required=True, help="LibriSpeech, or a corpus in its layout"
    )
    parser.add_argument("--split", default="train-clean-100")
    parser.add_argument("--count", type=whole_number(1, 1_000_000), default=40, help="utterances")
    parser.add_argument("--min_seconds", type=seconds, default=5.0, help="each is longer than this")
    parser.add_argument(
        "--number_of_epochs", "--epochs", type=whole_number(1, 1_000_000), default=60
    )
    parser.add_argument("--output_folder", type=Path, default=Path("results/memorise"))
    options, rest = parser.parse_known_args()
    folder = options.output_folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    manifest = choose(
        options.data_folder, options.split, options.count, options.min_seconds, folder
    )
    command = [
        sys.executable,
        str(RECIPE / "train_CTC.py"),
        str(RECIPE / "hparams/CTC/conmamba_mini.yaml"),
    ]
    command += ["--train_manifest", str(manifest), "--valid_manifest", str(manifest)]
    command += ["--test_manifests", f"[{manifest}]", "--output_folder", str(folder / "run")]
    command += [
        "--number_of_epochs",
        str(options.number_of_epochs),
        "--speed_perturb",
        "null",
        "--fea_augment",
        "null",
    ]
    command += ["--n_warmup_steps", "50", "--max_batch_length_train", "60", *rest]
    print(" ".join(command), flush=True)
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    result = read_rows(folder / "run")["memorise"]
    print(
        f"WER on the {options.count} utterances trained on: {result['WER']:.1f} % after "
        f"{result['optimizer_steps']} steps (goal: under 5 %); log, alignments and model in {folder / 'run'}"
    )


if __name__ == "__main__":
    main()

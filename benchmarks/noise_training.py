"""The trainings that noise.py compares: Mamba on mel and MFCC, a GRU and a DS-CNN of equal size, clean and under noise.

All have one training: batches, rate, steps, changes of the clips. What is heard in training is made: a seeded generator
and the made backgrounds of the spoken corpus. No recording of the tests is among it.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_prep.keywords.words import COMMANDS
from data_prep.spoken.speechcommands_layout import generate_speechcommands
from training.results import is_tested

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "SpeechCommands" / "KWS"
# 40 bands, 32 frames a second; every network has 0.37 million parameters
FRONT_END = {"n_mels": 40, "n_fft": 1024, "hop_length": 512}
FAMILIES = {
    "Mamba-Mel": ("mini", FRONT_END),
    "Mamba-MFCC": ("mamba_mfcc_small", FRONT_END | {"num_layers": 11}),
    "GRU": ("gru", FRONT_END),
    # with its published front-end: 10 features, 50 frames a second, and masks by that
    "DS-CNN": ("ds_cnn", {"d_model": 261, "freq_mask_max": 1, "time_mask_max": 9}),
}
SHARED = {
    "batch_size": 16,
    "weight_decay": 0.02,
    "warmup_fraction": 0.1,
    "lr_floor": 0.01,
    "max_grad_norm": 1.0,
    "label_smoothing": 0.05,
    "dropout": 0.05,
    "shift_ms": 120,
    "white_noise_max": 0.005,
    "freq_mask_max": 4,
    "time_mask_max": 6,
    "num_workers": 0,
    "number_of_epochs": 1000,
    "verify": "header",
}
# each network's learning rate is its own recipe's
RATES = {"Mamba-Mel": 0.005, "Mamba-MFCC": 0.005, "GRU": 0.003, "DS-CNN": 0.003}
CLEAN, NOISE = "clean", "noise"
TRAININGS = {
    CLEAN: {"background_probability": 0},
    NOISE: {"background_probability": 0.5, "background_snr": "[-5,20]", "mean_norm": True},
}
WORDS_ALONE = {"unknown_percentage": 0, "silence_percentage": 0}
# by corpus: options of its data, and part of the noises that is generated (the wake words have no backgrounds)
CORPORA = {
    "spoken": (
        {"split": "lists", "words": ",".join(COMMANDS), "n_classes": len(COMMANDS)},
        {"background_generated": 0.5},
    ),
    "wake_words": (
        {"split": "auto", "words": "all", "n_classes": 6, "clip_seconds": 1.5}
        | {"speed_changes": "[80,90,100,110,120]"},
        {"background_generated": 1},
    ),
}
VOICES = 128


def make_corpus(folder):
    """The ten commands by 128 voices for training, 7 for validation and 16 for the test; made if it is not there."""
    return generate_speechcommands(folder, voices=VOICES, words=COMMANDS, other_speech_minutes=0)


def command(corpus, family, training, seed, steps, data, runs):
    """The command of one training.

    Arguments
    ---------
    corpus, family, training : str
        Keys of ``CORPORA``, ``FAMILIES`` and ``TRAININGS``.
    seed, steps : int
    data : str or Path
        The corpus.
    runs : str or Path
        Folder of the runs; this one is FAMILY/TRAINING/SEED in its folder of the corpus.

    Returns
    -------
    (list of str, Path)
        The command, and its output folder.
    """
    yaml, own = FAMILIES[family]
    told, noise = CORPORA[corpus]
    folder = Path(runs) / corpus / family / training / str(seed)
    options = SHARED | {"lr": RATES[family]} | own | WORDS_ALONE | told | TRAININGS[training]
    if training == NOISE:
        options |= noise
    options |= {"optimizer_step_limit": steps, "seed": seed}
    options |= {"data_folder": data, "output_folder": folder}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    script = os.path.relpath(RECIPE / "train.py")
    recipe = os.path.relpath(RECIPE / "hparams" / f"{yaml}.yaml")
    return [sys.executable, script, recipe, *arguments, "--noprogressbar"], folder


def train_all(corpora, families, trainings, seeds, steps, runs, jobs=1):
    """Train what is not trained yet.

    Arguments
    ---------
    corpora : dict of str to Path
        Folder of each corpus.
    families, trainings : list of str
    seeds : list of int
    steps : int
    runs : str or Path
    jobs : int
        Trainings at a time.

    Raises
    ------
    SystemExit
        If a training fails; its log is named.
    """
    plan = [
        command(corpus, family, training, seed, steps, data, runs)
        for corpus, data in corpora.items()
        for seed in seeds
        for training in trainings
        for family in families
    ]
    plan = [one for one in plan if not is_tested(one[1])]
    with ThreadPoolExecutor(jobs) as pool:
        for number, _ in enumerate(pool.map(lambda one: _train(*one), plan), start=1):
            print(f"trained {number} of {len(plan)}", file=sys.stderr)


def _train(line, folder):
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "training.log"
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(line, check=False, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(f"the training of {folder} failed: see {log}")

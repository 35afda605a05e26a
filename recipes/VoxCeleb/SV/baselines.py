#!/usr/bin/env python3
"""Score trial lists by systems that need no training here: statistics of MFCC, and Resemblyzer's voice encoder.

    python baselines.py --trials veri_test2.txt --data_folder libri_voxceleb

The statistics are normalised over the recordings of the list. Resemblyzer is scored if its package is installed.
"""

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import torch
from score import read_list
from score_record import ListFigures
from teachers import read_voice_encoder
from torchaudio.transforms import MFCC
from trial_lists import score as cosines

from mamba_speech.arguments import seed, whole_number
from mamba_speech.audio import load_audio
from mamba_speech.evaluation.tables import as_text
from mamba_speech.files import error_text
from modules.speaker.resemblyzer import SAMPLE_RATE, VoiceEncoder
from training.script import script

logger = logging.getLogger(__name__)


def parse_arguments(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="baselines.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--trials", nargs="+", required=True, metavar="LIST", help="trial lists, as of score.py")
    add("--data_folder", nargs="+", type=Path, required=True, help="folders of the recordings")
    add("--no_speakers", action="store_true", help="the folders in the lists are no speakers")
    add(
        "--resamples",
        type=whole_number(100, 10_000_000),
        default=1000,
        help="draws of the bootstrap (default: 1000)",
    )
    add("--seed", type=seed, default=0, help="seed of the bootstrap (default: 0)")
    return parser.parse_args(arguments)


def mfcc_statistics(wavs):
    """Mean and deviation of 20 MFCC of each recording, normalised over the recordings: (recordings, 40)."""
    options = {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 40}
    transform = MFCC(SAMPLE_RATE, n_mfcc=20, melkwargs=options)
    cepstra = [transform(wav) for wav in wavs]
    rows = np.stack([torch.cat([one.mean(1), one.std(1)]).numpy() for one in cepstra])
    return (rows - rows.mean(0)) / rows.std(0)


def load_voice_encoder():
    """Resemblyzer's voice encoder, or ``None`` if the package is not installed."""
    try:
        encoder = VoiceEncoder()
        encoder.load_state_dict(read_voice_encoder())
        return encoder.eval()
    except FileNotFoundError as error:
        logger.warning("%s", error)
        return None


@script
def main(arguments=None):
    """Score the lists, and print a table."""
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        print(as_text(score(options)))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error_text(error)}")


@torch.inference_mode()
def score(options):
    """Lines of the table, for each list and system.

    Raises
    ------
    OSError or ValueError
        If a list or a recording cannot be used.
    """
    encoder, lines = load_voice_encoder(), []
    for name in options.trials:
        own = read_list(name, options)
        wavs = [load_audio(path, SAMPLE_RATE) for path in own.trials.paths]
        systems = {"MFCC statistics": mfcc_statistics(wavs)}
        if encoder is not None:
            systems["Resemblyzer"] = np.stack([encoder(wav[None])[0].numpy() for wav in wavs])
        scores = {system: cosines(own.trials, vectors) for system, vectors in systems.items()}
        drawing = {"resamples": options.resamples, "seed": options.seed}
        lines += ListFigures(own.trials, scores, own.speakers, **drawing).table(own.trials.name)
    return lines


if __name__ == "__main__":
    main()

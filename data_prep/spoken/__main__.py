"""Command line of the spoken corpora: `python -m data_prep.spoken OUTPUT_FOLDER [options]`."""

import argparse
import logging
import sys

from data_prep.spoken.librispeech_layout import DEFAULT_TRAIN_VOICES, generate_librispeech
from data_prep.spoken.voices import available_languages


def parse_arguments(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.spoken",
        description="Speak a small corpus with eSpeak NG, in LibriSpeech's layout. "
        "Running the same command again does nothing.",
    )
    parser.add_argument("output_folder", help="where the corpus shall stand")
    parser.add_argument("--hours", type=float, default=1.0, help="speech for training")
    parser.add_argument("--dev_minutes", type=float, default=4.0, help="0: no such split")
    parser.add_argument("--test_minutes", type=float, default=6.0, help="0: no such split")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--language", choices=available_languages(), default="en")
    parser.add_argument(
        "--noise",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="add noise and mild reverberation",
    )
    parser.add_argument(
        "--train_voices", type=int, help=f"default: {DEFAULT_TRAIN_VOICES}, or all there are"
    )
    parser.add_argument("--workers", type=int, help="default: one for each processor")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a corpus made with other options"
    )
    return parser.parse_args(arguments)


def main(arguments=None):
    """Run the command line; bad options and failures end it with one line on stderr."""
    options = vars(parse_arguments(arguments))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        generate_librispeech(**options)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

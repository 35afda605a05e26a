"""Command line of the streams: `python -m data_prep.streams OUTPUT_FOLDER --words FOLDER --background FOLDER`."""

import argparse
import logging
import sys

from data_prep.streams.build import Settings, build_streams
from data_prep.streams.sources import PARTS
from mamba_speech.arguments import number, seed, whole_number


def main(arguments=None):
    """Run the command line; bad options and failures end it with one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.streams",
        description="Place the clips of words at random in other people's speech: OUTPUT_FOLDER/<part>/clean.flac, "
        "the same in noise as snr_<dB>.flac, and in events.json what is where, for `mamba-speech spot RUN FILE "
        "--evaluate events.json`. Running the same command again does nothing.",
    )
    parser.add_argument("output_folder", help="where the streams shall stand")
    parser.add_argument(
        "--words",
        required=True,
        metavar="FOLDER",
        help="clips <word>/<voice>_*.wav, as training takes them",
    )
    parser.add_argument(
        "--background",
        required=True,
        nargs="+",
        metavar="FOLDER",
        help="other speech by at least two speakers each, laid out as LibriSpeech or <speaker>/<file>",
    )
    parser.add_argument("--noise", metavar="FOLDER", help="noise recordings, for --snr")
    parser.add_argument(
        "--snr",
        type=number(-40, 80),
        nargs="+",
        default=[],
        help="dB between active speech and noise",
    )
    parser.add_argument(
        "--part", nargs="+", choices=PARTS, default=PARTS, help="which clips (default: both parts)"
    )
    parser.add_argument("--seed", type=seed, default=1, help="of places, pauses, levels and noise")
    parser.add_argument(
        "--data_seed",
        type=seed,
        default=1,
        help="of the draw of voices where the words have no lists, as in training",
    )
    parser.add_argument(
        "--clips_per_word", type=whole_number(1, 1_000_000), help="at most (default: all)"
    )
    parser.add_argument(
        "--minutes", type=number(0, 100_000, above=True), help="other speech at most (default: all)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace streams made with other options"
    )
    options = parser.parse_args(arguments)
    if options.snr and not options.noise:
        parser.error("--snr needs --noise FOLDER")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = Settings(
        options.words,
        tuple(options.background),
        options.noise,
        tuple(dict.fromkeys(options.snr)),
        options.seed,
        options.data_seed,
        options.clips_per_word,
        options.minutes,
    )
    try:
        build_streams(options.output_folder, settings, options.part, options.overwrite)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

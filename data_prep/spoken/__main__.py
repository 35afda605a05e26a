"""Command line of the spoken corpora: `python -m data_prep.spoken OUTPUT_FOLDER [options]`."""

import argparse
import inspect
import logging
import sys

from data_prep.spoken.librispeech_layout import DEFAULT_TRAIN_VOICES, generate_librispeech
from data_prep.spoken.speechcommands_layout import generate_speechcommands
from data_prep.spoken.stream_layout import STREAM_SPLITS, generate_stream
from data_prep.spoken.voices import available_languages
from data_prep.spoken.voxceleb_layout import generate_voxceleb
from mamba_speech.arguments import jobs, number, seed, whole_number

LAYOUTS = {
    "librispeech": generate_librispeech,
    "speechcommands": generate_speechcommands,
    "stream": generate_stream,
    "voxceleb": generate_voxceleb,
}


def parse_arguments(arguments=None):
    """Read the command line.

    Returns
    -------
    layout : str
        A key of `LAYOUTS`.
    options : dict
        Arguments of that function; options that were not given are not in it.
    """
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.spoken",
        description="Speak a small corpus with eSpeak NG: sentences in LibriSpeech's layout, words "
        "in that of Speech Commands, a long recording of sentences with keywords in it, or many "
        "voices in that of VoxCeleb. "
        "Running the same command again does nothing.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("output_folder", help="where the corpus shall stand")
    parser.add_argument("--layout", choices=LAYOUTS, default="librispeech")
    parser.add_argument("--seed", type=seed, help="default: 1234")
    parser.add_argument(
        "--noise",
        action=argparse.BooleanOptionalAction,
        help="add noise and mild reverberation (default: yes)",
    )
    parser.add_argument("--jobs", type=jobs, help="default: one for each processor")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a corpus made with other options"
    )
    group = parser.add_argument_group("librispeech")
    group.add_argument(
        "--hours", type=number(0, 100_000, above=True), help="speech for training (default: 1)"
    )
    group.add_argument(
        "--dev_minutes", type=number(0, 100_000), help="0: no such split (default: 4)"
    )
    group.add_argument(
        "--test_minutes", type=number(0, 100_000), help="0: no such split (default: 6)"
    )
    group.add_argument("--language", choices=available_languages(), help="default: en")
    group.add_argument(
        "--train_voices",
        type=whole_number(1, 1_000_000),
        help=f"default: {DEFAULT_TRAIN_VOICES}, or all there are",
    )
    group = parser.add_argument_group("speechcommands and voxceleb")
    group.add_argument(
        "--voices", type=whole_number(1, 1_000_000), help="voices for training (default: 64)"
    )
    group.add_argument("--test_voices", type=whole_number(1, 1_000_000), help="default: 16")
    group = parser.add_argument_group("speechcommands")
    group.add_argument(
        "--valid_voices", type=whole_number(1, 1_000_000), help="default: 7, all there are"
    )
    group.add_argument(
        "--repeats", type=whole_number(1, 1_000_000), help="clips of a word by a voice (default: 2)"
    )
    group.add_argument(
        "--noise_seconds",
        type=number(0, 100_000, above=True),
        help="of each background (default: 60)",
    )
    group.add_argument(
        "--other_speech_minutes",
        type=number(0, 100_000),
        help="of sentences without the words (default: 30)",
    )
    group.add_argument(
        "--near_misses",
        type=whole_number(0, 1000),
        help="words and phrases that sound like a word, so many of each, in the other speech (default: 0)",
    )
    group = parser.add_argument_group("stream")
    group.add_argument(
        "--minutes",
        type=number(0, 100_000, above=True),
        help="of speech without keywords (default: 30)",
    )
    group.add_argument("--keywords_per_minute", type=number(0, 1000, above=True), help="default: 6")
    group.add_argument(
        "--split",
        choices=STREAM_SPLITS,
        help="whose voices and sentences (default: test); settings are chosen on valid",
    )
    group = parser.add_argument_group("voxceleb")
    group.add_argument(
        "--sessions", type=whole_number(1, 1_000_000), help="of each voice (default: 4)"
    )
    group.add_argument(
        "--utterances", type=whole_number(1, 1_000_000), help="of each session (default: 4)"
    )
    group.add_argument(
        "--trials",
        type=whole_number(1, 1_000_000),
        help="in the trial list at most (default: 3000)",
    )
    group = parser.add_argument_group("speechcommands and stream")
    group.add_argument("--words", nargs="+", metavar="WORD", help="default: Speech Commands' 35")
    options = vars(parser.parse_args(arguments))
    layout = options.pop("layout")
    foreign = sorted(options.keys() - inspect.signature(LAYOUTS[layout]).parameters.keys())
    if foreign:
        parser.error(f"--layout {layout} has no option --{foreign[0]}")
    return layout, options


def main(arguments=None):
    """Run the command line; bad options and failures end it with one line on stderr."""
    layout, options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        LAYOUTS[layout](**options)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

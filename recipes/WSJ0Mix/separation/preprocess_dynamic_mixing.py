#!/usr/bin/env python3
"""The published name of `python -m data_prep.resample_speech`, with the published options.

    python preprocess_dynamic_mixing.py --input_folder wsj0/si_tr_s --output_folder wsj0_processed/si_tr_s

The files keep their names and levels, where the published script appends the peak and divides by it; dynamic
mixing draws the level anew either way, and takes the output of both.
"""

import argparse

from data_prep import resample_speech
from training.script import script


@script
def main():
    """Say the new name, and do what it does."""
    parser = argparse.ArgumentParser(description="see python -m data_prep.resample_speech --help")
    parser.add_argument("--input_folder", required=True)
    parser.add_argument("--output_folder", required=True)
    parser.add_argument("--fs", default="8000", help="Hz of the copies (default: 8000)")
    options = parser.parse_args()
    new = [options.input_folder, options.output_folder, "--sample_rate", options.fs]
    print("this is now: python -m data_prep.resample_speech " + " ".join(new))
    resample_speech.main(new)


if __name__ == "__main__":
    main()

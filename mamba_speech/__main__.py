"""`python -m mamba_speech COMMAND ...`, which is `mamba-speech COMMAND ...`."""

import sys

from mamba_speech.cli import main

if __name__ == "__main__":
    sys.exit(main())

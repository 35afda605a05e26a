"""Write the folder of odd inputs: `python -m tests.support.oddities FOLDER`."""

import sys
from pathlib import Path

from tests.support.oddities.folder import write_folder

if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tests.support.oddities FOLDER")
    print(len(write_folder(Path(sys.argv[1]))), "inputs")

#!/usr/bin/env python3
"""The published name of train.py, with the published paths of the YAML files.

    python train_wsj0mix.py hparams/WSJ0Mix/mambatasnet_XS.yaml --data_folder wsj0-mix/2speakers

The published names of the options work in train.py too. Source: the commands in the README of xi-j/Mamba-TasNet.
"""

import sys
from pathlib import Path

import train


def find_yaml(path):
    """The YAML here that a published path means, or the path itself where there is such a file.

    Arguments
    ---------
    path : str

    Returns
    -------
    str

    Example
    -------
    >>> Path(find_yaml("hparams/WSJ0Mix/mambatasnet_XS.yaml")).parts[-2:]
    ('hparams', 'mambatasnet_XS.yaml')
    """
    here = Path(__file__).parent / "hparams" / Path(path).name
    return str(here) if here.is_file() and not Path(path).is_file() else path


def main():
    """Say the new names once, then train."""
    changes = ["train_wsj0mix.py is train.py"]
    # options may precede the YAML
    for place, published in enumerate(sys.argv):
        if place and published.startswith("hparams/"):
            sys.argv[place] = find_yaml(published)
            if sys.argv[place] != published:
                changes.append(f"{published} is hparams/{Path(published).name}")
    print("; ".join(changes), file=sys.stderr)
    train.main()


if __name__ == "__main__":
    main()

"""What the recipes' Brains share: starting an experiment, its optimiser, checkpoints, random state and logs."""

from pathlib import Path

import modules
from training.quiet import drop_remarks

_home = Path(__file__).resolve().parent.parent
if Path(modules.__file__).resolve().parent.parent != _home:
    raise ImportError(
        f"another package named 'modules' ({modules.__file__}) hides the one in {_home}: remove it from PYTHONPATH, or "
        "run from another folder"
    )

drop_remarks()

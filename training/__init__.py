"""What the recipes' Brains share: starting an experiment, its optimiser, checkpoints, random state and logs."""

from pathlib import Path

import mamba_speech  # refuses a foreign `modules`
from training.quiet import drop_remarks

_home = Path(__file__).resolve().parent.parent
if Path(mamba_speech.__file__).resolve().parent.parent != _home:
    raise ImportError(
        f"another package named 'mamba_speech' ({mamba_speech.__file__}) hides {_home / 'mamba_speech'}: remove it "
        "from PYTHONPATH, uninstall it, or run from another folder"
    )

drop_remarks()

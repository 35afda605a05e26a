"""Splits of a run: of a YAML's own lists, a run takes what the corpus holds, and says so.

Few download all of LibriSpeech, so the large recipes name more splits than many a folder has. A list that the command
line gives stays as it is, and a split of it that is not there is an error.
"""

import logging
from pathlib import Path

from speechbrain.utils.distributed import if_main_process

from data_prep.librispeech_prepare import present_splits
from training.option_values import TRUE

logger = logging.getLogger(__name__)

# what a run does with each list
_USES = {"train_splits": "trains on", "dev_splits": "validates on", "test_splits": "tests on"}


class PresentSplits:
    """Narrows a YAML's lists of splits to the corpus, and tells the log about it."""

    def __init__(self):
        self._told = ""

    def narrow(self, values, given):
        """The lists that lack splits, without them.

        Arguments
        ---------
        values : dict
            Plain values of all options.
        given : dict of str: str
            Options of the command line.

        Returns
        -------
        dict of str: list of str
            See ``complete`` of :func:`training.experiment.load_experiment`.

        Raises
        ------
        SystemExit
            With one sentence, if the corpus has no split of a list that the run needs.
        """
        if not values["data_folder"] or values["train_manifest"] or values["test_manifests"]:
            return {}
        present = _present(values)
        lists = {name: _as_list(values[name]) for name in _USES if name not in given}
        missing = {
            name: [split for split in splits if split not in present]
            for name, splits in lists.items()
        }
        # an empty folder is no corpus; the preparation tells more about it
        if not present or not any(missing.values()):
            return {}
        testing = values["skip_train"] or given.get("test_only", "no").lower() in TRUE
        needed = ["test_splits"] if testing else ["train_splits", "dev_splits"]
        narrowed = {}
        for name, absent in missing.items():
            left = [split for split in lists[name] if split in present]
            if absent and not left and name in needed:
                raise SystemExit(
                    f"{values['data_folder']}: has none of --{name} {', '.join(absent)}; the splits there are "
                    f"{', '.join(sorted(present))}: name some of them"
                )
            if absent:
                narrowed[name] = left
        uses = {name: (values | narrowed)[name] for name in _USES if not testing or name in needed}
        absent = [split for name in uses for split in missing.get(name, [])]
        if absent:
            self._told = (
                f"{values['data_folder']} has no {', '.join(dict.fromkeys(absent))}: this run "
                + ", ".join(
                    f"{_USES[name]} {', '.join(_as_list(splits)) or 'nothing'}"
                    for name, splits in uses.items()
                )
            )
        return narrowed

    def tell(self):
        """Log once which splits are not there, and which are used."""
        if self._told and if_main_process():
            logger.warning("%s", self._told)


def _present(values):
    """Splits that a run can use: of the corpus, or of an earlier run's manifests if nothing is prepared."""
    if values["skip_prep"]:
        return {path.stem for path in Path(values["output_folder"]).glob("*.csv")}
    return set(present_splits(values["data_folder"]))


def _as_list(value):
    return [value] if isinstance(value, str) else list(value or [])

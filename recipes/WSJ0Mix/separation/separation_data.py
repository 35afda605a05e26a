"""The separation recipe's data: manifests of mixtures, data sets of waveforms, loaders.

Mixtures come from a tree in the layout of WSJ0-2mix, or are made while training from single speakers.
"""

import logging
from functools import partial
from pathlib import Path

from augmentation import AugmentedMixtures, MixtureAugmenter
from speechbrain.dataio.dataset import add_dynamic_item, set_output_keys
from speechbrain.utils.distributed import if_main_process

from data_prep.verify import FULL, SKIPPED_COLUMNS
from data_prep.wsj0mix_prepare import prepare_wsj0mix
from mamba_speech.audio import load_audio
from mamba_speech.audio.names import printable
from mamba_speech.files import write_csv
from training.manifests import open_manifest
from training.preparation import prepare_once

logger = logging.getLogger(__name__)

# the recordings that dynamic mixing cannot use, in the output folder
SKIPPED = "skipped_speech.csv"


def prepare_mixtures(hparams, training=True):
    """Write the manifests into the output folder.

    Arguments
    ---------
    hparams : dict
    training : bool
        Whether mixtures for training and validation are wanted besides the test's.

    Returns
    -------
    dict of str: Path
        Manifests by split.

    Raises
    ------
    SystemExit
        With one message, if the tree of mixtures cannot be used.
    """
    if not hparams["data_folder"]:
        raise SystemExit(
            "give --data_folder: a tree of mixtures with tr, cv and tt, such as wav8k/min of WSJ0-2mix; "
            "python -m data_prep.mixtures makes one of any recordings of single speakers"
        )
    splits = _wanted_splits(hparams, training)
    options = {key: hparams[key] for key in ("data_folder", "num_spks", "sample_rate", "mode")}
    options |= {"save_folder": hparams["output_folder"], "splits": splits}
    options |= {"check_sum": hparams["check_sum"], "verify": hparams.get("verify", FULL)}
    try:
        return prepare_once(prepare_wsj0mix, options, splits, hparams["skip_prep"])
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


def _wanted_splits(hparams, training):
    if not training:
        return ("test",)
    # with a length of its own, dynamic mixing asks nothing of the mixtures to train on
    if hparams["dynamic_mixing"] and hparams["epoch_mixtures"]:
        return ("valid", "test")
    return ("train", "valid", "test")


def make_datasets(hparams, found, training=True):
    """Data sets that yield ``id``, ``mix_sig``, ``s1_sig``, ``s2_sig``, ... (waveforms) and ``samples``.

    Arguments
    ---------
    hparams : dict
    found : dict of str: Path
        Of :func:`prepare_mixtures`.
    training : bool

    Returns
    -------
    (torch.utils.data.Dataset or None, DynamicItemDataset or None, DynamicItemDataset)
        To train on, with ``set_epoch``; to validate; to test.

    Raises
    ------
    SystemExit
        If an option is outside its range, or the folder of dynamic mixing cannot be used.
    """
    names = [f"s{number + 1}" for number in range(hparams["num_spks"])]
    columns = [f"{name}_wav" for name in ("mix", *names)]
    sets = {split: open_manifest(path, columns) for split, path in found.items()}
    rate, everywhere = hparams["sample_rate"], list(sets.values())
    read_mixture = partial(_read_and_count, sample_rate=rate)
    add_dynamic_item(everywhere, read_mixture, ["mix_wav"], ["mix_sig", "samples"])
    for name in names:
        read_source = partial(load_audio, sample_rate=rate)
        add_dynamic_item(everywhere, read_source, [f"{name}_wav"], [f"{name}_sig"])
    waveforms = [f"{signal}_sig" for signal in ("mix", *names)]
    set_output_keys(everywhere, ["id", *waveforms, "samples"])
    if not training:
        return None, None, sets["test"]
    try:
        train = _training_set(hparams, sets.get("train"))
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    return train, sets["valid"], sets["test"]


def _read_and_count(wav, sample_rate):
    """A recording (samples,) and its length."""
    waveform = load_audio(wav, sample_rate)
    return waveform, len(waveform)


def _training_set(hparams, mixtures):
    """Static mixtures or dynamic ones, with what changes them."""
    speeds = hparams["speed_changes"] if hparams["use_speedperturb"] else None
    shifts = (hparams["min_shift"], hparams["max_shift"]) if hparams["use_rand_shift"] else None
    longest = hparams["training_signal_len"] if hparams["limit_training_signal_len"] else None
    if hparams["dynamic_mixing"]:
        mixtures = _dynamic_mixtures(hparams, hparams["epoch_mixtures"] or len(mixtures))
        # it has changed the speeds already, of speech that it can draw more of
        speeds = None
    augment = MixtureAugmenter(hparams["sample_rate"], speeds, shifts, longest)
    return AugmentedMixtures(mixtures, hparams["num_spks"], augment, hparams["seed"])


def _dynamic_mixtures(hparams, length):
    from dynamic_mixing import DynamicMixingDataset

    if not hparams["base_folder_dm"]:
        raise ValueError(
            "--dynamic_mixing needs --base_folder_dm: a folder with a folder of recordings for every speaker to "
            "train on"
        )
    mixtures = DynamicMixingDataset(
        base_folder=hparams["base_folder_dm"],
        num_spks=hparams["num_spks"],
        sample_rate=hparams["sample_rate"],
        length=length,
        training_signal_len=hparams["training_signal_len"],
        seed=hparams["seed"],
        speed_changes=hparams["speed_changes"],
        use_speedperturb=hparams["use_speedperturb"],
        loudness=hparams["loudness"],
    )
    if if_main_process():
        _list_skipped(mixtures, Path(hparams["output_folder"]) / SKIPPED)
    return mixtures


def _list_skipped(mixtures, path):
    """List the recordings that dynamic mixing cannot use; a list of an earlier start goes where all can be used."""
    if not mixtures.skipped:
        path.unlink(missing_ok=True)
        return
    rows = (
        (printable(Path(one).stem), printable(one), reason)
        for one, reason in mixtures.skipped.items()
    )
    write_csv(path, SKIPPED_COLUMNS, rows)
    logger.info("the recordings that cannot be mixed are listed in %s", path)

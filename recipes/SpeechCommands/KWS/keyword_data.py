"""The keyword recipe's data: manifests of clips, their labels, data sets and loaders.

The corpus is Speech Commands, any folder of word folders, or Free Spoken Digits with a speaker left out.
"""

import logging

from classes import keep_labels, listed_words, refuse_other_labels, trained_labels
from hard_negatives import recordings_of
from other_data import is_other_data, prepare_other_data
from silence import SilenceSource
from speechbrain.core import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.distributed import run_on_main
from waveforms import ChangedClipReader, ClipAugmenter, ClipReader, ContextBatch, ContextSource

from data_prep.free_spoken_digits_prepare import prepare_free_spoken_digits
from data_prep.keywords.clips import COLUMNS, NOISE_PARTS, OTHER_SPEECH
from data_prep.speechcommands_prepare import prepare_speechcommands
from data_prep.verify import FULL
from mamba_speech.audio import AudioError, load_audio
from mamba_speech.files import read_json, write_json
from training.loading import loader_options
from training.manifests import open_manifest
from training.preparation import prepare_once
from training.provenance import hash_list

logger = logging.getLogger(__name__)


def prepare_clips(hparams, training=True):
    """Write the manifests and the labels into the output folder.

    Arguments
    ---------
    hparams : dict
    training : bool
        Whether the run trains. One that does not needs a test alone, if ``data_folder`` is not what it was trained on.

    Returns
    -------
    (dict, list of str)
        What :func:`data_prep.speechcommands_prepare.prepare_speechcommands` found: paths of the manifests
        ``train``, ``valid`` and ``test``, and of the ``noise`` recordings; and the classes in the order of
        the model's outputs.

    Raises
    ------
    SystemExit
        With one message, if the corpus cannot be used, its classes are not as many as the model's outputs,
        or a trained run's classes would change under it.
    """
    if not hparams["data_folder"]:
        raise SystemExit("give --data_folder: Speech Commands, or a folder of word folders")
    _check_features(hparams)
    trained = [] if training else trained_labels(hparams["labels_file"])
    if trained and is_other_data(hparams):
        return prepare_other_data(hparams, trained), trained
    needed = ("train", "valid", "test", "labels")
    try:
        found = prepare_once(*_preparation(hparams), needed, hparams["skip_prep"])
        labels = read_json(found["labels"])
        refuse_other_labels(labels, hparams["labels_file"])
        if len(labels) != hparams["n_classes"]:
            raise ValueError(
                f"{hparams['data_folder']}: its {len(labels)} classes ({', '.join(labels)}) need a model of as "
                f"many outputs: set --n_classes {len(labels)}"
            )
        run_on_main(keep_labels, args=(labels, hparams["labels_file"]))
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    return found, labels


def _check_features(hparams):
    """Refuse features of another size than the network takes."""
    given, taken = (
        hparams["compute_features"].n_features,
        getattr(hparams["model"], "feature_dim", None),
    )
    if taken not in (None, given):
        raise SystemExit(
            f"--kind {hparams['kind']} gives {given} features a frame, and the network of this YAML takes {taken}: set "
            "--n_mels and --n_mfcc to one number, or take another YAML"
        )


def _preparation(hparams):
    """The function that prepares the corpus, and its arguments."""
    options = {
        "data_folder": hparams["data_folder"],
        "save_folder": hparams["output_folder"],
        "clip_seconds": hparams["clip_seconds"],
        "verify": hparams.get("verify", FULL),
    }
    if hparams["test_speaker"]:
        speakers = {key: hparams[key] for key in ("test_speaker", "valid_speaker")}
        return prepare_free_spoken_digits, options | speakers
    options |= {
        "version": hparams["version"],
        "n_classes": listed_words(hparams["words"]) or hparams["n_classes"],
        "split": hparams["split"],
        "unknown_percentage": hparams["unknown_percentage"],
        "silence_percentage": hparams["silence_percentage"],
        "seed": hparams["data_seed"],
        "other_speech": hparams["other_speech"],
        "other_speech_percentage": hparams["other_speech_percentage"],
        "background": hparams["background"],
        "spoken_voices": hparams["spoken_voices"],
    }
    return prepare_speechcommands, options


def keep_clips(found, folder):
    """Note beside the checkpoints which clips a run is trained and validated on; where they lie does not matter.

    Arguments
    ---------
    found : dict
        Paths of the manifests ``train`` and ``valid``.
    folder : Path
        Of the checkpoints.

    Raises
    ------
    SystemExit
        If the checkpoints there come of other clips: their result would be told of these.
    """
    try:
        now = {name: hash_list(found[name]) for name in ("train", "valid")}
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    record = folder / "clips.json"
    if record.is_file() and any(folder.glob("CKPT*")):
        before = read_json(record)
        changed = [name for name in now if before.get(name) != now[name]]
        if changed:
            raise SystemExit(
                f"{folder}: the model there was trained with other clips ({' and '.join(changed)} changed): give "
                "another --output_folder, or the data that the run was started with; --test_only tests it on these"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, now)


def make_datasets(hparams, found, labels, training=True, hard=None):
    """Data sets that yield ``id``, ``sig`` (waveform), ``samples``, ``target`` (class index) and ``wav``.

    The one for training also yields ``context``, how many of these samples are heard before the clip itself, and
    ``chance``, which :class:`waveforms.ContextBatch` decides by.

    Arguments
    ---------
    hparams : dict
    found : dict
        Of :func:`prepare_clips`.
    labels : list of str
    training : bool
        Whether training and validation clips are wanted.
    hard : hard_negatives.HardNegatives, optional
        Source of some of training's other speech. Its recordings are set to the training set's.

    Returns
    -------
    (DynamicItemDataset or None, DynamicItemDataset or None, DynamicItemDataset)

    Raises
    ------
    SystemExit
        If an option of the augmentation or the context is outside its range, or a noise recording cannot be read.
    """
    names = ("train", "valid", "test") if training else ("test",)
    sets = {name: open_manifest(found[name], COLUMNS[2:]) for name in names}
    index = {label: number for number, label in enumerate(labels)}
    rate = hparams["sample_rate"]
    longest = round(hparams["clip_seconds"] * rate)
    if training:
        if hard is not None:
            hard.recordings = recordings_of(sets["train"])
        changes = _make_changes(hparams, found["noise"], sets["train"], hard)

    read = ClipReader(rate, longest, pad=hparams["pad_clips"])
    for name, dataset in sets.items():
        if name == "train":
            read_changed = ChangedClipReader(read, *changes)
            keys = ["sig", "samples", "context", "chance"]
            taken = ["wav", "start", "stop", "label", "words"]
            dataset.add_dynamic_item(read_changed, taken, keys)
        else:
            keys = ["sig", "samples"]
            dataset.add_dynamic_item(read, ["wav", "start", "stop"], keys)
        # a dictionary's own method can be pickled, for the loader's workers
        dataset.add_dynamic_item(index.__getitem__, ["label"], ["target"])
        dataset.set_output_keys(["id", *keys, "target", "wav"])
    if training:
        repeat_rare_words(sets["train"], hparams["balance"])
    return sets.get("train"), sets.get("valid"), sets["test"]


def repeat_rare_words(dataset, most):
    """Let clips of rare words be heard several times in an epoch, each time changed in another way.

    Arguments
    ---------
    dataset : DynamicItemDataset
        Of training; changed in place.
    most : int
        Times that a clip is heard at most. No word is heard more often than the most frequent one.
    """
    counts = {
        label: count for label, count in classes_of(dataset).items() if not label.startswith("_")
    }
    if most == 1 or not counts:
        return
    times = {label: min(most, max(counts.values()) // count) for label, count in counts.items()}
    labels = {key: dataset.data[key]["label"] for key in dataset.data_ids}
    dataset.data_ids = [key for key, label in labels.items() for _ in range(times.get(label, 1))]


def _make_changes(hparams, noise_paths, train, hard):
    """What changes training clips, precedes them, makes silences and gives other speech, ``None`` for none."""
    rate = hparams["sample_rate"]
    try:
        speech = _other_speech(train) if hparams["context_seconds"] else []
        recorded = hparams["background_probability"] > 0 and hparams["background_generated"] < 1
        wanted = recorded or (hparams["context_seconds"] and not speech)
        noises = _read_noises(noise_paths, rate) if wanted else []
        augment = ClipAugmenter(
            rate,
            shift_ms=hparams["shift_ms"],
            speed_changes=hparams["speed_changes"],
            white_noise_max=hparams["white_noise_max"],
            background_probability=hparams["background_probability"],
            background_snr=hparams["background_snr"],
            background_generated=hparams["background_generated"],
            reverberation_probability=hparams["reverberation_probability"],
            gain_db=hparams["gain_db"],
            noises=noises,
        )
        silence = None
        if hparams["computed_silence"] or any(hparams["silence_db"]):
            changes = hparams["silence_db"]
            silence = SilenceSource(rate, hparams["computed_silence"], changes, hard)
        if not hparams["context_seconds"]:
            return augment, None, silence, hard
        hop = hparams["compute_features"].hop_length * hparams["model"].subsampling
        seconds, pause = hparams["context_seconds"], hparams["context_pause"]
        context = ContextSource(rate, seconds, hop, speech, noises, hard, pause)
        return augment, context, silence, hard
    except (AudioError, ValueError) as error:
        raise SystemExit(str(error)) from error


def _read_noises(paths, rate):
    """The training parts of the noise recordings; one that can no longer be read is named and passed over.

    Raises
    ------
    AudioError
        If none can be read.
    """
    noises, failed = [], None
    for path in paths:
        try:
            noises.append(_training_part(load_audio(path, rate)))
        except AudioError as error:
            failed = error
            logger.warning("%s; its noise is not heard in training", error)
    if failed is not None and not noises:
        raise failed
    return noises


def _other_speech(train):
    """Pieces of other speech among the training clips: file, first sample, end, seconds."""
    rows = (train.data[key] for key in train.data_ids)
    return [
        (row["wav"], int(row["start"]), int(row["stop"]), row["duration"])
        for row in rows
        if row["words"] == OTHER_SPEECH
    ]


def _training_part(noise):
    """The part of a noise recording that no silence of validation or test is cropped from."""
    first, last = (round(end * len(noise)) for end in NOISE_PARTS["train"])
    return noise[first:last]


def training_options(hparams):
    """The options of the training loader.

    Arguments
    ---------
    hparams : dict

    Returns
    -------
    dict

    """
    collate = PaddedBatch
    if hparams["context_seconds"]:
        epochs, first = hparams["epoch_counter"], hparams["context_from_epoch"]
        collate = ContextBatch(hparams["context_silence"], epochs, first)
    return loader_options(hparams, Stage.TRAIN, collate=collate, drop_last=hparams["drop_last"])


def classes_of(dataset):
    """How many clips of each class a data set holds, by class."""
    labels = (dataset.data[key]["label"] for key in dataset.data_ids)
    counts = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    return counts

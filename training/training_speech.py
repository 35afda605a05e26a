"""Whether a model has been trained on generated speech alone, for the record of its run and beside its checkpoints."""

from pathlib import Path

from mamba_speech.files import read_csv, write_json
from mamba_speech.synthetic import NOTE_FILE, all_synthetic, heard_only_synthetic

# options that name a model whose weights a training begins with, or which it learns from
MODELS = ("pretrained_model", "pretrained_separator", "ssl_source", "teacher")


def only_synthetic(brain, before=None):
    """Whether all that the model of a Brain has learnt from is generated speech.

    Arguments
    ---------
    brain : training.brain.RecipeBrain
    before : training.results.Training, optional
        Record of the training that goes on.

    Returns
    -------
    bool or None
        None where nothing tells.
    """
    found = [all_synthetic(_recordings(brain))]
    if before is not None and before.sessions:
        found.append(before.synthetic)
    for name in MODELS:
        source = getattr(brain.hparams, name, None)
        if source is not None:
            # of a model from elsewhere, nothing says that it is synthetic
            found.append(heard_only_synthetic(source) is True)
    if False in found:
        return False
    return None if None in found else True


def note_beside_checkpoints(brain, synthetic):
    """Write the fact into the folder of the checkpoints, for copies that lack the run's record."""
    folder = getattr(brain.hparams, "save_folder", None)
    if folder is not None and synthetic is not None:
        write_json(Path(folder) / NOTE_FILE, {"synthetic": synthetic})


def _recordings(brain):
    """Recordings of the training's list, and of the folder that dynamic mixing draws from."""
    listed = brain.lists.get("train")
    if isinstance(listed, Path) and listed.suffix == ".csv" and listed.is_file():
        for _, row in read_csv(listed)[1]:
            yield from (
                cell
                for name, cell in row.items()
                if cell and (name == "wav" or name.endswith("_wav"))
            )
    mixed = getattr(brain.hparams, "base_folder_dm", None)
    if mixed:
        yield Path(mixed) / "recording"

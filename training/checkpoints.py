"""Checkpoints that a killed process cannot leave half written, and the random state that a resumed run needs."""

import os
import random
import shutil
from functools import partial

import numpy
import torch
import yaml
from speechbrain.utils.checkpoints import (
    CKPT_PREFIX,
    METAFNAME,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import ddp_barrier, get_rank, if_main_process

from mamba_speech.checkpoints import CompleteCheckpoints, is_complete

_PARTIAL = ".partial"


class AtomicCheckpointer(CompleteCheckpoints):
    """SpeechBrain's Checkpointer, with the meta file, which makes a folder a checkpoint, written last.

    A folder whose saving or deleting was cut short is never loaded, and is removed when training starts.
    Arguments are those of :class:`speechbrain.utils.checkpoints.Checkpointer`.
    """

    def remove_incomplete(self):
        """Remove what a killed run left; only for a run about to train, since another may be saving."""
        if if_main_process():
            for folder in self.checkpoints_dir.glob(f"{CKPT_PREFIX}*"):
                if folder.is_dir() and not is_complete(folder):
                    shutil.rmtree(folder)

    def save_checkpoint(self, *arguments, **options):
        """Save; see SpeechBrain's method of the same name."""
        checkpoint = super().save_checkpoint(*arguments, **options)
        # every process has written its files before the checkpoint counts
        ddp_barrier()
        if checkpoint is not None:
            partial = checkpoint.path / (METAFNAME + _PARTIAL)
            meta = yaml.safe_load(partial.read_text(encoding="utf-8"))
            meta["files"] = sorted(path.name for path in checkpoint.path.glob("*.ckpt"))
            partial.write_text("# yamllint disable\n" + yaml.dump(meta), encoding="utf-8")
            os.replace(partial, checkpoint.path / METAFNAME)
        # ... and it counts for all of them at once: what is deleted next is chosen by each from what it sees, and with
        # other choices they wait for each other for ever
        ddp_barrier()
        return checkpoint

    def _save_checkpoint_metafile(self, fpath, meta_to_include=None, end_of_epoch=True):
        return super()._save_checkpoint_metafile(
            fpath.with_name(fpath.name + _PARTIAL), meta_to_include or {}, end_of_epoch
        )


@partial(register_checkpoint_hooks, save_on_main_only=False)
class RandomState:
    """The state of Python's, NumPy's and torch's generators, as a recoverable of a Checkpointer.

    Without it a resumed run draws other augmentations and dropout masks than one that was never
    interrupted. Every process of a distributed run has a file of its own.
    """

    @mark_as_saver
    def save(self, path):
        """Write the state to ``path``."""
        version, words, gauss = random.getstate()
        name, keys, position, has_gauss, cached = numpy.random.get_state()
        state = {
            "python": (version, list(words), gauss),
            "numpy": (name, torch.from_numpy(keys.astype("int64")), position, has_gauss, cached),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        torch.save(state, _of_rank(path))

    @mark_as_loader
    def load(self, path, end_of_epoch=False):
        """Set the generators to the state in ``path``; a rank that saved none keeps its own."""
        del end_of_epoch
        path = _of_rank(path)
        if not os.path.exists(path):
            return
        state = torch.load(path, weights_only=True)
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        name, keys, position, has_gauss, cached = state["numpy"]
        numpy.random.set_state((name, keys.numpy().astype("uint32"), position, has_gauss, cached))
        torch.set_rng_state(state["torch"])
        if len(state["cuda"]) == torch.cuda.device_count() and state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])


def _of_rank(path):
    rank = get_rank() or 0
    path = os.fspath(path)
    return path if rank == 0 else path.removesuffix(".ckpt") + f".rank{rank}.ckpt"

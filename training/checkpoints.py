"""Checkpoints that a killed process cannot leave half written, and that a damaged disk cannot pass off as whole."""

import contextlib
import logging
import os
import random
import shutil
from functools import partial

import numpy
import torch
import yaml
from speechbrain.utils.checkpoints import (
    DEFAULT_SAVE_HOOKS,
    METAFNAME,
    PARAMFILE_EXT,
    ckpt_recency,
    get_default_hook,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import ddp_barrier, ddp_broadcast, get_rank, if_main_process

from mamba_speech.checkpoint_files import (
    DAMAGED,
    UNFINISHED,
    DamagedFile,
    check_file,
    is_torn,
    list_folders,
)
from mamba_speech.checkpoints import CompleteCheckpoints, read_tensors
from mamba_speech.files import naming_file, sync_folder
from mamba_speech.plain_yaml import cut
from training import run_lock
from training.sealing import Sealing

logger = logging.getLogger("speechbrain.utils.checkpoints")

# before the name of a checkpoint that is being deleted
_DELETED = "deleted-"
# how the files begin that torch writes now, and that it wrote before version 1.6
_TORCH_FILES = (b"PK", b"\x80\x02")
# parts of torch's messages about a state that does not fit
MISMATCHES = ("Error(s) in loading state_dict", "parameter group", "doesn't match the size")


class AtomicCheckpointer(CompleteCheckpoints):
    """SpeechBrain's Checkpointer for runs that survive kills, full disks and damaged files.

    - Every file reaches the disk before the meta file, which makes a folder a checkpoint. The meta file holds sizes
      and checksums.
    - A folder whose saving or deleting was cut short is never loaded. Training removes it.
    - A damaged checkpoint is set aside under another name, and the next whole one is taken.
    - A checkpoint is newer than all before it, also after a clock was set back.

    It takes the arguments of :class:`speechbrain.utils.checkpoints.Checkpointer`.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        # whose lock a process needs that sets something aside
        self.run_folder = self.checkpoints_dir

    def remove_incomplete(self):
        """Remove what a killed run left; only for a run about to train, since another may be saving."""
        if if_main_process():
            torn = [folder for folder in list_folders(self.checkpoints_dir) if is_torn(folder)]
            for folder in [*torn, *self.checkpoints_dir.glob(f"{_DELETED}*")]:
                shutil.rmtree(folder)
        ddp_barrier()

    def save_checkpoint(self, meta=None, end_of_epoch=True, name=None, verbosity=logging.INFO):
        """Save; see SpeechBrain's method of the same name.

        Raises
        ------
        OSError
            If a file cannot be written. The checkpoints before are as they were.
        """
        custom, recoverables = self.custom_save_hooks, self.recoverables
        before = set(list_folders(self.checkpoints_dir))
        with Sealing() as sealing:
            hooks = {
                one: partial(self._save_one, one, custom.get(one), sealing)
                for one in self.recoverables
            }
            try:
                self.custom_save_hooks = hooks
                # the largest file first: the others are written while it goes to the disk
                self.recoverables = dict(sorted(recoverables.items(), key=_optimizer_first))
                checkpoint = super().save_checkpoint(meta or {}, end_of_epoch, name, logging.NOTSET)
                # every process has written its files before the checkpoint counts
                ddp_barrier()
                if checkpoint is not None:
                    checkpoint = self._finish(checkpoint, sealing)
            except BaseException:
                if if_main_process():
                    for folder in set(list_folders(self.checkpoints_dir)) - before:
                        # on a full disk its space is wanted
                        shutil.rmtree(folder, ignore_errors=True)
                raise
            finally:
                self.custom_save_hooks, self.recoverables = custom, recoverables
        if checkpoint is not None:
            kind = "end-of-epoch" if end_of_epoch else "intra-epoch"
            logger.log(verbosity, "Saved an %s checkpoint in %s", kind, checkpoint.path)
        # ... and it counts for all of them at once: what is deleted next is chosen from what is there
        ddp_barrier()
        return checkpoint

    def _save_one(self, name, hook, sealing, obj, path):
        hook = hook or get_default_hook(obj, DEFAULT_SAVE_HOOKS)
        if hook is None:
            raise RuntimeError(f"{name}: a {type(obj).__name__} cannot be saved")
        with naming_file(path):
            hook(obj, path)
        if if_main_process() and path.exists():
            sealing.add(path)

    def _finish(self, checkpoint, sealing):
        """Write the meta file with the facts of all files, also from other processes."""
        folder = checkpoint.path
        for path in folder.glob(f"*{PARAMFILE_EXT}"):
            sealing.add(path)
        meta = checkpoint.meta | {"files": sealing.facts()}
        partial_file, file = folder / (METAFNAME + UNFINISHED), folder / METAFNAME
        with naming_file(file), open(partial_file, "w", encoding="utf-8") as opened:
            opened.write("# yamllint disable\n" + yaml.dump(meta))
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(partial_file, file)
        sync_folder(folder)
        sync_folder(self.checkpoints_dir)
        return checkpoint._replace(meta=meta)

    def _save_checkpoint_metafile(self, fpath, meta_to_include=None, end_of_epoch=True):
        """Write the meta file under its unfinished name, with a time later than of all checkpoints there."""
        path = fpath.with_name(fpath.name + UNFINISHED)
        with naming_file(fpath):
            meta = super()._save_checkpoint_metafile(path, meta_to_include or {}, end_of_epoch)
        newest = max(map(ckpt_recency, self.list_checkpoints()), default=0)
        if meta["unixtime"] <= newest:
            # a step that a float of this size still tells
            meta["unixtime"] = newest + 0.001
        return meta

    def delete_checkpoints(
        self,
        *,
        num_to_keep=1,
        min_keys=None,
        max_keys=None,
        importance_keys=(ckpt_recency,),
        ckpt_predicate=None,
        verbosity=logging.INFO,
    ):
        """Delete the least important checkpoints, each at once; see SpeechBrain's method of the same name."""
        orders = [{"min_key": key} for key in min_keys or ()]
        orders += [{"max_key": key} for key in max_keys or ()]
        orders += [{"importance_key": key} for key in importance_keys]
        self._keep([(order, num_to_keep) for order in orders], ckpt_predicate, verbosity)

    def keep_checkpoints(self, orders, ckpt_predicate=None):
        """Delete all checkpoints but the foremost of each order.

        Arguments
        ---------
        orders : list of (callable or None, int)
            Importance key of an order, by default the time, and the number of checkpoints that are kept by it.
        ckpt_predicate : callable, optional
            Which checkpoints may be deleted.
        """
        self._keep([({"importance_key": key}, n) for key, n in orders], ckpt_predicate)

    def _keep(self, orders, ckpt_predicate, verbosity=logging.INFO):
        # every process has ended what it does with them
        ddp_barrier()
        if if_main_process():
            ranked = [
                (self.find_checkpoints(**order, ckpt_predicate=ckpt_predicate), count)
                for order, count in orders
            ]
            kept = {one.path for order, count in ranked for one in order[:count]}
            for folder in sorted({one.path for order, _ in ranked for one in order} - kept):
                self._delete(folder)
                logger.log(verbosity, "Deleted checkpoint in %s", folder)
        ddp_barrier()

    def _delete(self, folder):
        # under another name first: a folder with half of its files would count as damaged
        doomed = folder.with_name(_DELETED + folder.name)
        os.replace(folder, doomed)
        shutil.rmtree(doomed)

    def recover_if_possible(
        self, importance_key=None, max_key=None, min_key=None, ckpt_predicate=None
    ):
        """Load the newest checkpoint that is whole, or the foremost by a key; see SpeechBrain's method.

        Raises
        ------
        SystemExit
            If there are damaged checkpoints, and no whole one.
        """

        def find():
            found = self.find_checkpoint(importance_key, max_key, min_key, ckpt_predicate)
            return [] if found is None else [found]

        while chosen := self.verified(find):
            if self.try_load(chosen[0]):
                return chosen[0]
        self.refuse_damaged()
        logger.info("Would load a checkpoint here, but none found yet.")
        return None

    def verified(self, find):
        """Checkpoints whose every file is as it was saved; damaged ones are set aside, and others are chosen.

        The main process chooses for all processes.

        Arguments
        ---------
        find : callable
            Function that chooses checkpoints.

        Returns
        -------
        list of speechbrain.utils.checkpoints.Checkpoint
            Empty, if ``find`` gives none.
        """
        return ddp_broadcast(self._verified(find) if if_main_process() else None)

    def _verified(self, find):
        while True:
            chosen = find()
            try:
                for checkpoint in chosen:
                    _check(checkpoint)
            except DamagedFile as error:
                self.leave_out(error.path.parent, f"{error.path.name} {error.reason}")
            except FileNotFoundError:
                # a training beside this test has deleted it
                if all(checkpoint.path.exists() for checkpoint in chosen):
                    raise
            else:
                if chosen:
                    self._set_aside()
                return chosen

    def try_load(self, checkpoint):
        """Load a checkpoint; gives whether it was whole.

        A checkpoint without checksums may hold the state of something else. No process then takes it.
        """
        damage = None
        try:
            self.load_checkpoint(checkpoint)
        except Exception as error:
            if isinstance(checkpoint.meta.get("files"), dict) or not _is_damage(error):
                raise
            damage = f"its state cannot be loaded ({type(error).__name__}: {cut(error, 100)})"
        damage = next(filter(None, _of_all_processes(damage)), None)
        if damage is not None and if_main_process():
            self.leave_out(checkpoint.path, damage)
        return damage is None

    def refuse_damaged(self):
        """End with one sentence if there are damaged checkpoints, which a training from the start would bury.

        Raises
        ------
        SystemExit
        """
        aside = self.checkpoints_dir.glob(f"{DAMAGED}*")
        found = [self.describe_damage(), *(f"{folder.name}, set aside" for folder in sorted(aside))]
        found = ddp_broadcast("; ".join(filter(None, found)))
        if found:
            raise SystemExit(
                f"{self.checkpoints_dir}: no whole checkpoint is left there, but damaged ones ({found}); put copies "
                "in their place, or remove them or give another --output_folder to train from the start"
            )

    def _set_aside(self):
        """Give damaged checkpoints a name that nothing loads, unless another process trains there."""
        if not self.damaged:
            return
        with run_lock.held(self.run_folder) as mine:
            for folder in list(self.damaged) if mine else ():
                target = _free_name(folder.with_name(DAMAGED + folder.name))
                with contextlib.suppress(OSError):
                    os.replace(folder, target)
                    del self.damaged[folder]
                    logger.warning("%s is set aside: it is now %s", folder, target.name)


def _optimizer_first(item):
    return item[0] != "optimizer"


def _check(checkpoint):
    """Compare every file of a checkpoint with its checksum, or look through it if it has none.

    Raises
    ------
    DamagedFile
        If one is damaged.
    """
    # as listed: of a folder that has gone since, the first one says so
    for path in checkpoint.paramfiles.values():
        if not check_file(path, checkpoint.meta):
            _look_through(path)


def _look_through(path):
    with open(path, "rb") as file:
        head = file.read(2)
        content = head + file.read() if head not in _TORCH_FILES else b"?"
    if not content:
        raise DamagedFile(path, "is empty")
    if head in _TORCH_FILES:
        read_tensors(path)
    elif b"\0" in content:
        raise DamagedFile(path, "is no text")


def _is_damage(error):
    """Whether an error of loading a state tells of a spoiled file, and not of another model or of the machine."""
    if isinstance(error, (OSError, MemoryError)) and not isinstance(error, EOFError):
        return False
    return not any(part in str(error) for part in (*MISMATCHES, "memory"))


def _of_all_processes(value):
    """What each process of a run gives."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return [value]
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def _free_name(path):
    names = (path, *(path.with_name(f"{path.name}-{count}") for count in range(2, 1000)))
    return next(name for name in names if not name.exists())


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

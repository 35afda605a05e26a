"""Ending a training early, where validation does not improve any more."""

from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks
from speechbrain.utils.epoch_loop import EpochCounterWithStopper


@register_checkpoint_hooks
class EarlyStopping(EpochCounterWithStopper):
    """Counter of epochs that stops after some without a lower value, also over a resume.

    SpeechBrain's class leaves what it has seen out of checkpoints, since its methods are not registered there.

    Arguments
    ---------
    limit : int
        Largest number of epochs.
    stop_after : int, optional
        Number of epochs without a lower value; ``None`` never stops early.

    Raises
    ------
    ValueError
        If ``stop_after`` is no whole number from 1 on.

    Example
    -------
    >>> counter = EarlyStopping(limit=9, stop_after=2)
    >>> for epoch in counter:
    ...     counter.update_metric((5.0, 3.0, 3.0, 4.0)[epoch - 1])
    >>> epoch
    4
    """

    def __init__(self, limit, stop_after=None):
        if stop_after is not None and not (isinstance(stop_after, int) and stop_after >= 1):
            raise ValueError(f"stop_after must be 1 epoch or more, or null; got {stop_after}")
        super().__init__(limit, limit if stop_after is None else stop_after, 0, "min")

    @mark_as_saver
    def _save(self, path):
        """Write the epoch, and the best one so far."""
        self.best_score = float(self.best_score)
        super()._save(path)

    @mark_as_loader
    def _recover(self, path, end_of_epoch):
        """Read what was written; an epoch that was cut short is counted again."""
        super()._recover(path, end_of_epoch)
        # a run that has stopped goes on if more epochs without gain are allowed now
        self.should_stop = self.current - self.best_limit >= self.limit_to_stop

"""Learning-rate schedules that SpeechBrain does not have, and rates that differ between parameter groups."""

import math

import torch
from speechbrain.nnet.schedulers import ReduceLROnPlateau
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks


def set_rate(optimizer, rate):
    """Set the learning rate of all parameter groups, each times its ``lr_scale`` if it has one.

    Example
    -------
    >>> import torch
    >>> groups = [{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr_scale": 0.5}]
    >>> optimizer = torch.optim.SGD(groups, lr=1.0)
    >>> set_rate(optimizer, 0.2)
    >>> [group["lr"] for group in optimizer.param_groups]
    [0.2, 0.1]
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


@register_checkpoint_hooks
class WarmupCosine:
    """Linear warm-up from 0, then half a cosine down to ``floor`` at the last step.

    Called after every optimiser step, as SpeechBrain's schedulers are. A parameter group with ``lr_scale`` gets
    that many times the rate.

    Arguments
    ---------
    lr_initial : float
        Rate at the end of the warm-up.
    n_warmup_steps : int
    total_steps : int
        Optimiser steps of the whole training; 0 leaves it to the recipe, which knows how many there will be.
    warmup_fraction : float
        Part of all steps that the warm-up takes, where ``n_warmup_steps`` is 0.
    floor : float
        Where the cosine ends, as a part of ``lr_initial``.

    Example
    -------
    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = WarmupCosine(lr_initial=1.0, n_warmup_steps=2, total_steps=10)
    >>> rates = [schedule(optimizer)[1] for _ in range(10)]
    >>> rates[0], rates[1], rates[-1] < 0.04
    (0.5, 1.0, True)
    """

    def __init__(self, lr_initial, n_warmup_steps=0, total_steps=0, warmup_fraction=0.0, floor=0.0):
        if not (0 <= warmup_fraction < 1 and 0 <= floor <= 1):
            raise ValueError(
                "warmup_fraction must be 0 or more and less than 1, floor from 0 to 1; got "
                f"{warmup_fraction} and {floor}"
            )
        self.lr_initial, self.n_warmup_steps = lr_initial, n_warmup_steps
        self.total_steps, self.warmup_fraction, self.floor = total_steps, warmup_fraction, floor
        self.n_steps = 0
        self.current_lr = lr_initial

    def __call__(self, optimizer):
        """Set the rate of the next step; returns the old and the new one."""
        if self.total_steps <= 0:
            raise ValueError(
                "WarmupCosine does not know how long training will be: set total_steps"
            )
        self.n_steps += 1
        old = self.current_lr
        warmup = self.n_warmup_steps or round(self.warmup_fraction * self.total_steps)
        if self.n_steps <= warmup:
            scale = self.n_steps / warmup
        else:
            done = (self.n_steps - warmup) / max(1, self.total_steps + 1 - warmup)
            cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
            scale = self.floor + (1 - self.floor) * cosine
        self.current_lr = self.lr_initial * scale
        set_rate(optimizer, self.current_lr)
        return old, self.current_lr

    @mark_as_saver
    def save(self, path):
        """Write the number of steps taken."""
        torch.save({"n_steps": self.n_steps, "current_lr": self.current_lr}, path)

    @mark_as_loader
    def load(self, path, end_of_epoch=False):
        """Read the number of steps taken."""
        del end_of_epoch
        state = torch.load(path, weights_only=True)
        self.n_steps, self.current_lr = state["n_steps"], state["current_lr"]


class StrictPlateau(ReduceLROnPlateau):
    """SpeechBrain's ReduceLROnPlateau, for which an equal value is no gain, as it is none for early stopping.

    Error rates on few trials repeat often. SpeechBrain's class takes each repetition for a gain.

    Example
    -------
    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    >>> plateau = StrictPlateau(patience=1, dont_halve_until_epoch=0)
    >>> [plateau([optimizer], epoch, 37.5)[1] for epoch in (1, 2, 3)]
    [1.0, 1.0, 0.5]
    """

    def __call__(self, optim_list, current_epoch, current_loss):
        """Rates before and after, as SpeechBrain's method gives them."""
        if current_loss == self.anchor:
            current_loss = math.nextafter(current_loss, math.inf)
        return super().__call__(optim_list, current_epoch, current_loss)

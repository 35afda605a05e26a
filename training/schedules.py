"""Learning-rate schedules that SpeechBrain does not have."""

import math

import torch
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks


@register_checkpoint_hooks
class WarmupCosine:
    """Linear warm-up from 0, then half a cosine down to 0 at the last step.

    Called after every optimiser step, as SpeechBrain's schedulers are.

    Arguments
    ---------
    lr_initial : float
        Rate at the end of the warm-up.
    n_warmup_steps : int
    total_steps : int
        Optimiser steps of the whole training; 0 leaves it to the recipe, which knows how many there will be.

    Example
    -------
    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = WarmupCosine(lr_initial=1.0, n_warmup_steps=2, total_steps=10)
    >>> rates = [schedule(optimizer)[1] for _ in range(10)]
    >>> rates[0], rates[1], rates[-1] < 0.04
    (0.5, 1.0, True)
    """

    def __init__(self, lr_initial, n_warmup_steps, total_steps=0):
        self.lr_initial, self.n_warmup_steps, self.total_steps = (
            lr_initial,
            n_warmup_steps,
            total_steps,
        )
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
        if self.n_steps <= self.n_warmup_steps:
            scale = self.n_steps / self.n_warmup_steps
        else:
            done = (self.n_steps - self.n_warmup_steps) / max(
                1, self.total_steps + 1 - self.n_warmup_steps
            )
            scale = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        self.current_lr = self.lr_initial * scale
        for group in optimizer.param_groups:
            group["lr"] = self.current_lr
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

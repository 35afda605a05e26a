"""The choice of a backend, shared by the scan and the convolution.

Each operation keeps a :class:`Backends`: its implementations by name, fastest first. Beside each stands its
refusal, a function that says why the implementation cannot take certain tensors. ``auto`` takes the first
implementation that can. A name in the call, in :func:`use_backend` or in the environment overrides ``auto``.
"""

import contextlib
import logging
import os
from functools import cache

import torch

logger = logging.getLogger(__name__)

_ENVIRONMENT = "MAMBA_SPEECH_BACKEND"
_NAMES = ("cpu", "triton", "mamba_ssm", "torch", "naive", "graph")
_forced = []


@contextlib.contextmanager
def use_backend(name):
    """Make ``backend="auto"`` mean ``name`` inside a ``with`` block.

    The environment variable ``MAMBA_SPEECH_BACKEND`` does the same for a whole process. The scan takes the
    named backend or refuses. The convolution takes it where it has one of that name that fits its tensors.
    ``auto`` undoes an outer choice.

    Raises
    ------
    ValueError
        If there is no backend of that name.

    Example
    -------
    >>> import torch
    >>> from modules.ssm import Mamba, use_backend
    >>> with use_backend("naive"):
    ...     y = Mamba(d_model=8)(torch.randn(1, 5, 8))
    """
    _known(name)
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


def no_refusal(**tensors):
    """Return ``None``: the backend takes any tensors."""


class Backends:
    """Implementations of one operation.

    Arguments
    ---------
    operation : str
        For messages.
    implementations : dict
        Name: (function, refusal), on each device the fastest first. A refusal takes tensors by name and returns a
        reason or ``None``.
    """

    def __init__(self, operation, implementations):
        self.operation, self.implementations = operation, implementations

    def __getitem__(self, name):
        return self.implementations[name][0]

    def available(self, **tensors):
        """Names of the implementations that can take the tensors, fastest first."""
        return [name for name in self.implementations if self.refusal(name, **tensors) is None]

    def refusal(self, name, **tensors):
        """Why the named one cannot take the tensors, or ``None``."""
        return self.implementations[name][1](**tensors)

    def choose(self, backend, **tensors):
        """The name of the one to use.

        Raises
        ------
        ValueError
            If one was asked for by name that does not exist or cannot take the tensors.
        RuntimeError
            If the environment asked for it: no input is at fault then.
        """
        wanted, by_environment = _asked_for(backend)
        if wanted is None:
            return self._fastest(**tensors)
        reason = self.refusal(wanted, **tensors)
        if reason is None:
            return wanted
        said = f"{self.operation} backend {wanted!r} cannot be used here: {reason}"
        if by_environment:
            raise RuntimeError(f"{said}; set {_ENVIRONMENT}=auto, or unset it")
        raise ValueError(f"{said}; use backend='auto'")

    def prefer(self, **tensors):
        """As :meth:`choose` with ``auto``, but a wish that cannot be met is passed over."""
        wanted, _ = _asked_for("auto")
        if wanted in self.implementations and self.refusal(wanted, **tensors) is None:
            return wanted
        return self._fastest(**tensors)

    def check_environment(self, **tensors):
        """Raise ``RuntimeError`` if the environment names a backend that cannot take the tensors, or none at all."""
        if os.environ.get(_ENVIRONMENT):
            self.choose("auto", **tensors)

    def _fastest(self, **tensors):
        name = next(name for name in self.implementations if self.refusal(name, **tensors) is None)
        if not torch.compiler.is_compiling():
            say_once(self.operation, next(iter(tensors.values())).device.type, name)
        return name


@cache
def say_once(operation, device, backend):
    """Log at INFO, once a process, which backend ``auto`` took."""
    logger.info("%s on %s: backend %s", operation, device, backend)


def forced_backend():
    """The backend that :func:`use_backend` or the environment asks for, or ``None``; kernels of layers heed it."""
    return _asked_for("auto")[0]


def _asked_for(backend):
    """The backend named in the call, by :func:`use_backend` or in the environment, and whether it was the last.

    The name is ``None`` for ``auto``.
    """
    by_environment = False
    if isinstance(backend, str) and backend == "auto":
        if _forced:
            backend = _forced[-1]
        elif os.environ.get(_ENVIRONMENT):
            backend, by_environment = os.environ[_ENVIRONMENT], True
    _known(backend, by_environment)
    return None if backend == "auto" else backend, by_environment


def _known(name, by_environment=False):
    if isinstance(name, str) and name in ("auto", *_NAMES):
        return
    said = f"choose auto or one of {', '.join(_NAMES)}"
    if by_environment:
        raise RuntimeError(f"unknown backend {name!r} in {_ENVIRONMENT}; {said}")
    raise ValueError(f"unknown backend {name!r}; {said}")

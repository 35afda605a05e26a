"""Triton where it is installed, and enough of its names to define the kernels' modules where not.

Platforms without Triton (macOS, Windows) import the package all the same; there the kernels are plain
functions that nobody calls, because the backends refuse first.
"""

from types import SimpleNamespace

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None
    tl = SimpleNamespace(constexpr=None)


def jit(function):
    """``triton.jit``, or ``function`` as it is without Triton."""
    return function if triton is None else triton.jit(function)

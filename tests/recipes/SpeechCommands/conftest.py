"""The keyword fixtures of tests/support."""

from tests.support.keywords import spotters, tones, train_here, train_kws

__all__ = ["spotters", "tones", "train_here", "train_kws"]

"""Comparing modules with recorded outputs and gradients, and making sure that nothing is left out."""

import json
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / "goldens"
TOLERANCE = 1e-5
# What float32 leaves open in a spectrum: an amplitude relative to the largest of its frame, since the FFTs
# of different processors differ by up to 2e-7 of it, and 3e-4 dB of any power. That is 7e-5 of a mel
# filter's weight: float32 rounds a filter's edge at 8 kHz to 3 mHz, and two bound a slope of 170 Hz.
AMPLITUDE = 1e-6
DECIBELS = 3e-4


def decibel_tolerance(decibels, dim):
    """How far rounding may move spectra in dB that lie along ``dim``; float64, in dB.

    A bin of amplitude b in a frame whose largest amplitude is a moves by 20 log10(1 + AMPLITUDE a / b):
    by 0.001 dB where b is 40 dB below a, by 0.09 dB where it is 80 dB below.
    """
    decibels = decibels.double()
    below = decibels.amax(dim, keepdim=True) - decibels
    return 20 * torch.log10(1 + AMPLITUDE * 10 ** (below / 20)) + DECIBELS


class Golden:
    """One recorded file; remembers which of its outputs and gradients were compared.

    Use as a context manager: leaving it fails if an entry was compared with nothing.
    """

    def __init__(self, name, prefix=""):
        arrays = np.load(FOLDER / f"{name}.npz")
        self.meta = json.loads(str(arrays["meta"])) if "meta" in arrays.files else {}
        self.entries = {
            key.removeprefix(prefix): torch.from_numpy(arrays[key])
            for key in arrays.files
            if key != "meta" and key.startswith(prefix)
        }
        self.left = {key for key in self.entries if key.startswith(("output/", "grad"))}

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if kind is None:
            assert not self.left, f"not compared: {sorted(self.left)}"

    def __getitem__(self, key):
        return self.entries[key]

    def state_dict(self, prefix=""):
        """The recorded parameters and buffers whose names start with ``prefix``, without it."""
        start = f"param/{prefix}"
        return {k.removeprefix(start): v for k, v in self.entries.items() if k.startswith(start)}

    def compare(self, key, value, tolerance=TOLERANCE):
        """Assert that ``value`` is the recorded one, relative to the largest recorded magnitude."""
        wanted = self.entries[key]
        assert value.shape == wanted.shape, f"{key}: {value.shape}, recorded {wanted.shape}"
        scale = max(wanted.abs().max().item(), 1e-8)
        error = (value.detach() - wanted).abs().max().item() / scale
        assert error < tolerance, f"{key}: relative error {error:.1e}"
        self.left.discard(key)

    def compare_decibels(self, key, value, dim):
        """Assert that spectra in dB along ``dim`` are the recorded ones, as far as an FFT is exact."""
        wanted = self.entries[key]
        self.compare_within(key, value, decibel_tolerance(wanted, dim))

    def compare_within(self, key, value, tolerance):
        """Assert that ``value`` is the recorded one within ``tolerance``, a tensor that broadcasts."""
        wanted = self.entries[key]
        assert value.shape == wanted.shape, f"{key}: {value.shape}, recorded {wanted.shape}"
        error = ((value.detach() - wanted).abs() / tolerance).max().item()
        assert error < 1, f"{key}: {error:.1f} times the tolerance"
        self.left.discard(key)

    def compare_module(self, module, call=None):
        """Load the recorded weights strictly; compare the output for input ``x`` and all gradients."""
        module.load_state_dict(self.state_dict(), strict=True)
        module.eval()
        x = self["input/x"].clone().requires_grad_()
        out = (call or module)(x)
        self.compare("output/out", out)
        if "input/w" not in self.entries:
            return
        (out * self["input/w"]).sum().backward()
        self.compare("grad_input/x", x.grad)
        for name, parameter in module.named_parameters():
            self.compare(f"grad/{name}", parameter.grad)

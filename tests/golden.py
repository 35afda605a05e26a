"""Comparing modules with recorded outputs and gradients, and making sure that nothing is left out."""

import json
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent / "goldens"
TOLERANCE = 1e-5


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

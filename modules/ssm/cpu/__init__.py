"""The compiled CPU kernels: C sources, the build at first use, and how tensors are handed to them."""

from modules.ssm.cpu.build import library, refusal

__all__ = ["library", "refusal"]

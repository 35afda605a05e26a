"""The compiled CPU kernels: C sources, their build at first use, and how they get tensors."""

from modules.ssm.cpu.build import library, refusal

__all__ = ["library", "refusal"]

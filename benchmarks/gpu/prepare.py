"""Fetch what a machine without a network needs: two source distributions, wheels, and a spoken corpus.

It runs beforehand where there is a network. The folder ``benchmarks/gpu/carried`` then travels with the tree.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CARRIED = Path(__file__).resolve().parent / "carried"
# of 60 MiB that may travel; the tree takes some
LIMIT_MIB = 50
SDISTS = ("mamba-ssm==2.3.2.post1", "causal-conv1d==1.7.0")
# what PyTorch's own environment often lacks; pure Python where nothing else is said
WHEELS = (
    "speechbrain==1.1.2",
    "hyperpyyaml==1.2.3",
    "ruamel.yaml==0.18.16",
    "soundfile==0.13.1",  # with libsndfile in it
    "cffi==2.0.0",
    "pycparser==2.23",
    "einops==0.8.1",
)
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
CORPUS = ("--hours", "0.3", "--dev_minutes", "1", "--test_minutes", "2", "--seed", "1")


def fetch_sdists(folder):
    """Download the source distributions, building nothing.

    pip runs their ``setup.py`` for its metadata, which imports torch and ``wheel``; the latter is fetched beside.
    """
    with tempfile.TemporaryDirectory() as helpers:
        _python("pip", "install", "-q", "--target", helpers, "wheel", "setuptools<82")
        options = ("--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-d", folder)
        skipped = {"MAMBA_SKIP_CUDA_BUILD": "TRUE", "CAUSAL_CONV1D_SKIP_CUDA_BUILD": "TRUE"}
        _python("pip", "download", "-q", *options, *SDISTS, PYTHONPATH=helpers, **skipped)


def fetch_wheels(folder):
    """Download the wheels for Linux on x86-64."""
    options = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "-d", folder]
    options += [part for name in PLATFORMS for part in ("--platform", f"{name}_x86_64")]
    _python("pip", "download", "-q", *options, "--python-version", PYTHON, *WHEELS)


def speak_corpus(folder):
    """Make the corpus that the training stage learns from."""
    _python("data_prep.spoken", folder, *CORPUS, PYTHONPATH=str(ROOT))


def _python(*arguments, **environment):
    command = [sys.executable, "-m", *map(str, arguments)]
    if subprocess.run(command, check=False, cwd=ROOT, env=os.environ | environment).returncode:
        raise SystemExit(
            f"prepare: {' '.join(command[2:])} failed, see above; this stage needs a network and an environment "
            "with torch, pip and the project"
        )


def run():
    """Fill the carried folder and say what it weighs."""
    parts = {"sdists": fetch_sdists, "wheels": fetch_wheels, "corpus": speak_corpus}
    for name, fetch in parts.items():
        print(f"prepare: {name}", flush=True)
        if name != "corpus":  # that one knows by itself whether it is complete
            shutil.rmtree(CARRIED / name, ignore_errors=True)
            (CARRIED / name).mkdir(parents=True)
        fetch(CARRIED / name)
    size = sum(path.stat().st_size for path in CARRIED.rglob("*") if path.is_file()) / 2**20
    print(f"prepare: {CARRIED} holds {size:.1f} MiB, limit {LIMIT_MIB}")
    return int(size > LIMIT_MIB)

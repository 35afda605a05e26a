"""Fetch what a machine without a network needs: two source distributions, wheels, and a spoken corpus.

Run beforehand where there is a network; the folder ``benchmarks/gpu/carried`` then travels with the tree.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from training.provenance import git_environment

ROOT = Path(__file__).resolve().parents[2]
CARRIED = Path(__file__).resolve().parent / "carried"
LIMIT_MIB = 60
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
GLIBC = ("2_28", "2_27", "2_17")
CORPUS = ("--hours", "0.3", "--dev_minutes", "1", "--test_minutes", "2", "--seed", "1")


def fetch_sdists(folder):
    """Download the source distributions, building nothing.

    pip runs their ``setup.py`` for its metadata, which imports torch and ``wheel``; the latter is fetched beside.
    """
    with tempfile.TemporaryDirectory() as helpers:
        _pip("install", "--target", helpers, "wheel", "setuptools<82")
        environment = os.environ | {
            "PYTHONPATH": helpers,
            "MAMBA_SKIP_CUDA_BUILD": "TRUE",
            "CAUSAL_CONV1D_SKIP_CUDA_BUILD": "TRUE",
        }
        options = ("--no-deps", "--no-build-isolation", "--no-binary", ":all:", "-d", str(folder))
        for sdist in SDISTS:
            _pip("download", *options, sdist, environment=environment)


def fetch_wheels(folder):
    """Download the wheels for Linux on x86-64."""
    platforms = [f"manylinux_{version}_x86_64" for version in GLIBC] + ["manylinux2014_x86_64"]
    options = ["--no-deps", "--only-binary=:all:", "--python-version", PYTHON]
    options += ["--implementation", "cp", "-d", str(folder)]
    options += [part for name in platforms for part in ("--platform", name)]
    _pip("download", *options, *WHEELS)


def _pip(*arguments, environment=None):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    try:
        subprocess.run(command, check=True, env=environment)
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"prepare: pip could not get {arguments[-1]} (its message is above); this stage needs a network "
            "and an environment with torch and pip"
        ) from error


def speak_corpus(folder):
    """Make the corpus that the training stage learns from."""
    command = [sys.executable, "-m", "data_prep.spoken", str(folder), *CORPUS]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode:
        raise SystemExit(f"prepare: speaking the corpus into {folder} failed, see above")


def size_mib(paths):
    """MiB of the files among ``paths`` and in folders among them."""
    files = [f for path in paths for f in (path.rglob("*") if path.is_dir() else [path])]
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


def tree_size_mib(root=ROOT):
    """MiB of the project's own files, those that git ignores left out."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        said = subprocess.run(
            listing, check=True, cwd=root, capture_output=True, text=True, env=git_environment()
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # not a git checkout
    return size_mib(root / name for name in said.stdout.split("\0") if name)


def run(arguments):
    """Fill the carried folder and say what it weighs."""
    del arguments
    parts = {"sdists": fetch_sdists, "wheels": fetch_wheels, "corpus": speak_corpus}
    for name, fetch in parts.items():
        folder = CARRIED / name
        print(f"prepare: {name}", flush=True)
        if name != "corpus":  # that one knows by itself whether it is complete
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        fetch(folder)
    sizes = {name: size_mib([CARRIED / name]) for name in parts}
    tree = tree_size_mib()
    total = sum(sizes.values()) + (tree or 0)
    for name, size in (sizes | {"tree": tree}).items():
        print(f"  {name:8s} " + ("unknown" if size is None else f"{size:6.1f} MiB"))
    print(f"  total    {total:6.1f} MiB, limit {LIMIT_MIB}")
    if total > LIMIT_MIB:
        print(f"prepare: more than {LIMIT_MIB} MiB: speak less, see CORPUS in {__file__}")
        return 1
    return 0

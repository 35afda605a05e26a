"""Build mamba-ssm's selective scan, and causal-conv1d, from their source distributions for this card alone.

Their ``setup.py`` names every architecture that the compiler knows, which takes half an hour; with the card's own it
is minutes. Of mamba-ssm only what ``selective_scan_fn`` imports is laid out, since the package itself
imports models and their many needs.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.gpu.prepare import CARRIED

_SECONDS = 420  # for both packages together


class Package(NamedTuple):
    """One source distribution: its extension, its own switch, and the Python files to lay out."""

    name: str
    extension: str
    force: str
    files: tuple


PACKAGES = (
    Package(
        "mamba_ssm",
        "selective_scan_cuda",
        "MAMBA_FORCE_BUILD",
        (
            "mamba_ssm/ops/selective_scan_interface.py",
            "mamba_ssm/ops/triton/layer_norm.py",
            "mamba_ssm/utils/torch.py",
            "mamba_ssm/utils/determinism.py",
        ),
    ),
    Package(
        "causal_conv1d",
        "causal_conv1d_cuda",
        "CAUSAL_CONV1D_FORCE_BUILD",
        (
            "causal_conv1d/__init__.py",
            "causal_conv1d/causal_conv1d_interface.py",
            "causal_conv1d/cpp_functions.py",
        ),
    ),
)


class BuildError(Exception):
    """Why a package could not be built, in one line."""


def narrow(setup, extension, capability):
    """A ``setup.py`` that compiles for one architecture.

    Arguments
    ---------
    setup : str
        The text of the distribution's ``setup.py``.
    extension : str
        The extension that it must still build.
    capability : tuple of int
        The card's, such as (9, 0).

    Returns
    -------
    str

    Raises
    ------
    BuildError
        If the text is not laid out as expected.
    """
    if f'name="{extension}"' not in setup:
        raise BuildError(f"setup.py names no extension {extension}: it differs from the one known")
    number = "".join(map(str, capability))
    own = f'["-gencode", "arch=compute_{number},code=sm_{number}"]'
    narrowed, places = re.subn(r"\+ *cc_flag\b", f"+ {own}", setup)
    if not places or "arch=compute_" not in setup:
        raise BuildError(
            "setup.py does not add its list cc_flag of architectures to the compiler's options any more"
        )
    return narrowed


def unpack(package, folder):
    """Unpack the carried distribution; its folder."""
    found = sorted((CARRIED / "sdists").glob(f"{package.name}-*.tar.gz"))
    if not found:
        raise BuildError(
            f"no {package.name}-*.tar.gz in {CARRIED / 'sdists'}: run the stage prepare where there is a network"
        )
    with tarfile.open(found[-1]) as archive:
        archive.extractall(folder, filter="data")
    return next(Path(folder).glob(f"{package.name}-*"))


def build(package, site, capability, seconds):
    """Compile one package into the folder ``site`` within so many seconds, and import it in a fresh process.

    Raises
    ------
    BuildError
        If either fails, with the first error.
    """
    if shutil.which("nvcc") is None and not os.environ.get("CUDA_HOME"):
        raise BuildError("nvcc is not on the PATH and CUDA_HOME is not set")
    with tempfile.TemporaryDirectory() as folder:
        source = unpack(package, folder)
        setup = source / "setup.py"
        text = setup.read_text(encoding="utf-8")
        setup.write_text(narrow(text, package.extension, capability), encoding="utf-8")
        environment = {"MAX_JOBS": str(os.cpu_count())} | os.environ | {package.force: "TRUE"}
        command = ["setup.py", "build_ext", "--build-lib", str(site)]
        _python(command, site / f"{package.name}.log", seconds, cwd=source, env=environment)
        lay_out(package, source, site)
    name = package.files[0].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    _python(["-c", f"import torch, {name}"], site / f"{package.name}_import.log", 60)


def _python(arguments, log, seconds, **options):
    with log.open("w", encoding="utf-8") as file:
        try:
            code = subprocess.run(
                [sys.executable, *arguments],
                check=False,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                **options,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"not done after {seconds:.0f} s, see {log}") from error
    if code:
        lines = log.read_text(encoding="utf-8").splitlines()
        wrong = [line.strip() for line in lines if re.search(r"\berror\b|Error\b", line)]
        raise BuildError(f"{(wrong or lines[-1:] or ['no output'])[0][:200]} (see {log})")


def lay_out(package, source, site):
    """Copy the package's Python files, with empty ``__init__.py`` files where none is among them."""
    for name in package.files:
        if not (source / name).exists():
            raise BuildError(f"{source.name} has no {name}: it differs from the one known")
        target = site / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, target)
    for folder in {site / parent for name in package.files for parent in Path(name).parents}:
        if folder != site:
            (folder / "__init__.py").touch()


def run(arguments):
    """Build both packages; a failure is a row of the table and no failure of the stage."""
    report = arguments.report("build", "Packages built from source")
    site = arguments.out / "site"
    site.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + _SECONDS
    for package in PACKAGES:
        began = time.monotonic()
        try:
            if arguments.device.type == "cuda":
                capability = torch.cuda.get_device_capability(arguments.device)
                build(package, site, capability, max(1.0, until - began))
                outcome = f"built for capability {'.'.join(map(str, capability))}"
            else:
                # what can be tried without a card: that the distribution is the one that is known
                with tempfile.TemporaryDirectory() as folder:
                    source = unpack(package, folder)
                    narrow((source / "setup.py").read_text(), package.extension, (9, 0))
                    lay_out(package, source, Path(folder) / "site")
                outcome = "not built: no CUDA device; the distribution itself is as expected"
        except BuildError as error:
            outcome = f"not built: {error}"
        seconds = round(time.monotonic() - began, 1)
        report.add(package=package.name, seconds=seconds, outcome=outcome)
    return 0

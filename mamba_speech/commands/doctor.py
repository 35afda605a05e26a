"""The command `mamba-speech doctor`: what this machine has and lacks, with a line of advice each."""

import importlib.metadata
import importlib.util
import logging
import os
import platform
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from mamba_speech import __version__
from mamba_speech.arguments import add_json
from mamba_speech.audio.names import plain
from mamba_speech.files import error_text
from mamba_speech.printing import json_line

PYTHONS = ((3, 10), (3, 14))
# package: what it is for, and the extra that brings it
OPTIONAL = {
    "matplotlib": ("pictures and trainings", "train"),
    "espeakng-loader": ("the demo and generated speech", "train"),
    "transformers": ("wav2vec 2.0 and WavLM as front-ends", "train"),
    "torchmetrics": ("SDR of separated speech", "train"),
    "onnxruntime": ("models exported as ONNX", "export"),
    "mamba-ssm": ("the published CUDA kernels; requirements-cuda.txt says how", None),
}
LEAST_MEMORY_GB, LEAST_DISK_GB = 4, 5


@dataclass(frozen=True)
class Finding:
    """What was found of one thing.

    Attributes
    ----------
    name, found : str
    ok : bool
        Whether nothing needed is broken.
    advice : str
        What to do, or why nothing.
    """

    name: str
    found: str
    ok: bool
    advice: str


def add_arguments(parser):
    """Give the parser of `mamba-speech doctor` its arguments."""
    add_json(parser)
    parser.epilog = (
        "Prints a line a thing: its name, what was found, and advice. Lines of what is broken begin with `broken:`; "
        "then the exit status is 1. What is optional and missing does not change the exit status."
    )


def run_command(arguments):
    """Run `mamba-speech doctor`; returns the exit status, 1 if something needed is broken."""
    findings = examine()
    if arguments.json:
        print(json_line([asdict(one) for one in findings]))
    else:
        width = max(len(one.name) for one in findings)
        for one in findings:
            advice = one.advice if one.ok else f"broken: {one.advice}"
            line = f"{one.name:{width}}  {one.found} -> {advice}"
            print(plain(line, backslashes=False))
    return 0 if all(one.ok for one in findings) else 1


def examine():
    """Look at this machine.

    Returns
    -------
    list of Finding
    """
    # what is tried here is told below, and once
    logging.getLogger("modules").setLevel(logging.ERROR)
    findings = [_python(), _ours()]
    for check in (_torch, _torchaudio, _speechbrain):
        findings.append(_tried(check))
    if findings[2].ok:
        for check in (_cuda, _mps, _processor, _compiler, _backends):
            findings.append(_tried(check))
    findings += map(_tried, (_memory, _disk, _audio, _media, _microphone))
    return [*findings, *(_package(name) for name in OPTIONAL)]


def _tried(check):
    """A finding, also where looking fails: what a machine has may be broken in any way."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - a doctor does not die of the illness
        name = check.__name__.strip("_")
        reason = error_text(error) or type(error).__name__
        return Finding(name, reason.splitlines()[0], False, f"install {name} anew: pip install .")


def _python():
    version = platform.python_version()
    low, high = (".".join(map(str, one)) for one in PYTHONS)
    if not PYTHONS[0] <= sys.version_info[:2]:
        return Finding("python", version, False, f"install Python {low} to {high}")
    known = sys.version_info[:2] <= PYTHONS[1]
    advice = "nothing to do" if known else f"newer than {high}, the newest that is tested"
    return Finding("python", f"{version}, {sys.executable}", True, advice)


def _ours():
    place = Path(__file__).resolve().parents[2]
    return Finding("mamba_speech", f"{__version__}, {place}", True, "nothing to do")


def _torch():
    import torch

    return Finding("torch", torch.__version__, True, "nothing to do")


def _torchaudio():
    import torch
    import torchaudio

    same = torch.__version__.split("+")[0] == torchaudio.__version__.split("+")[0]
    advice = "nothing to do"
    if not same:
        number = torch.__version__.split("+")[0]
        advice = f"pip install torchaudio=={number}, from the index that torch came from"
    return Finding("torchaudio", torchaudio.__version__, same, advice)


def _speechbrain():
    import speechbrain

    return Finding("speechbrain", speechbrain.__version__, True, "nothing to do")


def _cuda():
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"torch is built for CUDA {built}" if built else "torch is built without CUDA"
        advice = "nothing to do without an NVIDIA card; with one, update its driver"
        if not built:
            advice = "nothing to do without an NVIDIA card; with one, install torch's CUDA wheel"
        return Finding("cuda", f"no device; {why}", True, advice)
    cards = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        memory = facts.total_memory / 2**30
        cards.append(f"{facts.name}, {memory:.0f} GB, capability {facts.major}.{facts.minor}")
    return Finding("cuda", "; ".join(cards), True, "commands take it by themselves (--device cuda)")


def _mps():
    import torch

    there = torch.backends.mps.is_available()
    advice = "--device mps uses it" if there else "nothing to do: only Macs have it"
    return Finding("mps", "available" if there else "no device", True, advice)


def _processor():
    import torch

    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    advice = "nothing to do"
    if threads < cores:
        advice = f"OMP_NUM_THREADS={cores} uses all cores, if nothing else runs"
    return Finding("cores", f"{cores}, of which torch uses {threads}", True, advice)


def _compiler():
    from modules.ssm.cpu.compiler import compilers

    tried = [shlex.join(one) for one in compilers()]
    found = next((one for one in tried if shutil.which(shlex.split(one)[0])), None)
    if found is None:
        advice = "install gcc or clang: the compiled kernels are many times as fast as torch's"
        return Finding("compiler", f"none of {', '.join(tried)}", True, advice)
    return Finding("compiler", found, True, "nothing to do")


def _backends():
    """The scan's backend on each device; the CPU's kernels are built if they were not."""
    import torch

    from modules.ssm.cpu import refusal
    from modules.ssm.scan.dispatch import available_backends, check_environment

    devices = ["cpu"]
    devices += ["cuda"] if torch.cuda.is_available() else []
    devices += ["mps"] if torch.backends.mps.is_available() else []
    wanted = os.environ.get("MAMBA_SPEECH_BACKEND", "auto")
    chosen = {one: wanted if wanted != "auto" else available_backends(one)[0] for one in devices}
    found = ", ".join(f"{device}: {name}" for device, name in chosen.items())
    try:
        for device in devices:
            check_environment(torch.device(device))
    except RuntimeError as error:
        return Finding("scan", found, False, str(error))
    if chosen["cpu"] == "cpu" or wanted != "auto":
        return Finding("scan", found, True, "nothing to do")
    return Finding("scan", found, True, f"slower than compiled kernels: {refusal()}")


def _memory():
    total = _memory_gb()
    if total is None:
        return Finding("memory", "unknown", True, "nothing to do")
    enough = total >= LEAST_MEMORY_GB
    advice = "nothing to do" if enough else "take small models, and a small --batch_seconds"
    return Finding("memory", f"{total:.1f} GB", True, advice)


def _memory_gb():
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):
        return None


def _disk():
    free = shutil.disk_usage(".").free / 2**30
    enough = free >= LEAST_DISK_GB
    advice = "nothing to do" if enough else "a training may fill this disk: give another folder"
    return Finding("disk", f"{free:.1f} GB free in this folder", True, advice)


def _audio():
    import soundfile

    count = len(soundfile.available_formats())
    text = f"soundfile {soundfile.__version__}, {soundfile.__libsndfile_version__}, {count} formats"
    return Finding("audio", text, True, "nothing to do")


def _media():
    program, package = shutil.which("ffmpeg"), importlib.util.find_spec("av")
    found = " and ".join([program] * bool(program) + ["the package av"] * bool(package))
    if not found:
        advice = "for m4a, webm, wma and videos: pip install av, or install ffmpeg"
        return Finding("media", "neither ffmpeg nor av", True, advice)
    return Finding("media", found, True, "nothing to do")


def _microphone():
    try:
        import sounddevice

        found = [one["name"] for one in sounddevice.query_devices() if one["max_input_channels"]]
    except (ImportError, OSError) as error:
        advice = "for listen and spot at a microphone: pip install sounddevice, on Linux libportaudio2 too"
        return Finding("microphone", str(error).splitlines()[0], True, advice)
    except Exception as error:  # noqa: BLE001 - PortAudio's own errors, and it is optional
        return Finding(
            "microphone", str(error), True, "connect a microphone, if you want to use one"
        )
    if not found:
        advice = "connect a microphone for listen and spot, if you want to use one"
        return Finding("microphone", "none", True, advice)
    return Finding("microphone", ", ".join(found), True, "nothing to do")


def _package(name):
    purpose, extra = OPTIONAL[name]
    try:
        return Finding(name, importlib.metadata.version(name), True, "nothing to do")
    except importlib.metadata.PackageNotFoundError:
        how = f": pip install '.[{extra}]'" if extra else ""
        return Finding(name, "not installed", True, f"for {purpose}{how}")

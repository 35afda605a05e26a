"""The command `mamba-speech benchmark`: how long a model takes on this machine, and how much memory, by length."""

import statistics
import time

import torch

from mamba_speech.arguments import (
    LONGEST_TIME,
    add_device,
    add_json,
    add_run_folder,
    given_path,
    number,
    whole_number,
)
from mamba_speech.audio import load_audio
from mamba_speech.audio.names import plain
from mamba_speech.commands.memory import PeakMemory
from mamba_speech.commands.models import known_task, load_model, network_of
from mamba_speech.evaluation.tables import as_text
from mamba_speech.memory import return_freed_memory
from mamba_speech.printing import json_line
from mamba_speech.speaker.embedding import embed_waveform

LENGTHS, BATCH_SIZES, REPEATS = (1.0, 5.0, 10.0, 30.0, 60.0), (1, 8), 5
# seconds after which a cell is not repeated again
ENOUGH_SECONDS = 20.0
MOST_BATCH = 4096


def add_arguments(parser):
    """Give the parser of `mamba-speech benchmark` its arguments."""
    add_run_folder(parser)
    parser.add_argument(
        "--lengths",
        type=number(0.1, LONGEST_TIME),
        nargs="+",
        default=list(LENGTHS),
        metavar="SECONDS",
        help=f"lengths of the recordings (default: {' '.join(f'{one:g}' for one in LENGTHS)})",
    )
    parser.add_argument(
        "--batch_sizes",
        type=whole_number(1, MOST_BATCH),
        nargs="+",
        default=list(BATCH_SIZES),
        metavar="N",
        help=f"recordings at a time (default: {' '.join(map(str, BATCH_SIZES))})",
    )
    parser.add_argument(
        "--repeats",
        type=whole_number(1, 1000),
        default=REPEATS,
        metavar="N",
        help=f"measurements of each length, after one that does not count (default: {REPEATS})",
    )
    parser.add_argument(
        "--recording",
        type=given_path,
        metavar="FILE",
        help="speech that is cut, or repeated, to the lengths; default: noise, on which a search may take other times",
    )
    add_device(parser)
    add_json(parser)
    parser.epilog = (
        "Prints a line a length and batch size. latency_s is the median time of a batch, real_time_factor the time for "
        "a second of audio, and audio_s_per_s the seconds of audio in a second. peak_memory_mb is the most memory of "
        "the process, or of the GPU. Recognition is measured up to the text, with the run's own decoding; other tasks "
        "up to the output of the network. The exit status is 1 if a length could not be measured."
    )


def run_command(arguments):
    """Run `mamba-speech benchmark`; returns the exit status, 1 if a length could not be measured."""
    task = known_task(arguments.run_folder)
    model = load_model(arguments.run_folder, task, arguments.device)
    speech = None
    if arguments.recording is not None:
        speech = load_audio(arguments.recording, model.sample_rate)
    rows = []
    for size in arguments.batch_sizes:
        for seconds in arguments.lengths:
            row = measure(model, task, seconds, size, arguments.repeats, speech)
            rows.append({"batch_size": size, "seconds": seconds} | row)
            if arguments.json:
                print(json_line(rows[-1]), flush=True)
    if not arguments.json:
        _print_table(rows, model, task)
    return 1 if any("error" in row for row in rows) else 0


def _print_table(rows, model, task):
    good = [row for row in rows if "error" not in row]
    device = getattr(model, "device", "cpu")
    print(f"{task}, {device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    if good:
        print(as_text([{name: _rounded(value) for name, value in row.items()} for row in good]))
    for row in rows:
        if "error" in row:
            what = f"{row['batch_size']} x {row['seconds']:g} s"
            print(f"{what}: {plain(row['error'], backslashes=False)}")


def _rounded(value):
    return float(f"{value:.3g}") if isinstance(value, float) else value


def measure(model, task, seconds, size, repeats=REPEATS, speech=None):
    """Time and memory of a model on a batch of recordings of one length.

    Arguments
    ---------
    model
        See :func:`mamba_speech.commands.models.load_model`.
    task : str
    seconds : float
    size : int
        Recordings in the batch.
    repeats : int
        Most measurements; fewer, if they take long.
    speech : torch.Tensor, optional
        (samples,) at the model's rate; noise by default.

    Returns
    -------
    dict of str: float
        ``latency_s``, ``fastest_s``, ``real_time_factor``, ``audio_s_per_s``, ``peak_memory_mb``; or ``error``.
    """
    samples = max(1, round(seconds * model.sample_rate))
    work = WORK[task]
    waves = _waves(samples, size, speech)
    return_freed_memory()
    memory, times, began = PeakMemory(getattr(model, "device", "cpu")), [], time.perf_counter()
    try:
        # the first one builds kernels and plans
        for turn in range(1 + repeats):
            started = time.perf_counter()
            work(model, waves)
            memory.wait()
            if turn:
                times.append(time.perf_counter() - started)
            if times and time.perf_counter() - began > ENOUGH_SECONDS:
                break
    except (MemoryError, RuntimeError, ValueError) as error:
        return {"error": str(error).strip().splitlines()[0] if str(error) else "out of memory"}
    latency = statistics.median(times)
    return {
        "latency_s": latency,
        "fastest_s": min(times),
        "real_time_factor": latency / (seconds * size),
        "audio_s_per_s": seconds * size / latency,
        "peak_memory_mb": memory.peak_mb(),
    }


def _waves(samples, size, speech):
    """Waveforms (samples,) of a batch."""
    if speech is not None:
        wave = speech.repeat(-(-samples // len(speech)))[:samples]
        return [wave] * size
    generator = torch.Generator().manual_seed(0)
    return list(0.05 * torch.randn(size, samples, generator=generator))


def _recognise(model, waves):
    for result in model.transcribe(
        waves, model.sample_rate, batch_seconds=LONGEST_TIME * MOST_BATCH
    ):
        if result.error:
            raise ValueError(result.error)


@torch.inference_mode()
def _separate(model, waves):
    network_of(model)(torch.stack(waves).to(model.device))


def _classify(model, waves):
    model.class_probabilities(waves)


@torch.inference_mode()
def _embed(model, waves):
    network = network_of(model)
    if network.crop_samples:
        # windows of one length, as `embed` takes them
        for wave in waves:
            embed_waveform(network, wave)
        return
    samples = torch.full((len(waves),), len(waves[0]), device=model.device)
    network(torch.stack(waves).to(model.device), samples)


WORK = {
    "recognition": _recognise,
    "streaming": _recognise,
    "separation": _separate,
    "keywords": _classify,
    "speaker": _embed,
}

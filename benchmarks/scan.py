"""Measure the selective scan and the causal convolution on the CPU, backends side by side.

    python benchmarks/scan.py [--shapes 8x250x512x16 ...] [--backends cpu,torch,naive,mambapy]

All backends get the same float32 tensors, threads, gradient mode and fused parts (bias, softplus,
skip connection, gate), in interleaved rounds, and in the same run each one's output and gradients are
compared with the loop in float64. Writes scan.json, tables as scan_*.json, and scan.png.

``mambapy`` (PyPI) is the package that people use where CUDA is not: its parallel scan, with around it
what its block computes. Without it the other backends are measured all the same.
"""

import argparse
import math
import statistics
import sys

import torch
from cells import conditions_table
from measure import (
    Load,
    interleaved,
    machine,
    parse,
    peak_memory,
    positive,
    publish,
    warn_if_busy,
)
from scan_tables import PASSES, SHAPES, TABLES, label, plot
from torch.nn import functional as F

from mamba_speech.files import write_json
from modules.ssm import bidirectional_scan, causal_conv1d, selective_scan, use_backend
from modules.ssm.scan.cpu import cpu_refusal

# relative error from which a backend of ours is wrong
_WRONG = 1e-4
# side of the matrices whose product shows the processor's rate of multiply-adds
_MATMUL = 768
# bytes of all states below which peak memory is a matter of what the allocator held already
_SMALLEST_HISTORY = 2**24


def inputs(shape, requires_grad=True):
    """The scan's arguments as a block makes them: z, B and C are slices, A is S4D's -1..-N."""
    batch, time, channels, states = shape
    generator = torch.Generator().manual_seed(0)
    xz = torch.randn(batch, time, 2 * channels, generator=generator)
    projected = torch.randn(batch, time, 2 * states, generator=generator)
    tensors = (
        xz[..., :channels].contiguous(),
        torch.randn(batch, time, channels, generator=generator) - 3,
        -torch.arange(1.0, states + 1).repeat(channels, 1),
        projected[..., :states],
        projected[..., states:],
        torch.ones(channels),
        xz[..., channels:],
        torch.zeros(channels),
    )
    return tuple(t.detach().requires_grad_(requires_grad) for t in tensors)


def backend_functions(names):
    """Name -> function of the scan's arguments; mambapy is left out, in words, where it is missing.

    Raises
    ------
    SystemExit
        If a name is unknown or the compiled kernels cannot be built.
    """
    functions = {}
    for name in names:
        if name == "mambapy":
            try:
                from mambapy.pscan import pscan
            except ImportError:
                print(
                    "mambapy is not installed: the run goes on without it. To compare with it: "
                    "python -m pip install mambapy==1.2.0",
                    file=sys.stderr,
                )
                continue
            functions[name] = _around(pscan)
        elif name in ("cpu", "torch", "naive"):
            functions[name] = _backend(name)
        else:
            raise SystemExit(f"--backends: {name!r} is none of cpu, torch, naive, mambapy")
    refusal = cpu_refusal(torch.zeros(1, 1, 1), torch.zeros(1, 1))
    if refusal is not None:
        raise SystemExit(f"the compiled kernels, which all else is compared with: {refusal}")
    return functions


def _backend(name):
    return lambda *tensors: selective_scan(*tensors, True, backend=name)


def _around(pscan):
    """The whole operation around a parallel scan of (decay, input), as mambapy's block has it."""

    def scan(u, delta, A, B, C, D, z, delta_bias):
        step = F.softplus(delta + delta_bias).unsqueeze(-1)  # (batch, time, channels, 1)
        decay = torch.exp(step * A)
        states = pscan(decay, step * B.unsqueeze(2) * u.unsqueeze(-1))
        y = (states @ C.unsqueeze(-1)).squeeze(3) + D * u
        return y * F.silu(z)

    return scan


def passes(function, tensors, grad_out):
    """What is timed: the output without gradients, and the output with every gradient."""

    def forward():
        with torch.no_grad():
            return function(*tensors)

    def both():
        leaves = [t for argument in tensors for t in _leaves(argument)]
        out = function(*tensors)
        return out, *torch.autograd.grad(out, leaves, grad_out)

    return dict(zip(PASSES, (forward, both), strict=True))


def _leaves(argument):
    return argument if isinstance(argument, tuple) else (argument,)


def worst_error(got, expected):
    """The largest relative error of output and gradients, each by its own largest value.

    Infinite where a value is not a number; the difference itself where the expectation is zero.
    """
    errors = []
    for a, b in zip(got, expected, strict=True):
        error = ((a.double() - b).abs().max() / (b.abs().max() or 1.0)).item()
        errors.append(math.inf if math.isnan(error) else error)
    return max(errors)


def timed(functions, tensors, grad_out, options):
    """Median and minimum of each function and pass: {(pass, name): (median, minimum)}, seconds."""
    result = {}
    for which in PASSES:
        calls = {n: passes(f, tensors, grad_out)[which] for n, f in functions.items()}
        seconds = interleaved(calls, options.rounds, budget=options.budget)
        for name, values in seconds.items():
            result[which, name] = statistics.median(values), min(values)
    return result


def measure_speed(shapes, functions, options):
    """Each backend's time and error at each shape, as rows of plain numbers."""
    rows = []
    for shape in shapes:
        tensors = inputs(shape)
        grad_out = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1))
        exact = [t.detach().double().requires_grad_() for t in tensors]
        expected = passes(_backend("naive"), exact, grad_out.double())[PASSES[1]]()
        errors = {
            name: worst_error(passes(function, tensors, grad_out)[PASSES[1]](), expected)
            for name, function in functions.items()
        }
        del expected, exact
        for (which, name), (median, least) in timed(functions, tensors, grad_out, options).items():
            row = {"shape": shape, "pass": which, "backend": name, "seconds": median}
            rows.append(row | {"least_seconds": least, "worst_error": errors[name]})
        print(f"  {label(shape)} done", file=sys.stderr)
    return rows


def measure_rates(shape, options):
    """Time a state and frame of the kernels at other state sizes and widths than ``shape``'s.

    With it the multiply-adds that a matrix product does in the same time: what the processor's
    arithmetic allows at this clock and this load.
    """
    batch, time, channels, states = shape
    widths = dict.fromkeys(((channels, states), (channels, 8), (channels, 24), (300, states)))
    cases = {(batch, time, *width): inputs((batch, time, *width)) for width in widths}
    square = torch.randn(_MATMUL, _MATMUL)
    rows = []
    for which in PASSES:
        calls = {
            case: passes(_backend("cpu"), tensors, torch.ones_like(tensors[0]))[which]
            for case, tensors in cases.items()
        }
        calls["matmul"] = lambda: square @ square
        seconds = interleaved(calls, options.rounds, budget=options.budget)
        matmul = 1e9 * statistics.median(seconds.pop("matmul")) / _MATMUL**3
        for case, values in seconds.items():
            nanoseconds = 1e9 * statistics.median(values) / math.prod(case)
            row = {"shape": case, "pass": which, "nanoseconds": nanoseconds}
            rows.append(row | {"multiply_adds_of_matmul": nanoseconds / matmul})
    return rows


def measure_bidirectional(shapes, options):
    """Both directions by one call and by two, against one direction, all by the kernels."""
    rows = []
    for shape in shapes:
        one = inputs(shape)
        *parameters, z, bias = inputs(shape)
        pairs = [(a, b) for a, b in zip(one, (*parameters, z, bias), strict=True)]
        pairs[6] = z

        def both(*tensors):
            return bidirectional_scan(*tensors, True, backend="cpu")

        def two_calls(u, delta, A, B, C, D, z, bias):
            forward, backward = zip(u, delta, A, B, C, D, (z, z), bias, strict=True)
            return selective_scan(*forward, True, backend="cpu") + selective_scan(
                *backward, True, reverse=True, backend="cpu"
            )

        grad_out = torch.randn(one[0].shape, generator=torch.Generator().manual_seed(1))
        got, expected = (
            passes(function, tuple(pairs), grad_out)[PASSES[1]]() for function in (both, two_calls)
        )
        error = worst_error(got, [t.double() for t in expected])
        for which in PASSES:
            calls = {
                "one": passes(_backend("cpu"), one, grad_out)[which],
                "both": passes(both, tuple(pairs), grad_out)[which],
                "two_calls": passes(two_calls, tuple(pairs), grad_out)[which],
            }
            seconds = interleaved(calls, options.rounds, budget=options.budget)
            row = {name: statistics.median(values) for name, values in seconds.items()}
            rows.append({"shape": shape, "pass": which} | row | {"worst_error": error})
    return rows


_MEMORY_SETUP = """
import torch
from scan import backend_functions, inputs, passes, PASSES
torch.set_num_threads({threads})
scan = backend_functions([{backend!r}])[{backend!r}]
def step(shape):
    tensors = inputs(shape)
    return tensors, passes(scan, tensors, torch.zeros(shape[:3]))[PASSES[1]]()
step((1, 64, *{shape}[2:]))
"""
_MEMORY_WORK = "tensors, results = step({shape})"


def measure_memory(shape, names, options):
    """Peak memory of forward + backward beyond inputs, output and gradients, in fresh processes."""
    batch, time, channels, states = shape
    history = 4 * math.prod(shape)
    # channels: u, delta and the pair that holds z (4), out and its gradient (2), gradients of u, delta and z (3);
    # states: B, C and their gradients
    kept = 4 * batch * time * (9 * channels + 4 * states)
    rows = []
    if history < _SMALLEST_HISTORY:
        print(f"memory is not measured: {label(shape)} is too small for it", file=sys.stderr)
        return rows
    for name in names:
        fields = {"threads": options.threads, "backend": name, "shape": shape}
        extra = peak_memory(_MEMORY_SETUP.format(**fields), _MEMORY_WORK.format(**fields))
        if extra is not None:
            row = {"shape": shape, "backend": name, "bytes": extra - kept}
            rows.append(row | {"share": (extra - kept) / history})
    return rows


def _convolution(backend):
    def convolve(*tensors):
        with use_backend(backend):
            return causal_conv1d(*tensors, "silu")

    return convolve


def measure_conv(shapes, options):
    """The compiled convolution with SiLU against torch's own, both from and to time-major tensors."""
    rows = []
    cases = dict.fromkeys((*shape[:3], width) for shape in shapes for width in (4, 31))
    for batch, time, channels, width in cases:
        x = torch.randn(batch, time, channels).requires_grad_()
        weight = torch.randn(channels, width).requires_grad_()
        bias = torch.randn(channels).requires_grad_()

        tensors, grad_out = (x, weight, bias), torch.randn(x.shape)
        functions = {name: _convolution(name) for name in ("cpu", "torch")}
        got, expected = (
            passes(function, tensors, grad_out)[PASSES[1]]() for function in functions.values()
        )
        error = worst_error(got, [t.double() for t in expected])
        times = timed(functions, tensors, grad_out, options)
        for which in PASSES:
            row = {"shape": (batch, time, channels), "width": width, "pass": which}
            row |= {name: times[which, name][0] for name in functions}
            rows.append(row | {"worst_error": error})
    return rows


def shape_option(text):
    """BxLxDxN as four numbers."""
    try:
        shape = tuple(positive(part) for part in text.split("x"))
    except ValueError:
        shape = ()
    if len(shape) != 4:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not BATCHxFRAMESxCHANNELSxSTATES, 8x250x512x16 say"
        )
    return shape


def options_of(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", type=shape_option, nargs="+", default=list(SHAPES))
    parser.add_argument(
        "--backends", default="cpu,torch,naive,mambapy", help="compared in speed and memory"
    )
    parser.add_argument(
        "--budget", type=float, default=8, help="seconds after which a function gets no more turns"
    )
    return parse(parser, arguments, rounds=9)


def main(arguments=None):
    """Measure, compare, print, and write the JSON files and the plot."""
    options = options_of(arguments)
    functions = backend_functions(options.backends.split(","))
    result = {"machine": machine(), "cores_used_by_others_before": warn_if_busy()}
    load = Load()
    longest = max(options.shapes, key=lambda shape: shape[1])
    result["speed"] = measure_speed(options.shapes, functions, options)
    middle = SHAPES[1] if SHAPES[1] in options.shapes else options.shapes[0]
    result["rates"] = measure_rates(middle, options)
    result["bidirectional"] = measure_bidirectional(options.shapes, options)
    result["conv"] = measure_conv(options.shapes, options)
    result["cores_used_by_others_during"] = load.others()
    result["memory"] = measure_memory(longest, functions, options)
    for name, table in TABLES.items():
        publish(table, result[name], options.out / f"scan_{name}.json")
    write_json(options.out / "scan_conditions.json", conditions_table(result))
    write_json(options.out / "scan.json", result)
    if "cpu" in functions and len(functions) > 1:
        plot(result["speed"], options.out / "scan.png")
    compared = {"bidirectional": "both directions at once", "conv": "the compiled convolution"}
    rows = [(row["backend"], row) for row in result["speed"] if row["backend"] != "mambapy"]
    rows += [(what, row) for name, what in compared.items() for row in result[name]]
    wrong = [(what, row) for what, row in rows if row["worst_error"] > _WRONG]
    for what, row in wrong:
        print(f"{what}: wrong at {row['shape']} by {row['worst_error']}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

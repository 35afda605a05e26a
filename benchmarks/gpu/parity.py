"""Every implementation of the scan and the convolution against the loop over time in float64.

Output, last state and every gradient, over the grid of shapes, lengths, directions and states of the contract. The
error of a tensor is its largest difference over the reference's largest magnitude (over 1 where that is less).
"""

import concurrent.futures
import itertools
import math
import multiprocessing

import torch

from benchmarks.gpu import kernels
from modules.ssm.conv.naive import causal_conv1d_naive
from modules.ssm.scan.naive import selective_scan_naive

# a few roundings of the dtype, relative to the largest value of the tensor
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
# more taps or states than this are tried once
_WIDE = 16
_WORKERS = 6
# (batch, time, channels, states), and (batch, time, channels, width)
SCAN_SHAPES = ((3, 130, 80, 16), (2, 1, 3, 4), (3, 37, 33, 5), (2, 520, 40, 24))
CONV_SHAPES = ((3, 130, 80, 4), (2, 1, 3, 4), (2, 3, 5, 9), (2, 70, 33, 31))
TINY_SCAN_SHAPES = ((2, 5, 3, 2), (2, 1, 3, 2))
TINY_CONV_SHAPES = ((2, 5, 3, 4), (2, 1, 3, 4))
# name: tensors, the implementations, the reference, what follows the tensors
CHECKS = {
    "causal convolution": (
        kernels.conv_tensors,
        kernels.CONVOLUTIONS,
        causal_conv1d_naive,
        "silu",
    ),
    "bidirectional convolution": (
        kernels.conv_tensors,
        kernels.BOTH_CONVOLUTIONS,
        kernels.two_convolutions(causal_conv1d_naive),
        "silu",
    ),
    "selective scan": (kernels.scan_tensors, kernels.SCANS, selective_scan_naive, True),
    "bidirectional scan": (
        kernels.scan_tensors,
        kernels.BOTH_SCANS,
        kernels.two_scans(selective_scan_naive),
        True,
    ),
}


def cases(shapes, dtypes):
    """(shape, dtype, ragged, reverse, given): all combinations at the first shape in float32, two elsewhere.

    Each is a kernel of its own to compile, which is what takes the time, and most at the greatest widths.
    """
    for shape, dtype in itertools.product(shapes, dtypes):
        first, single = shape == shapes[0], dtype == torch.float32
        some = [(True, False, True), (True, True, False)]
        if first and single:
            some = itertools.product((False, True), repeat=3)
        elif shape[3] > _WIDE:
            some = some[:1] if single else []
        for options in some:
            yield shape, dtype, *options


def outcomes(function, tensors, option, state, **options):
    """Outputs, last state and gradients by name, of a loss that weighs every element differently."""
    *outs, last = function(*tensors.values(), option, initial_state=state, **options)
    loss = 0
    for y in (*outs, last):
        weights = torch.linspace(-1, 1, max(1, y.numel()), device=y.device)[: y.numel()]
        loss = loss + ((y if y.dtype == torch.float64 else y.float()) * weights.view_as(y)).sum()
    inputs = kernels.leaves(tensors | {"initial_state": state})
    gradients = torch.autograd.grad(loss, list(inputs.values()), materialize_grads=True)
    found = {f"output {i}": y for i, y in enumerate(outs)} | {"state": last}
    return found | {f"gradient of {n}": g for n, g in zip(inputs, gradients, strict=True)}


def in_float64(tensors):
    """Leaves of float64 with the same values; pairs as pairs."""
    if isinstance(tensors, tuple):
        return tuple(map(in_float64, tensors))
    return None if tensors is None else tensors.detach().double().requires_grad_()


def error(got, expected):
    """Largest difference over the expectation's largest magnitude (over 1 where that is less)."""
    if not expected.numel():
        return 0.0
    scale = max(1.0, expected.abs().max().item())
    value = (got.double() - expected).abs().max().item() / scale
    return float("inf") if math.isnan(value) else value


def check(operation, dtype, device, shapes):
    """One operation in one dtype: a row for each implementation."""
    torch.manual_seed(1)
    make, functions, reference, option = CHECKS[operation]
    both, worst, number = operation.startswith("bidirectional"), {}, 0
    for shape, _, ragged, reverse, given in cases(shapes, (dtype,)):
        if both and reverse:
            continue
        number += 1
        tensors = make(shape, dtype, device, plain=reverse and given)
        if both:
            tensors = kernels.in_pairs(tensors, make(shape, dtype, device))
        state_type = torch.float32 if make is kernels.scan_tensors else dtype
        state = None
        if given:
            sizes = (shape[0], *shape[2:])
            state = kernels.normal(*sizes, dtype=state_type, device=device)
        options = {} if both else {"reverse": reverse}
        counts = torch.tensor([shape[1], 0, shape[1] // 2], device=device)[: shape[0]]
        options["lengths"] = counts if ragged else None
        wide = {name: in_float64(t) for name, t in tensors.items()}
        expected = outcomes(reference, wide, option, in_float64(state), **options)
        case = f"{shape}, ragged {ragged}, reverse {reverse}, state {given}"
        for name, function in functions.items():
            try:
                got = outcomes(function, tensors, option, state, **options)
                found = [(error(got[what], value), what) for what, value in expected.items()]
            except Exception as problem:  # noqa: BLE001 - whatever a kernel raises is a finding
                found = [(float("inf"), f"output: {type(problem).__name__}: {str(problem)[:120]}")]
            add_worst(worst.setdefault(name, {}), found, case)
    return [row(operation, name, dtype, number, kinds) for name, kinds in worst.items()]


def add_worst(worst, found, case):
    """Keep the largest error of each kind, with what it is an error of and the case."""
    for value, what in found:
        kind = what.split()[0].rstrip(":")
        worst[kind] = max(worst.get(kind, (-1.0, "", "")), (value, what, case))


def row(operation, backend, dtype, number, worst):
    """A row of the table."""
    value, what, case = max(worst.values())
    return {
        "operation": operation,
        "backend": backend,
        "dtype": str(dtype).removeprefix("torch."),
        "cases": number,
        **{k: f"{worst[k][0]:.1e}" if k in worst else "" for k in ("output", "state", "gradient")},
        "tolerance": TOLERANCES[dtype],
        "result": "pass" if value <= TOLERANCES[dtype] else f"FAIL: {what} at {case}",
    }


def checked(device):
    """Every operation's and dtype's rows: on a card from several processes, since compiling takes most of the time."""
    card = device.type == "cuda"
    scan, conv = (SCAN_SHAPES, CONV_SHAPES) if card else (TINY_SCAN_SHAPES, TINY_CONV_SHAPES)
    parts = [
        (operation, dtype, device, scan if "scan" in operation else conv)
        for operation, dtype in itertools.product(CHECKS, TOLERANCES)
    ]
    if not card:
        yield from itertools.starmap(check, parts)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(_WORKERS, mp_context=context) as pool:
        # the longest first
        for future in [pool.submit(check, *part) for part in reversed(parts)]:
            yield future.result()


def run(arguments):
    """Write the table; 1 if an implementation is off."""
    report = arguments.report("parity", "Parity with the loop over time in float64")
    failures = 0
    for rows in checked(arguments.device):
        for one in rows:
            failures += one["result"] != "pass"
            report.add(**one)
    report.note(f"{failures} rows FAIL" if failures else "all pass")
    return int(failures > 0)

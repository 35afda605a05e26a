"""Every implementation of the scan and the convolution against the loop over time in float64.

Output, last state and every gradient, over the grid of shapes, lengths, directions and states of the
contract. The error of a tensor is its largest difference over the reference's largest magnitude.
"""

import concurrent.futures
import itertools
import math
import multiprocessing

import torch

from benchmarks.gpu.kernels import (
    CONVOLUTIONS,
    SCANS,
    TENSORS,
    available,
    bidirectional_scans,
    composed,
    scan_tensors,
)
from modules.ssm.conv.naive import causal_conv1d_naive
from modules.ssm.conv.triton_backend import bidirectional_conv1d_triton
from modules.ssm.scan.naive import selective_scan_naive

# a few roundings of the dtype, relative to the largest value of the tensor
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
# another project's kernel is the yardstick of speed and not ours to pass or fail
FOREIGN = ("mamba_ssm",)
# more taps or states than this are tried once
_WIDE = 16
_WORKERS = 6
# (batch, time, channels, states), and (batch, time, channels, width)
SCAN_SHAPES = ((3, 130, 80, 16), (2, 1, 3, 4), (3, 37, 33, 5), (2, 520, 40, 24))
CONV_SHAPES = ((3, 130, 80, 4), (2, 1, 3, 4), (2, 3, 5, 9), (2, 70, 33, 31))
TINY_SCAN_SHAPES = ((2, 5, 3, 2), (2, 1, 3, 2))
TINY_CONV_SHAPES = ((2, 5, 3, 4), (2, 1, 3, 4))


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


def frame_counts(shape, ragged, device):
    """Uneven lengths, one of them 0, or ``None``."""
    batch, time = shape[:2]
    return torch.tensor([time, 0, time // 2], device=device)[:batch] if ragged else None


def double(tensors):
    """Leaves of float64 with the same values; pairs as pairs."""
    if isinstance(tensors, tuple):
        return tuple(map(double, tensors))
    return None if tensors is None else tensors.detach().double().requires_grad_()


def leaves(tensors):
    """The tensors among arguments, pairs unpacked."""
    for tensor in tensors:
        if isinstance(tensor, tuple):
            yield from leaves(tensor)
        elif tensor is not None:
            yield tensor


def outcomes(outputs, inputs, names, with_state=True):
    """Outputs, last state and gradients by name, of a loss that weighs every element differently."""
    *outs, last = outputs
    loss = 0
    for y in (*outs, last) if with_state else outs:
        weights = torch.linspace(-1, 1, max(1, y.numel()), device=y.device)[: y.numel()]
        wide = y if y.dtype == torch.float64 else y.float()
        loss = loss + (wide * weights.view_as(y)).sum()
    gradients = torch.autograd.grad(loss, list(leaves(inputs)), materialize_grads=True)
    found = {f"output {i}": y for i, y in enumerate(outs)} | {"state": last}
    return found | {f"gradient of {n}": g for n, g in zip(names, gradients, strict=True)}


def error(got, expected):
    """Largest difference over the expectation's largest magnitude (over 1 where that is less)."""
    if not expected.numel():
        return 0.0
    scale = max(1.0, expected.abs().max().item())
    value = (got.double() - expected).abs().max().item() / scale
    return float("inf") if math.isnan(value) else value


class Tally:
    """Worst errors of each implementation and dtype; one row each."""

    def __init__(self, operation):
        self.operation, self.worst, self.cases = operation, {}, {}

    def add(self, name, dtype, got, expected, case):
        """Compare one case's outcomes."""
        key = (name, dtype)
        self.cases[key] = self.cases.get(key, 0) + 1
        worst = self.worst.setdefault(key, {})
        for what, value in expected.items():
            kind = what.split()[0]
            found = error(got[what], value)
            if found >= worst.get(kind, (-1.0,))[0]:
                worst[kind] = (found, what, case)

    def fail(self, name, dtype, reason, case):
        """Note an implementation that raised."""
        self.cases[name, dtype] = self.cases.get((name, dtype), 0) + 1
        self.worst.setdefault((name, dtype), {})["output"] = (float("inf"), reason, case)

    def rows(self):
        """The rows, and how many of our own implementations' fail."""
        rows, failures = [], 0
        for (name, dtype), worst in self.worst.items():
            largest = max(worst.values())
            passed = largest[0] <= TOLERANCES[dtype]
            failures += not passed and name not in FOREIGN
            values = {kind: f"{worst[kind][0]:.1e}" for kind in worst}
            row = {
                "operation": self.operation,
                "backend": name,
                "dtype": str(dtype).removeprefix("torch."),
                "cases": self.cases[name, dtype],
                "output": values.get("output", ""),
                "state": values.get("state", ""),
                "gradients": values.get("gradient", ""),
                "tolerance": TOLERANCES[dtype],
                "result": "pass" if passed else f"FAIL: {largest[1]} at {largest[2]}",
            }
            rows.append(row)
        return rows, failures


def compare(tally, names, run, reference, inputs, tensor_names, case):
    """Run the reference once and each named implementation, and add them to the tally."""
    wide = [double(t) for t in inputs]
    expected = {}
    label = f"{case[0]}, ragged {case[2]}, reverse {case[3]}, state {case[4]}"
    for name in names:
        # mamba_ssm passes no gradient through its last state
        with_state = name not in FOREIGN
        if with_state not in expected:
            expected[with_state] = outcomes(reference(*wide), wide, tensor_names, with_state)
        try:
            got = outcomes(run(name)(*inputs), inputs, tensor_names, with_state)
        except Exception as problem:  # noqa: BLE001 - whatever a kernel raises is a finding
            tally.fail(name, case[1], f"{type(problem).__name__}: {str(problem)[:120]}", label)
            continue
        tally.add(name, case[1], got, expected[with_state], label)


def check_scan(device, shapes, dtypes):
    """One direction."""
    tally = Tally("selective scan")
    for case in cases(shapes, dtypes):
        shape, dtype, ragged, reverse, given = case
        tensors = scan_tensors(shape, dtype, device, given, plain=reverse and given)
        options = {"lengths": frame_counts(shape, ragged, device), "reverse": reverse}

        def bound(scan, options=options):
            def call(*tensors_in_order):
                *some, state = tensors_in_order
                return scan(*some, True, **options, initial_state=state)

            return call

        names, _ = available(SCANS, tensors["u"], tensors["A"], None, tensors["initial_state"])
        present = [name for name in TENSORS if tensors[name] is not None]
        inputs = [tensors[name] for name in TENSORS]

        def run(name, bound=bound):
            return bound(SCANS[name][0])

        compare(tally, names, run, bound(selective_scan_naive), inputs, present, case)
    return tally.rows()


def check_bidirectional_scan(device, shapes, dtypes):
    """Both directions in one call, the gate shared."""
    tally = Tally("bidirectional scan")
    functions = bidirectional_scans()
    for case in cases(shapes, dtypes):
        shape, dtype, ragged, reverse, given = case
        if reverse:
            continue
        first = scan_tensors(shape, dtype, device, given)
        second = scan_tensors(shape, dtype, device)
        inputs = [
            first[name] if name in ("z", "initial_state") else (first[name], second[name])
            for name in TENSORS
        ]
        lengths = frame_counts(shape, ragged, device)

        def bound(scan, lengths=lengths):
            def call(*tensors_in_order):
                *some, state = tensors_in_order
                return scan(*some, True, lengths=lengths, initial_state=state)

            return call

        names, _ = available(SCANS, first["u"], first["A"], None, first["initial_state"])
        present = [
            f"{name}{suffix}"
            for name in TENSORS
            if first[name] is not None
            for suffix in (("",) if name in ("z", "initial_state") else ("", " backward"))
        ]
        reference = bound(composed(selective_scan_naive))

        def run(name, bound=bound):
            return bound(functions[name])

        compare(tally, names, run, reference, inputs, present, case)
    return tally.rows()


def conv_tensors(shape, dtype, device, given):
    """x, weight, bias and the initial state, or ``None`` for that."""
    batch, time, channels, width = shape

    def normal(*size, dtype=torch.float32):
        return torch.randn(*size, device=device).to(dtype).requires_grad_()

    state = normal(batch, channels, width, dtype=dtype) if given else None
    x = normal(batch, time, channels, dtype=dtype)
    return x, normal(channels, width), normal(channels), state


def check_conv(device, shapes, dtypes):
    """One direction."""
    tally = Tally("causal convolution")
    for case in cases(shapes, dtypes):
        shape, dtype, ragged, reverse, given = case
        inputs = conv_tensors(shape, dtype, device, given)
        options = {"lengths": frame_counts(shape, ragged, device), "reverse": reverse}

        def bound(conv, options=options):
            def call(x, weight, bias, state):
                return conv(x, weight, bias, "silu", **options, initial_state=state)

            return call

        names, _ = available(CONVOLUTIONS, *inputs)
        present = ["x", "weight", "bias", *(["initial_state"] if given else [])]

        def run(name, bound=bound):
            return bound(CONVOLUTIONS[name][0])

        compare(tally, names, run, bound(causal_conv1d_naive), inputs, present, case)
    return tally.rows()


def check_bidirectional_conv(device, shapes, dtypes):
    """Both directions over one input."""
    tally = Tally("bidirectional convolution")
    for case in cases(shapes, dtypes):
        shape, dtype, ragged, reverse, given = case
        if reverse:
            continue
        x, weight, bias, state = conv_tensors(shape, dtype, device, given)
        _, weight_b, bias_b, _ = conv_tensors(shape, dtype, device, False)
        inputs = [x, (weight, weight_b), (bias, bias_b), state]
        options = {"lengths": frame_counts(shape, ragged, device)}

        def fused(x, weight, bias, state, options=options):
            return bidirectional_conv1d_triton(
                x, weight, bias, "silu", **options, initial_state=state
            )

        def two_loops(x, weight, bias, state, options=options):
            y, last = causal_conv1d_naive(
                x, weight[0], bias[0], "silu", **options, initial_state=state
            )
            back, _ = causal_conv1d_naive(x, weight[1], bias[1], "silu", **options, reverse=True)
            return y, back, last

        names, _ = available(CONVOLUTIONS, x, weight, bias, state)
        present = ["x", "weight", "weight backward", "bias", "bias backward"]
        present += ["initial_state"] if given else []
        ours = [name for name in names if name == "triton"]
        compare(tally, ours, lambda _, fused=fused: fused, two_loops, inputs, present, case)
    return tally.rows()


CHECKS = (check_conv, check_bidirectional_conv, check_scan, check_bidirectional_scan)


def part(number, dtype, device, seed):
    """One operation in one dtype: rows and failures."""
    torch.manual_seed(seed)
    card, conv = device.type == "cuda", number < 2
    if card:
        shapes = CONV_SHAPES if conv else SCAN_SHAPES
    else:
        shapes = TINY_CONV_SHAPES if conv else TINY_SCAN_SHAPES
    return CHECKS[number](device, shapes, (dtype,))


def outcomes_of_all(device, seed):
    """Each part's rows and failures: on a card from several processes, since most of the time goes into compiling."""
    parts = [(n, dtype, device, seed) for n in range(len(CHECKS)) for dtype in TOLERANCES]
    if device.type != "cuda":
        yield from itertools.starmap(part, parts)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(_WORKERS, mp_context=context) as pool:
        # the longest first
        for future in [pool.submit(part, *arguments) for arguments in reversed(parts)]:
            yield future.result()


def note_missing(report, device):
    """Say which implementations are not compared, and why."""
    scan = scan_tensors((1, 1, 1, 1), torch.float32, device)
    conv = conv_tensors((1, 1, 1, 1), torch.float32, device, False)
    for what, table, example in (
        ("scan", SCANS, (scan["u"], scan["A"])),
        ("convolution", CONVOLUTIONS, conv),
    ):
        for name, reason in available(table, *example)[1].items():
            report.notes.append(f"{what} {name}: not compared, {reason}")
            print(report.notes[-1], flush=True)


def run(arguments):
    """Write the table; 1 if any of our implementations is off."""
    report = arguments.report("parity", "Parity with the loop over time in float64")
    note_missing(report, arguments.device)
    report.notes.append(
        "mamba_ssm is compared without initial state and without a loss on the last state, through which it "
        "passes no gradient; it decides nothing here"
    )
    failures = 0
    for rows, failed in outcomes_of_all(arguments.device, arguments.seed):
        failures += failed
        for row in rows:
            report.add(**row)
    report.notes.append("all pass" if not failures else f"{failures} rows FAIL")
    report.write()
    print(report.notes[-1])
    return int(failures > 0)

"""Speed and memory of both directions' scans with their gate, of the convolutions, and of the whole block.

Against two calls of mamba_ssm's ``selective_scan_fn`` with the flips that its layout asks for, and against the
``torch`` backend. Results of one shape are compared with each other before they are timed.
"""

import contextlib
import time

import torch

from benchmarks.gpu import kernels, roofline, sweep
from benchmarks.gpu.timing import measure
from modules.ssm import BiMamba, use_backend

# (batch, time, channels, states): recognition, separation, a small batch, a long narrow one, a large batch
SHAPES = (
    (16, 500, 1024, 16),
    (1, 8000, 512, 16),
    (8, 250, 512, 16),
    (1, 2000, 288, 16),
    (32, 1000, 512, 16),
)
# (batch, time, d_model)
BLOCKS = ((16, 500, 512), (1, 8000, 256))
SMALL_SHAPES = ((2, 40, 32, 16),)
SMALL_BLOCKS = ((2, 40, 16),)
_DTYPES = (torch.bfloat16, torch.float32)
# seconds after which the sweep begins nothing more
_SWEEP_UNTIL = 420
_SEQUENCES = ("u", "delta", "B", "C", "z")


def foreign():
    """``selective_scan_fn`` and ``causal_conv1d_fn`` of the packages built before, or ``None`` for them."""
    found = []
    for module, name in (
        ("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn"),
        ("causal_conv1d", "causal_conv1d_fn"),
    ):
        try:
            found.append(getattr(__import__(module, fromlist=[name]), name))
        except (ImportError, OSError):
            found.append(None)
    return found


def channel_major(first, second, scan):
    """Two calls of mamba_ssm's function: its own layout and order of frames, with the flips around them.

    The second direction's tensors lie in the order in which it runs, as its projections would leave them; its input
    and the shared gate are flipped on the way in and its output on the way out, as in the published block.
    """

    def laid_out(tensor, flipped):
        tensor = tensor.detach().flip(1) if flipped else tensor.detach()
        return tensor.transpose(1, 2).contiguous().requires_grad_()

    one = {n: laid_out(first[n], False) if n in _SEQUENCES else first[n] for n in first}
    two = {n: laid_out(second[n], n != "u") if n in _SEQUENCES else second[n] for n in second}

    def call():
        names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
        forward = scan(*(one[n] for n in names), True)
        given = two | {"u": two["u"].flip(-1), "z": one["z"].flip(-1)}
        return forward + scan(*(given[n] for n in names), True).flip(-1)

    unused = ("initial_state",)
    inputs = [t for n, t in one.items() if n not in unused]
    return call, inputs + [t for n, t in two.items() if n not in (*unused, "z")]


def contestants(shape, dtype, device):
    """Functions and the tensors to differentiate by, and why others are missing."""
    first = kernels.scan_tensors(shape, dtype, device)
    second = kernels.scan_tensors(shape, dtype, device)
    pairs = [
        first[n] if n in ("z", "initial_state") else (first[n], second[n]) for n in kernels.TENSORS
    ]
    *some, _ = pairs
    inputs = [t for pair in some for t in (pair if isinstance(pair, tuple) else [pair])]
    names, missing = kernels.available(kernels.SCANS, first["u"], first["A"])
    both = kernels.bidirectional_scans()
    functions = {}
    for name in names:
        if name != "mamba_ssm" and (name != "triton" or device.type == "cuda"):
            functions[name] = (lambda scan=both[name]: scan(*some, True)[0], inputs)
    scan, _ = foreign()
    if scan is not None and device.type == "cuda":
        functions["mamba_ssm"] = channel_major(first, second, scan)
    return functions, missing


def with_gradients(function, inputs):
    """Forward and backward pass of a function, given its output's gradient."""
    upstream = torch.randn_like(function().detach())
    return lambda: torch.autograd.grad(function(), inputs, upstream)


def without_gradients(function):
    """The forward pass alone."""

    def call():
        with torch.no_grad():
            return function()

    return call


def add_rows(report, what, shape, dtype, functions, device, rounds, limits=None):
    """Time forward and forward + backward and add a row for each function."""
    ready = {}
    for name, (function, inputs) in functions.items():
        try:
            ready[name] = (without_gradients(function), with_gradients(function, inputs))
        except Exception as problem:  # noqa: BLE001 - what cannot run is noted
            report.notes.append(f"{what} {shape} {name}: {type(problem).__name__}: {problem}")
    for backward in (False, True):
        found = measure({n: pair[backward] for n, pair in ready.items()}, device, rounds)
        yardstick = found.get("mamba_ssm", found.get("published", {})).get("ms")
        for name, row in found.items():
            ms = row.get("ms")
            scan = what == "bidirectional scan"
            itemsize = dtype.itemsize
            report.add(
                operation=what,
                shape=str(shape),
                dtype=str(dtype).removeprefix("torch."),
                passes="forward + backward" if backward else "forward",
                backend=name,
                ms=f"{ms:.3f}" if ms else row["error"],
                least=f"{row['least']:.3f}" if ms else "",
                MiB=f"{row['MiB']:.0f}" if row.get("MiB") is not None else "",
                times_as_fast_as_mamba_ssm=f"{yardstick / ms:.2f}" if ms and yardstick else "",
                floor_share=roofline.share(ms, shape, itemsize, backward, limits) if scan else "",
            )


def check_agreement(report, shape, dtype, functions):
    """Note the largest difference between the results, relative to the largest value."""
    with torch.no_grad():
        results = {}
        for name in ("torch", "triton"):
            if name in functions:
                results[name] = functions[name][0]().float()
    if len(results) == 2:
        a, b = results.values()
        difference = ((a - b).abs().max() / a.abs().max()).item()
        report.notes.append(f"{shape} {dtype}: torch and triton differ by {difference:.1e}")


def block_functions(shape, device):
    """The whole block with each backend, and as published on mamba_ssm."""
    batch, time, width = shape
    block = BiMamba(width).to(device)
    x = torch.randn(batch, time, width, device=device, requires_grad=True)
    inputs = [x, *block.parameters()]

    def ours(name):
        def call():
            with use_backend(name), torch.autocast(device.type, torch.bfloat16):
                return block(x)

        return call

    names = ["torch", "triton"] if device.type == "cuda" else ["torch", "cpu"]
    functions = {name: (ours(name), inputs) for name in names}
    scan, conv = foreign()
    if scan is not None and device.type == "cuda":
        published = kernels.published_block(block, scan, conv)

        def call():
            with torch.autocast(device.type, torch.bfloat16):
                return published(x)

        functions["published"] = (call, inputs)
    return functions


def run(arguments):
    """Write the table."""
    began = time.monotonic()
    torch.manual_seed(arguments.seed)
    device = arguments.device
    card = device.type == "cuda"
    report = arguments.report("speed", "Speed and peak memory")
    rounds = 30 if card else 3
    limits = roofline.ceilings(device)
    if limits:
        report.notes.append(
            f"ceilings: {limits[0] / 1e12:.2f} TB/s (a copy, measured), "
            f"{limits[1] / 1e12:.2f}e12 exponentials/s (computed)"
        )
    for shape in SHAPES if card else SMALL_SHAPES:
        for dtype in _DTYPES:
            functions, missing = contestants(shape, dtype, device)
            with contextlib.suppress(torch.OutOfMemoryError):
                check_agreement(report, shape, dtype, functions)
            add_rows(report, "bidirectional scan", shape, dtype, functions, device, rounds, limits)
            del functions
    for name, reason in missing.items():
        report.notes.append(f"{name}: {reason}")
    for shape in BLOCKS if card else SMALL_BLOCKS:
        functions = block_functions(shape, device)
        add_rows(report, "BiMamba block", shape, torch.bfloat16, functions, device, rounds)
    report.write()
    if card:
        sweep.run(arguments, SHAPES[:2], began + _SWEEP_UNTIL)
    return 0

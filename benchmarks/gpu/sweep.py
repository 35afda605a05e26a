"""Sweep of the Triton launch plans: one number at a time changed from the plan that is chosen, each pass for itself."""

import dataclasses

import torch

from benchmarks.gpu import kernels
from benchmarks.gpu.timing import measure
from modules.ssm.conv.triton_backend import bidirectional_conv1d_triton, conv_plan
from modules.ssm.scan.triton_backend import bidirectional_scan_triton
from modules.ssm.triton.plan import plan as choose_plan

_CHANNELS = ((32, 1), (64, 1), (64, 2), (128, 2), (128, 4))  # a program's, and its warps
_FRAMES = (1, 2, 4, 8)
_CHUNKS = (0, 64, 128, 256, 512)
_ROUNDS = 15


def pass_variants(chosen):
    """Plans of one pass that differ from the chosen one in one place, itself first."""
    found = [chosen]
    found += [dataclasses.replace(chosen, block=b, warps=w) for b, w in _CHANNELS]
    found += [dataclasses.replace(chosen, frames=frames) for frames in _FRAMES]
    found += [dataclasses.replace(chosen, chunk=chunk) for chunk in _CHUNKS]
    return list(dict.fromkeys(found))


def scan_functions(shape, dtype, device, chosen, backward):
    """The bidirectional scan's forward pass, or its backward pass alone, under each variant of the plan."""
    first = kernels.scan_tensors(shape, dtype, device)
    second = kernels.scan_tensors(shape, dtype, device)
    pairs = [
        first[n] if n == "z" else (first[n], second[n])
        for n in kernels.TENSORS
        if n != "initial_state"
    ]
    inputs = [t for pair in pairs for t in (pair if isinstance(pair, tuple) else [pair])]
    upstream = torch.randn_like(first["u"])

    def forward(plan):
        def call():
            with torch.no_grad():
                return bidirectional_scan_triton(*pairs, True, plan=plan)[0]

        return call

    def both(plan):
        def call():
            out, _ = bidirectional_scan_triton(*pairs, True, plan=plan)
            return torch.autograd.grad(out, inputs, upstream)

        return call

    place, make = ("backward", both) if backward else ("forward", forward)
    plans = {
        variant: dataclasses.replace(chosen, **{place: variant})
        for variant in pass_variants(getattr(chosen, place))
    }
    return {str(variant): make(plan) for variant, plan in plans.items()}


def conv_functions(shape, dtype, device, width=4):
    """The bidirectional convolution, forward and backward, under variants of its plan."""
    batch, time, channels, _ = shape
    x = torch.randn(batch, time, channels, device=device).to(dtype).requires_grad_()
    weights = tuple(torch.randn(channels, width, device=device).requires_grad_() for _ in "fb")
    biases = tuple(torch.randn(channels, device=device).requires_grad_() for _ in "fb")
    upstream = torch.randn_like(x)
    chosen = conv_plan(channels, width)
    plans = [chosen]
    plans += [chosen._replace(block=64 * w, warps=w) for w in (2, 8)]
    plans += [chosen._replace(frames=frames) for frames in (8, 32)]
    plans += [chosen._replace(grad_frames=4, tiles=16), chosen._replace(grad_frames=16, tiles=4)]
    plans += [chosen._replace(tiles=tiles) for tiles in (2, 4, 16)]
    plans += [chosen._replace(grad_block=256)]

    def call(plan):
        def run():
            forward, backward, _ = bidirectional_conv1d_triton(
                x, weights, biases, "silu", plan=plan
            )
            return torch.autograd.grad(
                (forward, backward), (x, *weights, *biases), (upstream, upstream)
            )

        return run

    return {str(plan): call(plan) for plan in dict.fromkeys(plans)}


def add_best(report, what, shape, functions, device, deadline):
    """Time the variants, the chosen one first, and add a row a variant, fastest first."""
    found = measure(functions, device, _ROUNDS, deadline)
    chosen = next(iter(found))
    timed = sorted((row["ms"], name) for name, row in found.items() if "ms" in row)
    for ms, name in timed:
        report.add(
            what=what,
            shape=str(shape),
            plan=name,
            ms=f"{ms:.3f}",
            chosen="chosen" if name == chosen else "",
            note="best" if name == timed[0][1] else "",
        )
    for name, row in found.items():
        if "error" in row:
            report.notes.append(f"{what} {shape} {name}: {row['error']}")


def run(arguments, shapes, deadline, dtype=torch.bfloat16):
    """Write the table of the sweep; variants that come after the deadline are noted as not reached."""
    device = arguments.device
    report = arguments.report("plans", "Launch plans of the Triton kernels")
    units = torch.cuda.get_device_properties(device).multi_processor_count
    for shape in shapes:
        chosen = choose_plan(*shape, 2, units)
        for backward in (False, True):
            what = "scan, forward + backward" if backward else "scan, forward"
            functions = scan_functions(shape, dtype, device, chosen, backward)
            add_best(report, what, shape, functions, device, deadline)
        functions = conv_functions(shape, dtype, device)
        add_best(report, "convolution, forward + backward", shape, functions, device, deadline)
    report.write()

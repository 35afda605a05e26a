"""Speed and memory of both directions' scans with their gate, and of the whole block, with each implementation.

The yardstick is mamba_ssm's ``selective_scan_fn``: two calls in its own layout, with the flips that its second
direction asks for.
"""

import torch

from benchmarks.gpu import kernels
from benchmarks.measure import interleaved
from modules.ssm import BiMamba, use_backend

# (batch, time, channels, states): recognition, separation, a small batch, a large batch
SHAPES = ((16, 500, 1024, 16), (1, 8000, 512, 16), (8, 250, 512, 16), (32, 1000, 512, 16))
# (batch, time, d_model)
BLOCKS = ((16, 500, 512), (1, 8000, 256))
SMALL_SHAPES, SMALL_BLOCKS = ((2, 40, 32, 16),), ((2, 40, 16),)
_SEQUENCES = ("u", "delta", "B", "C", "z")


def yardstick():
    """``selective_scan_fn``, built before, or why it is missing."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except (ImportError, OSError) as error:
        return None, f"mamba_ssm is left out: {error}"
    return selective_scan_fn, None


def channel_major(first, second, scan):
    """Two calls of mamba_ssm's function, and the tensors to differentiate by.

    The second direction's tensors lie in the order in which it runs, as its projections would leave them. Its input
    and the shared gate are flipped on the way in and its output on the way out, as in the published block.
    """

    def laid_out(tensor, flipped):
        tensor = tensor.detach().flip(1) if flipped else tensor.detach()
        return tensor.transpose(1, 2).contiguous().requires_grad_()

    one = {n: laid_out(t, False) if n in _SEQUENCES else t for n, t in first.items()}
    two = {n: laid_out(t, n != "u") if n in _SEQUENCES else t for n, t in second.items()}

    def call():
        forward = scan(*one.values(), True)
        given = two | {"u": two["u"].flip(-1), "z": one["z"].flip(-1)}
        return forward + scan(*given.values(), True).flip(-1)

    return call, [*one.values(), *(t for n, t in two.items() if n != "z")]


def scans(shape, dtype, device, selective_scan_fn):
    """Functions of both directions by name, each with the tensors to differentiate by."""
    first, second = (kernels.scan_tensors(shape, dtype, device) for _ in range(2))
    pairs = kernels.in_pairs(first, second)
    inputs = list(kernels.leaves(pairs).values())
    names = ["torch", "triton"] if device.type == "cuda" else ["torch"]
    functions = {
        name: (lambda both=kernels.BOTH_SCANS[name]: both(*pairs.values(), True)[0], inputs)
        for name in names
    }
    if selective_scan_fn is not None and device.type == "cuda":
        functions["mamba_ssm"] = channel_major(first, second, selective_scan_fn)
    return functions


def blocks(shape, device, selective_scan_fn):
    """The whole block in bf16 with each backend, and the tensors to differentiate by."""
    batch, time, width = shape
    block = BiMamba(width).to(device)
    x = torch.randn(batch, time, width, device=device, requires_grad=True)

    def ours(name):
        def call():
            with use_backend(name), torch.autocast(device.type, torch.bfloat16):
                return block(x)

        return call, [x, *block.parameters()]

    names = ["torch", "triton"] if device.type == "cuda" else ["torch", "cpu"]
    names += ["mamba_ssm"] if selective_scan_fn is not None and device.type == "cuda" else []
    return {name: ours(name) for name in names}


def with_gradients(function, inputs):
    """Forward and backward pass of a function, given its output's gradient."""
    upstream = torch.randn_like(function().detach())
    return lambda: torch.autograd.grad(function(), inputs, upstream)


def measure(function, device):
    """Milliseconds of a call, and MiB that it allocates beyond what was there (a card's only)."""
    if device.type != "cuda":
        return 1000 * min(interleaved({"it": function}, rounds=3)["it"]), None
    from triton.testing import do_bench

    function()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    function()
    torch.cuda.synchronize(device)
    peak = (torch.cuda.max_memory_allocated(device) - before) / 2**20
    return do_bench(function, warmup=50, rep=300, return_mode="median"), peak


def add_rows(report, operation, shape, dtype, functions, device):
    """Time forward and forward + backward and add a row for each function; one that raises is a row too."""
    for backward in (False, True):
        for name, (function, inputs) in functions.items():
            figures = {"ms": "", "MiB": "", "problem": ""}
            try:
                with torch.set_grad_enabled(backward):
                    call = with_gradients(function, inputs) if backward else function
                    ms, peak = measure(call, device)
                figures |= {"ms": f"{ms:.3f}", "MiB": "" if peak is None else f"{peak:.0f}"}
            except Exception as problem:  # noqa: BLE001 - what does not compile or fit is a row
                figures["problem"] = f"{type(problem).__name__}: {str(problem)[:150]}"
            report.add(
                operation=operation,
                shape=str(shape),
                dtype=str(dtype).removeprefix("torch."),
                passes="forward + backward" if backward else "forward",
                backend=name,
                **figures,
            )


def run(arguments):
    """Write the table."""
    torch.manual_seed(1)
    device = arguments.device
    card = device.type == "cuda"
    report = arguments.report("speed", "Speed and peak memory")
    scan, missing = yardstick()
    if missing:
        report.note(missing)
    for shape in SHAPES if card else SMALL_SHAPES:
        for dtype in (torch.bfloat16, torch.float32):
            functions = scans(shape, dtype, device, scan)
            add_rows(report, "bidirectional scan", shape, dtype, functions, device)
    for shape in BLOCKS if card else SMALL_BLOCKS:
        functions = blocks(shape, device, scan)
        add_rows(report, "BiMamba block", shape, torch.bfloat16, functions, device)
    return 0

"""Random cases of the scan and the convolution, every backend against the loop in float64.

Each operation is tried for a few seconds, with shapes, lengths, directions, dtypes, layouts and options
drawn from a seed that a failure names. `MAMBA_SPEECH_SOAK_SECONDS` sets the seconds an
operation, `MAMBA_SPEECH_SOAK_SEED` the first seed.
"""

import os
import random
import time

import pytest
import torch

from modules.ssm import (
    available_backends,
    bidirectional_conv1d,
    bidirectional_scan,
    causal_conv1d,
    selective_scan,
    use_backend,
)
from modules.ssm.conv.naive import causal_conv1d_naive
from modules.ssm.scan.naive import selective_scan_naive

SECONDS = float(os.environ.get("MAMBA_SPEECH_SOAK_SECONDS", "4"))
FIRST_SEED = int(os.environ.get("MAMBA_SPEECH_SOAK_SEED", "0"))
TIMES = (0, 1, 2, 3, 15, 16, 17, 31, 32, 33, 48, 65, 130)
CHANNELS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 40, 64, 65, 130)
STATES = (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 24, 32, 33)
# one rounding of an output or a gradient, and some of a sum's
TOLERANCES = {
    torch.float64: 1e-9,
    torch.float32: 5e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}
DTYPES = (torch.float32,) * 5 + (torch.bfloat16, torch.float16, torch.float64)


class Case:
    """Random choices, all from one seed, and a line about them."""

    def __init__(self, seed):
        self.pick = random.Random(seed)
        torch.manual_seed(seed)
        self.batch = self.pick.randint(1, 5)
        self.time = self.pick.choice(TIMES)
        self.channels = self.pick.choice(CHANNELS)
        self.states = self.pick.choice(STATES)
        self.dtype = self.pick.choice(DTYPES)
        self.reverse = self.coin()
        self.softplus = self.coin()
        self.lengths = None
        if self.coin():
            lengths = [self.pick.randint(0, self.time) for _ in range(self.batch)]
            self.lengths = torch.tensor(lengths, dtype=self.pick.choice((torch.int64, torch.int32)))
        self.given = {name: self.coin() for name in ("D", "z", "delta_bias", "initial_state")}

    def __str__(self):
        return ", ".join(f"{name}={value}" for name, value in vars(self).items() if name != "pick")

    def coin(self):
        return self.pick.random() < 0.5

    def laid_out(self, x):
        """``x`` as it is, as a slice of something wider, or with its axes in another order in memory."""
        layout = self.pick.choice(("plain", "slice", "channels first", "time first"))
        if layout == "slice":
            x = torch.cat([x, x], -1)[..., : x.shape[-1]]
        elif layout == "channels first":
            x = x.transpose(1, 2).contiguous().transpose(1, 2)
        elif layout == "time first":
            x = x.transpose(0, 1).contiguous().transpose(0, 1)
        return x.detach().requires_grad_()

    def frames(self, width):
        """A (batch, time, width) tensor with NaN behind each utterance's end."""
        x = torch.randn(self.batch, self.time, width)
        if self.lengths is not None:
            padding = torch.arange(self.time) >= self.lengths.unsqueeze(1)
            x = x.masked_fill(padding.unsqueeze(-1), float("nan"))
        return self.laid_out(x.to(self.dtype))

    def parameter(self, *shape):
        dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        return torch.randn(*shape).to(dtype).requires_grad_()

    def scan_inputs(self):
        """One direction's tensors by name; the step is negative at no frame, so that nothing grows."""
        delta = self.frames(self.channels)
        if not self.softplus:
            delta = delta.detach().abs().requires_grad_()
        slowest = self.pick.choice((1e-3, 1.0, 30.0))
        A = self.parameter(self.channels, self.states).detach().abs().mul(-slowest)
        inputs = {
            "u": self.frames(self.channels),
            "delta": delta,
            "A": A.requires_grad_(),
            "B": self.frames(self.states),
            "C": self.frames(self.states),
            "D": self.parameter(self.channels),
            "z": self.frames(self.channels),
            "delta_bias": self.parameter(self.channels).detach().abs().requires_grad_(),
            "initial_state": self.parameter(self.batch, self.channels, self.states),
        }
        return {name: x if self.given.get(name, True) else None for name, x in inputs.items()}


def doubled(inputs):
    return {
        name: None if x is None else x.detach().double().requires_grad_()
        for name, x in inputs.items()
    }


def with_gradients(results, inputs, weights):
    """The results and the gradients of their weighted sum."""
    given = [x for x in inputs.values() if x is not None]
    pairs = [(r, w.to(r.dtype)) for r, w in zip(results, weights, strict=True) if r.requires_grad]
    gradients = [None] * len(given)
    if pairs:  # without frames nothing may depend on anything
        used, weights = zip(*pairs, strict=True)
        gradients = torch.autograd.grad(used, given, weights, allow_unused=True)
    zeros = (torch.zeros_like(x) for x in given)
    return *results, *(z if g is None else g for g, z in zip(gradients, zeros, strict=True))


def check(case, backend, names, expected, got):
    for name, a, b in zip(names, expected, got, strict=True):
        where = f"{name} by {backend}: {case}"
        assert a.shape == b.shape, where
        if not a.numel():
            continue
        assert b.isfinite().all(), f"not finite: {where}"
        # with weights of one sign or another a gradient may cancel: 1 is the scale of the inputs
        error = (a - b).abs().max().item() / max(1.0, a.abs().max().item())
        half = case.dtype in (torch.float16, torch.bfloat16)
        wanted = torch.float32 if half and b.dtype == torch.float32 else case.dtype
        # what reaches a float32 gradient in a half-precision case is exact on both sides
        assert error <= TOLERANCES[wanted], f"relative error {error:.1e} in {where}"


def rounded_weights(case, results):
    """Weights of the results that every dtype in play holds exactly."""
    return [torch.randint(-2, 3, r.shape).to(r.dtype) for r in results]


def try_scan(case):
    inputs = case.scan_inputs()
    options = {"lengths": case.lengths, "reverse": case.reverse}
    double = doubled(inputs)
    plain = {k: v for k, v in double.items() if k != "initial_state"}
    options_of = {"delta_softplus": case.softplus, **options}
    results = selective_scan_naive(**plain, initial_state=double["initial_state"], **options_of)
    weights = rounded_weights(case, results)
    expected = with_gradients(results, double, weights)
    names = ["out", "last_state", *(f"d{k}" for k, v in inputs.items() if v is not None)]
    for backend in available_backends():
        if backend == "cpu" and case.dtype == torch.float64:
            continue
        got = selective_scan(**inputs, **options_of, return_last_state=True, backend=backend)
        check(case, backend, names, expected, with_gradients(got, inputs, weights))


def try_bidirectional_scan(case):
    forward, backward = case.scan_inputs(), case.scan_inputs()
    z, initial = forward.pop("z"), forward.pop("initial_state")
    del backward["z"], backward["initial_state"]
    own = {f"{k} {way}": t[k] for way, t in (("f", forward), ("b", backward)) for k in t}
    inputs = {**own, "z": z, "initial_state": initial}
    double = doubled(inputs)

    def direction(way):
        return {k: double[f"{k} {way}"] for k in forward} | {"z": double["z"]}

    options = {"delta_softplus": case.softplus, "lengths": case.lengths}
    out, last = selective_scan_naive(
        **direction("f"), initial_state=double["initial_state"], **options
    )
    out = out + selective_scan_naive(**direction("b"), reverse=True, **options)[0]
    weights = rounded_weights(case, (out, last))
    expected = with_gradients((out, last), double, weights)
    names = ["out", "last_state", *(f"d{k}" for k, v in inputs.items() if v is not None)]
    pairs = {k: None if forward[k] is None else (forward[k], backward[k]) for k in forward}
    for backend in available_backends():
        if backend == "cpu" and case.dtype == torch.float64:
            continue
        got = bidirectional_scan(
            **pairs, z=z, initial_state=initial, return_last_state=True, backend=backend, **options
        )
        check(case, backend, names, expected, with_gradients(got, inputs, weights))


def conv_inputs(case, width):
    return {
        "weight": case.parameter(case.channels, width),
        "bias": case.parameter(case.channels) if case.given["D"] else None,
    }


def conv_backends(case):
    """The kernel computes in float32 whatever the tensors' dtype, the others in that dtype."""
    return ("cpu",) if case.dtype in (torch.float16, torch.bfloat16) else ("cpu", "torch", "naive")


def try_conv(case):
    width = case.pick.choice((1, 2, 3, 4, 7, 31))
    state = torch.randn(case.batch, case.channels, width).to(case.dtype).requires_grad_()
    inputs = {
        "x": case.frames(case.channels),
        **conv_inputs(case, width),
        "initial_state": state if case.given["initial_state"] else None,
    }
    options = {"activation": case.pick.choice((None, "silu")), "lengths": case.lengths}
    options["reverse"] = case.reverse
    double = doubled(inputs)
    results = causal_conv1d_naive(**double, **options)
    weights = rounded_weights(case, results)
    expected = with_gradients(results, double, weights)
    names = ["out", "last_state", *(f"d{k}" for k, v in inputs.items() if v is not None)]
    for backend in conv_backends(case):
        with use_backend(backend):
            got = causal_conv1d(**inputs, **options, return_last_state=True)
        check(case, backend, names, expected, with_gradients(got, inputs, weights))


def try_bidirectional_conv(case):
    width = case.pick.choice((1, 2, 4, 7))
    state = torch.randn(case.batch, case.channels, width).to(case.dtype).requires_grad_()
    ways = [conv_inputs(case, width) for _ in range(2)]
    inputs = {
        "x": case.frames(case.channels),
        **{f"{k} {i}": v for i, way in enumerate(ways) for k, v in way.items()},
        "initial_state": state if case.given["initial_state"] else None,
    }
    activation = case.pick.choice((None, "silu"))
    double = doubled(inputs)
    one, other = ((double[f"weight {i}"], double[f"bias {i}"], activation) for i in range(2))
    forward, last = causal_conv1d_naive(
        double["x"], *one, lengths=case.lengths, initial_state=double["initial_state"]
    )
    backward, _ = causal_conv1d_naive(double["x"], *other, lengths=case.lengths, reverse=True)
    weights = rounded_weights(case, (forward, backward, last))
    expected = with_gradients((forward, backward, last), double, weights)
    names = ["forward", "backward", "last_state"]
    names += [f"d{k}" for k, v in inputs.items() if v is not None]
    for backend in conv_backends(case):
        with use_backend(backend):
            got = bidirectional_conv1d(
                inputs["x"],
                tuple(way["weight"] for way in ways),
                tuple(way["bias"] for way in ways),
                activation,
                lengths=case.lengths,
                initial_state=inputs["initial_state"],
            )
        check(case, backend, names, expected, with_gradients(got, inputs, weights))


OPERATIONS = (try_scan, try_bidirectional_scan, try_conv, try_bidirectional_conv)


@pytest.mark.exhaustive
@pytest.mark.parametrize("attempt", OPERATIONS, ids=lambda f: f.__name__.removeprefix("try_"))
def test_random_cases_equal_the_loop_in_results_and_every_gradient(attempt):
    stop, seed = time.monotonic() + SECONDS, FIRST_SEED
    while seed == FIRST_SEED or time.monotonic() < stop:
        try:
            attempt(Case(seed))
        except Exception as error:
            raise AssertionError(
                f"seed {seed} (MAMBA_SPEECH_SOAK_SEED={seed} starts with it): {error}"
            ) from error
        seed += 1
    print(f"{seed - FIRST_SEED} cases")

"""The channel-major functions keep mamba_ssm's signature, layouts and dtypes, over the grid of its own tests.

The grid is that of the package's tests/ops/test_selective_scan.py: groups, constant and varying B
and C, every optional input, three dtypes, several lengths. Complex parameters are left out: they are refused.
"""

import inspect
import itertools

import pytest
import torch

from modules.ssm import available_backends, selective_scan_fn, selective_scan_ref, use_backend

# of mamba_ssm 2.3.2.post1, both functions
SIGNATURE = (
    "(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, "
    "return_last_state=False)"
)
BATCH, CHANNELS, STATES = 2, 4, 8
TOLERANCES = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
LAYOUTS = ("constant", "shared", "one group", "two groups")


def varying(layout, time, dtype):
    """B or C in one of the layouts; those that are constant in time are float32 as A is."""
    shape = {
        "constant": (CHANNELS, STATES),
        "shared": (BATCH, STATES, time),
        "one group": (BATCH, 1, STATES, time),
        "two groups": (BATCH, 2, STATES, time),
    }[layout]
    return torch.randn(shape).to(torch.float32 if layout == "constant" else dtype)


def arguments(layout_B, layout_C, time, dtype, without=()):
    tensors = {
        "u": torch.randn(BATCH, CHANNELS, time).to(dtype),
        "delta": (0.5 * torch.rand(BATCH, CHANNELS, time)).to(dtype),
        "A": -0.5 * torch.rand(CHANNELS, STATES),
        "B": varying(layout_B, time, dtype),
        "C": varying(layout_C, time, dtype),
        "D": torch.randn(CHANNELS),
        "z": torch.randn(BATCH, CHANNELS, time).to(dtype),
        "delta_bias": 0.5 * torch.rand(CHANNELS),
    }
    return {k: None if k in without else v.requires_grad_() for k, v in tensors.items()}


def results(scan, tensors, softplus=True):
    """Output, last state and gradients of the given tensors, called by position."""
    out, last = scan(*(tensors[name] for name in NAMES), softplus, True)
    given = [t for t in tensors.values() if t is not None]
    weight = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out.dtype)
    return out, last, *torch.autograd.grad(out, given, weight)


def assert_same(expected, got, tolerance):
    for a, b in zip(expected, got, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert (a - b).abs().max() <= tolerance * max(1.0, a.abs().max().item())


@pytest.mark.parametrize("function", [selective_scan_fn, selective_scan_ref])
def test_signature_is_that_of_mamba_ssm(function):
    assert str(inspect.signature(function)) == SIGNATURE


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("layout_C", LAYOUTS)
@pytest.mark.parametrize("layout_B", LAYOUTS)
def test_fast_function_equals_the_loop_for_every_layout_of_b_and_c(layout_B, layout_C, dtype):
    for time in (1, 8, 37):
        tensors = arguments(layout_B, layout_C, time, dtype)
        got, expected = (results(f, tensors) for f in (selective_scan_fn, selective_scan_ref))
        assert_same(expected, got, TOLERANCES[dtype])
        assert got[0].shape == (BATCH, CHANNELS, time) and got[0].dtype == dtype
        assert got[1].shape == (BATCH, CHANNELS, STATES) and got[1].dtype == torch.float32
        for gradient, tensor in zip(got[2:], tensors.values(), strict=True):
            assert gradient.shape == tensor.shape and gradient.dtype == tensor.dtype


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("layouts", [("shared", "shared"), ("two groups", "two groups")])
def test_every_backend_equals_the_loop_in_the_frequent_layouts(layouts, backend):
    tensors = arguments(*layouts, 130, torch.float32)
    with use_backend(backend):
        got = results(selective_scan_fn, tensors)
    assert_same(results(selective_scan_ref, tensors), got, 1e-4)


@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("layout", ["constant", "shared", "two groups"])
def test_any_optional_input_may_be_left_out(layout, softplus):
    optional = ("D", "z", "delta_bias")
    for count in (1, 2, 3):
        for without in itertools.combinations(optional, count):
            tensors = arguments(layout, layout, 19, torch.float32, without)
            expected = results(selective_scan_ref, tensors, softplus)
            assert_same(expected, results(selective_scan_fn, tensors, softplus), 1e-4)


@pytest.mark.parametrize("function", [selective_scan_fn, selective_scan_ref])
def test_the_last_state_comes_only_when_asked_for_and_takes_part_in_gradients(function):
    tensors = arguments("shared", "shared", 12, torch.float32)
    out = function(**tensors, delta_softplus=True)
    again, last = function(**tensors, delta_softplus=True, return_last_state=True)
    assert torch.equal(out, again)
    assert torch.autograd.grad(last.sum(), tensors["A"])[0].abs().max() > 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_says_what_it_means_channel_by_channel(layout):
    """The equations written out for one channel, so that both functions cannot be wrong together."""
    tensors = {
        k: v.detach()
        for k, v in arguments(layout, layout, 9, torch.float32, ("z",)).items()
        if k != "z"
    }
    out, last = selective_scan_fn(**tensors, return_last_state=True)
    for item, channel in itertools.product(range(BATCH), range(CHANNELS)):
        h = torch.zeros(STATES)
        for t in range(9):
            B, C = (_of_channel(tensors[name], item, channel, t) for name in "BC")
            u = tensors["u"][item, channel, t]
            dt = tensors["delta"][item, channel, t] + tensors["delta_bias"][channel]
            h = torch.exp(dt * tensors["A"][channel]) * h + dt * u * B
            expected = (h * C).sum() + tensors["D"][channel] * u
            assert torch.isclose(out[item, channel, t], expected, rtol=1e-4, atol=1e-5)
        assert torch.allclose(last[item, channel], h, rtol=1e-4, atol=1e-5)


def _of_channel(x, item, channel, t):
    if x.dim() == 2:
        return x[channel]
    if x.dim() == 3:
        return x[item, :, t]
    return x[item, channel * x.shape[1] // CHANNELS, :, t]


def test_strides_of_a_caller_s_tensors_do_not_matter():
    tensors = {
        k: v.detach() for k, v in arguments("shared", "two groups", 21, torch.float32).items()
    }
    other = {
        k: v if v.dim() < 3 else v.transpose(-1, -2).contiguous().transpose(-1, -2)
        for k, v in tensors.items()
    }
    assert any(not v.is_contiguous() for v in other.values())
    options = {"delta_softplus": True, "return_last_state": True}
    assert_same(
        selective_scan_fn(**tensors, **options), selective_scan_fn(**other, **options), 1e-6
    )


@pytest.mark.parametrize("function", [selective_scan_fn, selective_scan_ref])
@pytest.mark.parametrize(
    "name, change, message",
    [
        ("A", lambda x: x.to(torch.complex64), "A is complex"),
        ("B", lambda x: x[:, :, :5], "B must be .* 9 frames of time"),
        ("B", lambda x: x[:, :5], "B must be .* 8 states"),
        ("C", lambda x: x.unsqueeze(1).repeat(1, 3, 1, 1), "share 4 channels out"),
        ("C", lambda x: x[0, :2, :2], "C must be"),
        ("delta", lambda x: x[..., :5], "delta must have shape"),
        ("D", lambda x: x[:2], "D must have shape"),
        ("u", lambda x: x[0], "u must be"),
        ("A", lambda x: x[:3], "A must be"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(function, name, change, message):
    tensors = {k: v.detach() for k, v in arguments("shared", "shared", 9, torch.float32).items()}
    tensors[name] = change(tensors[name])
    with pytest.raises(ValueError, match=message):
        function(**tensors)

"""Every operator refuses what it cannot take: one sentence that names the argument, whichever backend is chosen.

A grid of operators, their arguments, and absurd values for each. The compiled kernels read memory at
addresses, so what passes here unseen can end the process.
"""

import re

import numpy as np
import pytest
import torch
from speechbrain.utils.run_opts import RunOptions

from modules.kws.retention import (
    MultiScaleRetention,
    decay_rates,
    retention_chunkwise,
    retention_parallel,
    retention_recurrent,
)
from modules.separation.si_snr import pit_si_snr
from modules.speaker.windows import cut_crops, cut_windows
from modules.ssm import (
    BiMamba,
    Mamba,
    MambaStack,
    available_backends,
    bidirectional_conv1d,
    bidirectional_scan,
    causal_conv1d,
    depthwise_conv1d,
    selective_scan,
    selective_scan_fn,
    selective_scan_ref,
    use_backend,
)
from training.experiment import check_device

# PyTorch says of nested tensors that they are a prototype
pytestmark = pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")

BATCH, TIME, CHANNELS, STATES, WIDTH = 2, 6, 4, 3, 3
OPTIONAL = ("D", "z", "delta_bias", "initial_state", "bias", "state", "lengths")

# what becomes of a tensor, by name; each result must be refused in every argument
TENSOR_FAULTS = {
    "None": lambda x: None,
    "a number": lambda x: 1.0,
    "a text": lambda x: "x",
    "a list": lambda x: x.tolist(),
    "a NumPy array": lambda x: x.numpy(),
    "integers": lambda x: x.long(),
    "truth values": lambda x: x > 0,
    "complex numbers": lambda x: x.to(torch.complex64),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "quantised": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
    "another device": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse(),
    "nested": lambda x: torch.nested.nested_tensor([x, x]),
    "a scalar": lambda x: torch.tensor(1.0),
    "a dimension more": lambda x: x.unsqueeze(0).unsqueeze(0),
    "a dimension less": lambda x: x[0],
    "nothing along the last dimension": lambda x: x[..., :0],
    "one more along the last dimension": lambda x: torch.cat([x, x[..., :1]], -1),
}
# faults of the first argument that show in the others
SHARED = ("another device", *(name for name in TENSOR_FAULTS if "last dimension" in name))
# arguments whose last dimension others must follow
FREE = ("A", "weight", "v")
LENGTH_FAULTS = {
    "a list": [TIME, 1],
    "a number": 3,
    "relative lengths": torch.tensor([1.0, 0.5]),
    "truth values": torch.tensor([True, False]),
    "complex counts": torch.tensor([6, 3], dtype=torch.complex64),
    "uint16": torch.tensor([6, 3], dtype=torch.uint16),
    "beyond the end": torch.tensor([TIME + 1, 1]),
    "far beyond the end": torch.tensor([2**62, 1]),
    "below zero": torch.tensor([-1, 1]),
    "one too few": torch.tensor([TIME]),
    "a column": torch.tensor([[TIME], [1]]),
    "a scalar": torch.tensor(TIME),
    "on meta": torch.tensor([TIME, 1], device="meta"),
}
SWITCH_FAULTS = {
    "text": "no",
    "None": None,
    "two": 2,
    "tensor": torch.ones(2),
    "fraction": 0.5,
    "list": [],
}


def scan_inputs():
    """Arguments of a scan that fit."""
    return {
        "u": torch.randn(BATCH, TIME, CHANNELS),
        "delta": torch.rand(BATCH, TIME, CHANNELS),
        "A": -torch.rand(CHANNELS, STATES),
        "B": torch.randn(BATCH, TIME, STATES),
        "C": torch.randn(BATCH, TIME, STATES),
        "D": torch.randn(CHANNELS),
        "z": torch.randn(BATCH, TIME, CHANNELS),
        "delta_bias": torch.randn(CHANNELS),
        "initial_state": torch.randn(BATCH, CHANNELS, STATES),
    }


def channel_major():
    """Arguments of the functions in the layout of `mamba_ssm`."""
    tensors = scan_inputs()
    del tensors["initial_state"]
    return {k: v.transpose(1, 2).contiguous() if v.dim() == 3 else v for k, v in tensors.items()}


def conv_inputs():
    """Arguments of a convolution that fit."""
    return {
        "x": torch.randn(BATCH, TIME, CHANNELS),
        "weight": torch.randn(CHANNELS, WIDTH),
        "bias": torch.randn(CHANNELS),
        "initial_state": torch.randn(BATCH, CHANNELS, WIDTH),
    }


def retention_inputs():
    """Arguments of a retention that fit."""
    q, k, v = torch.randn(3, BATCH, TIME, 2, CHANNELS).unbind()
    return {
        "q": q,
        "k": k,
        "v": v,
        "decay": decay_rates(2),
        "state": torch.randn(BATCH, 2, CHANNELS, CHANNELS),
    }


def both(function, shared):
    """An operator on pairs as one on single tensors: both directions get the same."""

    def called(lengths=None, **tensors):
        pairs = {k: v if k in shared else (v, v) for k, v in tensors.items()}
        return function(**pairs, lengths=lengths)

    return called


def ahead(x, weight, bias):
    return depthwise_conv1d(x, weight, bias, ahead=1)


BLOCK, BOTH_WAYS, STACK = Mamba(CHANNELS), BiMamba(CHANNELS), MambaStack(2, CHANNELS)
RETENTION = MultiScaleRetention(CHANNELS, 2)
without_state = {k: v for k, v in conv_inputs().items() if k != "initial_state"}

# operator: (function, arguments that fit)
OPERATORS = {
    "selective_scan": (selective_scan, scan_inputs()),
    "bidirectional_scan": (both(bidirectional_scan, ("z", "initial_state")), scan_inputs()),
    "selective_scan_fn": (selective_scan_fn, channel_major()),
    "selective_scan_ref": (selective_scan_ref, channel_major()),
    "causal_conv1d": (causal_conv1d, conv_inputs()),
    "bidirectional_conv1d": (both(bidirectional_conv1d, ("x", "initial_state")), conv_inputs()),
    "depthwise_conv1d": (ahead, without_state),
    "Mamba": (BLOCK, {"x": torch.randn(BATCH, TIME, CHANNELS)}),
    "BiMamba": (BOTH_WAYS, {"x": torch.randn(BATCH, TIME, CHANNELS)}),
    "MambaStack": (STACK, {"x": torch.randn(BATCH, TIME, CHANNELS)}),
    "Mamba.final_state": (BLOCK.final_state, {"x": torch.randn(BATCH, TIME, CHANNELS)}),
    "Mamba.step": (
        lambda x_t: BLOCK.step(x_t, BLOCK.initial_state(BATCH)),
        {"x_t": torch.randn(BATCH, CHANNELS)},
    ),
    "retention_parallel": (retention_parallel, retention_inputs()),
    "retention_recurrent": (retention_recurrent, retention_inputs()),
    "retention_chunkwise": (retention_chunkwise, retention_inputs()),
    "MultiScaleRetention": (RETENTION, dict.fromkeys("qkv", torch.randn(BATCH, TIME, CHANNELS))),
}
WITH_LENGTHS = (
    "selective_scan",
    "bidirectional_scan",
    "causal_conv1d",
    "bidirectional_conv1d",
    "Mamba",
    "BiMamba",
    "MambaStack",
    "Mamba.final_state",
)
ARGUMENTS = [(operator, name) for operator, (_, given) in OPERATORS.items() for name in given]


def refuse(call, *names):
    """Assert that a call is refused in one sentence that names the argument, or one of them."""
    with pytest.raises(ValueError) as caught:
        call()
    said = str(caught.value)
    assert re.match("|".join(rf"{re.escape(name)}\b" for name in names), said), said
    assert re.search(r"must|is on|are on|is complex|holds", said) and "\n" not in said, said


@pytest.mark.parametrize("operator, name", ARGUMENTS)
def test_a_tensor_that_an_operator_cannot_take_is_refused_by_name_on_every_backend(operator, name):
    function, given = OPERATORS[operator]
    for backend in available_backends():
        with use_backend(backend):
            function(**given)
            for fault, change in TENSOR_FAULTS.items():
                if fault == "None" and name in OPTIONAL:
                    continue
                free = name in FREE and "last dimension" in fault
                if free and operator == "depthwise_conv1d":
                    continue
                # who differs from the first argument is the stranger
                first = (name == next(iter(given)) and fault in SHARED) or free
                call = {**given, name: change(given[name])}
                refuse(lambda call=call: function(**call), *(given if first else [name]))


@pytest.mark.parametrize("fault", LENGTH_FAULTS)
@pytest.mark.parametrize("operator", WITH_LENGTHS)
def test_lengths_that_are_no_frame_counts_are_refused_on_every_backend(operator, fault):
    function, given = OPERATORS[operator]
    for backend in available_backends():
        with use_backend(backend):
            refuse(lambda: function(**given, lengths=LENGTH_FAULTS[fault]), "lengths")


@pytest.mark.parametrize("fault", SWITCH_FAULTS)
@pytest.mark.parametrize(
    "operator, switch",
    [
        ("selective_scan", "delta_softplus"),
        ("selective_scan", "reverse"),
        ("selective_scan_fn", "delta_softplus"),
        ("selective_scan_ref", "delta_softplus"),
        ("causal_conv1d", "reverse"),
    ],
)
def test_a_switch_is_true_or_false(operator, switch, fault):
    function, given = OPERATORS[operator]
    refuse(lambda: function(**given, **{switch: SWITCH_FAULTS[fault]}), switch)


@pytest.mark.parametrize(
    "backend", ["", "CPU", None, 3, [], "cuda", b"cpu", torch.ones(2)], ids=repr
)
def test_a_backend_that_there_is_not_is_refused_with_the_names_of_all(backend):
    with pytest.raises(ValueError, match="unknown backend .* choose auto or one of cpu, triton"):
        selective_scan(**scan_inputs(), backend=backend)


@pytest.mark.parametrize(
    "state",
    [
        torch.ones(2, 5),
        (None, None),
        BLOCK.initial_state(3),
        Mamba(CHANNELS, d_state=5).initial_state(BATCH),
        Mamba(CHANNELS, d_conv=2).initial_state(BATCH),
        BLOCK.initial_state(BATCH, dtype=torch.int64),
        tuple(reversed(BLOCK.initial_state(BATCH))),
        BLOCK.initial_state(BATCH)[:1],
        "state",
    ],
    ids=["tensor", "Nones", "batch", "d_state", "d_conv", "integers", "swapped", "half", "text"],
)
def test_a_state_of_another_block_is_refused(state):
    x = torch.randn(BATCH, TIME, CHANNELS)
    for block in (BLOCK, BOTH_WAYS):
        refuse(lambda block=block: block(x, state=state), "state")
        refuse(lambda block=block: block.final_state(x, state=state), "state")
    refuse(lambda: BLOCK.step(x[:, 0], state), "state")
    refuse(lambda: STACK(x, states=[state, state]), "state")
    refuse(lambda: STACK(x, states=[BLOCK.initial_state(BATCH)]), "states")


@pytest.mark.parametrize("name", ["d_model", "d_state", "d_conv", "dt_rank"])
@pytest.mark.parametrize("value", [0, -1, 1.5, float("nan"), "8", None, True, [8]], ids=repr)
def test_a_size_of_a_block_is_a_whole_number_from_one(name, value):
    for block in (Mamba, BiMamba):
        refuse(lambda block=block: block(**{"d_model": CHANNELS} | {name: value}), name)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"expand": 0}, "expand"),
        ({"expand": -2}, "expand"),
        ({"expand": float("inf")}, "expand"),
        ({"expand": "2"}, "expand"),
        ({"expand": 0.1}, r"expand * d_model"),
        ({"dt_min": 0}, "dt_min"),
        ({"dt_min": float("nan")}, "dt_min"),
        ({"dt_max": -1.0}, "dt_max"),
        ({"dt_min": 1.0, "dt_max": 0.1}, "dt_min"),
        ({"dt_scale": 0}, "dt_scale"),
        ({"dt_init_floor": None}, "dt_init_floor"),
        ({"dt_init": "zeros"}, "dt_init"),
    ],
    ids=repr,
)
def test_a_step_or_an_expansion_that_makes_no_block_is_refused(options, named):
    refuse(lambda: Mamba(CHANNELS, **options), named)


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", None])
def test_a_chunk_of_retention_is_a_frame_or_more(value):
    refuse(lambda: retention_chunkwise(**retention_inputs(), chunk=value), "chunk")


@pytest.mark.parametrize("value", [-1, WIDTH, 1.5, None, "1", 2**70])
def test_frames_ahead_lie_within_the_width(value):
    refuse(lambda: depthwise_conv1d(**without_state, ahead=value), "ahead")


@pytest.mark.parametrize("operator", OPERATORS)
def test_strides_expanded_views_and_gradients_change_no_result(operator):
    """What is unusual but right is taken: views of any strides, other integer types of lengths, leaves."""
    function, given = OPERATORS[operator]
    strange = {k: as_strange_view(v) for k, v in given.items()}
    wanted, found = function(**given), function(**strange)
    for one, other in zip(outputs(wanted), outputs(found), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    leaves = {k: v.clone().requires_grad_() for k, v in given.items()}
    outputs(function(**leaves))[0].sum().backward()
    if operator in WITH_LENGTHS:
        counts = [
            function(**given, lengths=torch.tensor([TIME, 2], dtype=kind))
            for kind in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
        ]
        for other in counts[1:]:
            assert torch.equal(outputs(counts[0])[0], outputs(other)[0])


def as_strange_view(x):
    """The same numbers, every second one of a larger tensor, with the dimensions in another order in memory."""
    reordered = x.permute(*reversed(range(x.dim()))).contiguous()
    return torch.stack([reordered, reordered], -1)[..., 1].permute(*reversed(range(x.dim())))


def outputs(result):
    """All tensors of a result, those of its states included."""
    return [result] if isinstance(result, torch.Tensor) else [t for r in result for t in outputs(r)]


@pytest.mark.parametrize("function", [retention_parallel, retention_recurrent, retention_chunkwise])
def test_retention_of_no_frames_hands_its_state_on(function):
    given = retention_inputs()
    nothing = given | {name: given[name][:, :0] for name in "qkv"}
    out, state = function(**nothing)
    assert out.shape == (BATCH, 0, 2, CHANNELS) and torch.equal(state, given["state"])


def test_numbers_of_numpy_are_whole_numbers_and_switches_too():
    assert Mamba(np.int64(CHANNELS), d_state=np.int32(3)).d_state == 3
    given = scan_inputs()
    assert torch.equal(selective_scan(**given, reverse=1), selective_scan(**given, reverse=True))


@pytest.mark.parametrize("batch, time", [(0, TIME), (BATCH, 0), (0, 0)])
@pytest.mark.parametrize("operator", [o for o in OPERATORS if not o.startswith("Mamba.")])
def test_no_utterances_or_no_frames_give_nothing_on_every_backend(operator, batch, time):
    function, given = OPERATORS[operator]
    short = {k: v if v.dim() < 3 else v[:batch] for k, v in given.items()}
    short |= {
        k: along_time(v, time, function)
        for k, v in short.items()
        if v.dim() > 2 and k not in ("state", "initial_state")
    }
    for backend in available_backends():
        with use_backend(backend):
            found = outputs(function(**short))[0]
            assert found.shape[0] == batch and found.numel() == 0


def test_a_step_of_no_utterances_and_a_state_after_no_frames_are_taken():
    y, state = BLOCK.step(torch.randn(0, CHANNELS), BLOCK.initial_state(0))
    assert y.shape == (0, CHANNELS) and state.conv.shape[0] == 0
    before = BLOCK(torch.randn(BATCH, TIME, CHANNELS), return_state=True)[1]
    after = BLOCK.final_state(torch.randn(BATCH, 0, CHANNELS), state=before)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def along_time(x, time, function):
    """The first frames of a tensor of an operator."""
    channel_major = function in (selective_scan_fn, selective_scan_ref)
    return x[..., :time] if channel_major else x[:, :time]


def test_no_size_makes_a_loop_without_end():
    for longest in (0, -1, 0.5, None):
        refuse(lambda n=longest: list(cut_windows([torch.zeros(5)], n)), "longest")
        refuse(lambda n=longest: cut_crops(torch.zeros(5), n), "size")
    refuse(lambda: cut_crops(torch.zeros(0), 5), "waveform")
    refuse(lambda: pit_si_snr(*torch.randn(2, 1, 100, 12)), "targets")


@pytest.mark.parametrize("backend", ["fast", "mamba_ssm", "triton"])
def test_a_training_is_refused_at_once_where_the_environment_s_backend_cannot_run(
    backend, monkeypatch
):
    monkeypatch.setenv("MAMBA_SPEECH_BACKEND", backend)
    with pytest.raises(SystemExit, match=f"{backend}.*MAMBA_SPEECH_BACKEND"):
        check_device(RunOptions(device="cpu"), {})
    monkeypatch.setenv("MAMBA_SPEECH_BACKEND", "torch")
    check_device(RunOptions(device="cpu"), {})

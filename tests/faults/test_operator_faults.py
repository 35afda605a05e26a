"""Every operator refuses what it cannot take: one sentence that names the argument, whichever backend is chosen.

A grid of operators, their arguments, and absurd values for each. The compiled kernels read memory at
addresses, so what passes here unseen can end the process.
"""

import pytest
import torch

from modules.ssm import (
    available_backends,
    selective_scan,
    selective_scan_fn,
    selective_scan_ref,
    use_backend,
)
from tests.support.operators import BATCH, OPERATORS, TIME, WITH_LENGTHS, refuse, scan_inputs

# PyTorch says of nested tensors that they are a prototype
pytestmark = pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")

ARGUMENTS = [(operator, name) for operator, (_, given) in OPERATORS.items() for name in given]
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


def along_time(x, time, function):
    """The first frames of a tensor of an operator."""
    channel_major = function in (selective_scan_fn, selective_scan_ref)
    return x[..., :time] if channel_major else x[:, :time]

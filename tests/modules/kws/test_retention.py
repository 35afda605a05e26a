"""Retention: the published layer to the last digit, and its three forms against one another."""

import pytest
import torch

from modules.kws.retention import (
    FORMS,
    MultiScaleRetention,
    decay_rates,
    retention_chunkwise,
    retention_parallel,
    retention_recurrent,
)
from tests.support.golden import Golden


def test_golden_retention_in_every_form():
    with Golden("kws_retention_op") as golden, torch.no_grad():
        layer = MultiScaleRetention(golden.meta["embed_dim"], golden.meta["num_heads"])
        layer.load_state_dict(golden.state_dict(), strict=True)
        inputs = [golden[f"input/{name}"] for name in "qkv"]
        for form in FORMS:
            golden.compare("output/out", layer(*inputs, form=form)[0])
            golden.compare("output/out_recurrent", layer(*inputs, form=form)[0])


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (3, 64), (2, 65), (1, 150)])
def test_retention_is_the_same_in_parallel_by_chunks_and_by_steps(shape):
    torch.manual_seed(3)
    q, k, v = torch.randn(3, *shape, 2, 8, dtype=torch.float64).requires_grad_().unbind()
    state = torch.randn(shape[0], 2, 8, 8, dtype=torch.float64)
    results = []
    for form, options in (
        (retention_recurrent, {}),
        (retention_parallel, {}),
        (retention_chunkwise, {"chunk": 64}),
        (retention_chunkwise, {"chunk": 5}),
    ):
        out, last = form(q, k, v, decay_rates(2).double(), state, **options)
        loss = out.square().sum() + last.square().sum()
        results.append((out, last, *torch.autograd.grad(loss, (q, k, v))))
    for other in results[1:]:
        for tensor, wanted in zip(other, results[0], strict=True):
            assert torch.allclose(tensor, wanted, rtol=1e-9, atol=1e-9)


def test_a_retention_layer_carries_its_state_from_chunk_to_chunk():
    layer = MultiScaleRetention(16, 2)
    inputs = torch.randn(3, 2, 30, 16)
    whole, last = layer(*inputs)
    state, parts = None, []
    for part in inputs.split([1, 20, 9], 2):
        out, state = layer(*part, state)
        parts.append(out)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)
    assert torch.allclose(state, last, atol=1e-5)

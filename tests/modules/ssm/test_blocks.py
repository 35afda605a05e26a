"""Mamba, BiMamba and the pre-norm stack: goldens and the invariants of every state-space block."""

import math

import pytest
import torch
import torch.utils.checkpoint

from modules.ssm import (
    BiMamba,
    Mamba,
    MambaStack,
    available_backends,
    parameter_groups,
    scale_output_projections,
    use_backend,
)
from tests.support.golden import Golden

ODD = {"d_state": 8, "d_conv": 3, "expand": 3, "bias": True, "conv_bias": False}
GOLDENS = {
    "block_mamba_unidirectional": lambda: Mamba(32),
    "block_bimamba_v2": lambda: BiMamba(32),
    "block_bimamba_v2_oddrank": lambda: BiMamba(24, average=False, **ODD),
    "stack_mamba_ln": lambda: MambaStack(2, 32, bidirectional=False, rms_norm=False),
    "stack_mamba_rms": lambda: MambaStack(2, 32, bidirectional=False),
    "stack_bimamba_ln": lambda: MambaStack(2, 32, rms_norm=False),
    "stack_bimamba_rms": lambda: MambaStack(2, 32),
}
VARIANTS = {
    "mamba": lambda: Mamba(12, d_state=5),
    "mamba, normalised step": lambda: Mamba(12, dt_bc_norm=True, bias=True),
    "bimamba": lambda: BiMamba(12, d_state=5),
    "bimamba, normalised step": lambda: BiMamba(12, dt_bc_norm=True, bias=True),
    "stack": lambda: MambaStack(2, 12, d_state=5),
    "causal stack": lambda: MambaStack(2, 12, bidirectional=False, residual_in_fp32=True),
}
CAUSAL = [name for name in VARIANTS if name.startswith(("mamba", "causal"))]


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("name", GOLDENS)
def test_golden_blocks_and_stacks(name, backend):
    module = GOLDENS[name]()
    with Golden(name) as golden, use_backend(backend):
        golden.compare_module(module)
        if name != "block_mamba_unidirectional":
            return
        with torch.no_grad():
            state, outputs = module.initial_state(2), []
            for x_t in golden["input/x"].unbind(1):
                out, state = module.step(x_t, state)
                outputs.append(out)
        golden.compare("output/step_out", torch.stack(outputs, 1))
        golden.compare("output/final_conv_state", state.conv)
        golden.compare("output/final_ssm_state", state.ssm)


@pytest.mark.parametrize("name", VARIANTS)
def test_padded_batch_equals_each_utterance_alone_on_random_length_pairs(name):
    module = VARIANTS[name]()
    for _ in range(50):
        lengths = torch.randint(1, 30, (2,))
        x = torch.randn(2, int(lengths.max()), 12)
        padded = module(x, lengths=lengths)
        for item, length in enumerate(lengths.tolist()):
            alone = module(x[item : item + 1, :length])
            assert torch.allclose(padded[item, :length], alone[0], atol=2e-6)
            assert padded[item, length:].abs().sum() == 0


@pytest.mark.parametrize("name", CAUSAL)
def test_chunks_with_carried_state_equal_the_whole(name):
    module = VARIANTS[name]()
    x = torch.randn(2, 23, 12)
    whole, pieces = module(x), []
    key, keys = ("states", "return_states") if "stack" in name else ("state", "return_state")
    state = None
    for start, stop in ((0, 9), (9, 10), (10, 23)):
        out, state = module(x[:, start:stop], **{key: state, keys: True})
        pieces.append(out)
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=2e-6)


def test_step_by_step_equals_the_whole_and_leaves_the_given_state_alone():
    module = Mamba(12, d_state=5)
    x = torch.randn(2, 15, 12)
    state, outputs = module.initial_state(2), []
    for x_t in x.unbind(1):
        before = [t.clone() for t in state]
        out, new = module.step(x_t, state)
        assert all(torch.equal(a, b) for a, b in zip(before, state, strict=True))
        outputs.append(out)
        state = new
    assert torch.allclose(torch.stack(outputs, 1), module(x), atol=2e-6)


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("name", [name for name in VARIANTS if "stack" not in name])
def test_the_final_state_alone_is_that_of_the_whole_forward(name, backend):
    module = VARIANTS[name]()
    x, lengths = torch.randn(3, 14, 12), torch.tensor([14, 1, 6])
    with use_backend(backend):
        _, before = module(torch.randn(3, 5, 12), return_state=True)
        for options in ({}, {"lengths": lengths}, {"lengths": lengths, "state": before}):
            _, expected = module(x, return_state=True, **options)
            found = module.final_state(x, **options)
            assert all(
                torch.allclose(a, b, atol=5e-6) for a, b in zip(found, expected, strict=True)
            )


def test_bimamba_carries_the_forward_branch_state():
    module, forward = BiMamba(12, d_state=5), Mamba(12, d_state=5)
    forward.load_state_dict({k: v for k, v in module.state_dict().items() if "_b" not in k})
    x = torch.randn(2, 9, 12)
    _, state = module(x, return_state=True)
    _, expected = forward(x, return_state=True)
    assert all(torch.allclose(a, b, atol=5e-6) for a, b in zip(state, expected, strict=True))
    assert not torch.allclose(module(x, state=state), module(x), atol=1e-3)
    assert module.step is None


@pytest.mark.parametrize("name", CAUSAL)
def test_output_ignores_later_frames(name):
    module = VARIANTS[name]()
    x = torch.randn(1, 20, 12)
    changed = torch.cat([x[:, :12], torch.randn(1, 8, 12)], 1)
    a, b = module(x), module(changed)
    assert torch.allclose(a[:, :12], b[:, :12], atol=1e-6) and not torch.allclose(a, b)


def test_bimamba_hears_the_future_and_mirrors_with_its_branches_swapped():
    module = BiMamba(12, d_state=5)
    swapped = BiMamba(12, d_state=5)
    names = {"A_log": "A_b_log", "D": "D_b"} | {
        f"{k}.{p}": f"{k}_b.{p}"
        for k in ("conv1d", "x_proj", "dt_proj")
        for p in ("weight", "bias")
    }
    names |= {v: k for k, v in names.items()}
    swapped.load_state_dict({names.get(k, k): v for k, v in module.state_dict().items()})
    x = torch.randn(2, 17, 12)
    assert torch.allclose(swapped(x.flip(1)).flip(1), module(x), atol=2e-6)
    changed = torch.cat([x[:, :10], torch.randn(2, 7, 12)], 1)
    assert not torch.allclose(module(changed)[:, :10], module(x)[:, :10], atol=1e-4)


def test_initialisation_is_s4d_with_steps_in_range():
    module = BiMamba(64)
    for suffix in ("", "_b"):
        A_log = module.A_b_log if suffix else module.A_log
        states = torch.arange(1.0, 17).expand(128, 16)
        assert torch.allclose(A_log.exp(), states, rtol=1e-5)
        dt = torch.nn.functional.softplus(getattr(module, f"dt_proj{suffix}").bias)
        assert 0.00099 < dt.min() and dt.max() < 0.1001 and dt.max() / dt.min() > 20
        assert getattr(module, f"dt_proj{suffix}").weight.abs().max() <= 4**-0.5
        assert torch.equal(getattr(module, f"D{suffix}"), torch.ones(128))


def test_output_projections_are_scaled_by_the_depth_of_the_stack():
    shallow, deep = MambaStack(1, 64), MambaStack(16, 64)
    ratio = (
        shallow.layers[0]["mixer"].out_proj.weight.std()
        / torch.stack([layer["mixer"].out_proj.weight for layer in deep.layers]).std()
    )
    assert math.isclose(ratio, 4.0, rel_tol=0.1)
    block = Mamba(64)
    scale_output_projections(block, n_layers=2, residuals_per_layer=2)
    assert block.out_proj.weight.abs().max() <= 0.5 * 128**-0.5


def test_decay_spares_the_state_space_and_every_vector_and_covers_the_rest_once():
    module = torch.nn.ModuleDict({"a": BiMamba(12, dt_bc_norm=True, bias=True)})
    module["shared"] = module["a"]
    module["frozen"] = torch.nn.Linear(3, 3).requires_grad_(False)
    decayed, spared = parameter_groups(module, weight_decay=0.1)
    names = {id(p): n for n, p in module.named_parameters()}
    assert decayed["weight_decay"] == 0.1 and spared["weight_decay"] == 0.0
    assert {names[id(p)].rsplit(".", 2)[-2] for p in decayed["params"]} == {
        "in_proj",
        "out_proj",
        "conv1d",
        "conv1d_b",
        "x_proj",
        "x_proj_b",
        "dt_proj",
        "dt_proj_b",
    }
    assert {"a.A_log", "a.A_b_log", "a.D", "a.D_b", "a.dt_proj.bias", "a.dt_norm.weight"} <= {
        names[id(p)] for p in spared["params"]
    }
    both = decayed["params"] + spared["params"]
    assert len({id(p) for p in both}) == len(both)
    assert len(both) == sum(p.requires_grad for p in module.parameters())


def test_autocast_keeps_state_and_decay_in_float32():
    module = Mamba(12)
    x = torch.randn(1, 400, 12)
    exact, state = module(x, return_state=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, half = module(x, return_state=True)
    assert half.ssm.dtype == torch.float32
    assert (out.float() - exact).abs().max() < 0.05 * exact.abs().max()
    assert (half.ssm - state.ssm).abs().max() < 0.05 * state.ssm.abs().max()


@pytest.mark.parametrize("name", ["mamba", "bimamba"])
def test_checkpointed_activations_give_the_same_gradients(name):
    block, x = VARIANTS[name](), torch.randn(1, 20, 12, requires_grad=True)
    (expected,) = torch.autograd.grad(block(x).sum(), x)
    again = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(again.sum(), x)[0], expected)


def test_a_block_with_lengths_compiles_into_one_graph():
    block, x, lengths = VARIANTS["bimamba"](), torch.randn(2, 5, 12), torch.tensor([5, 3])
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x, lengths), block(x, lengths), atol=1e-6)


def test_auto_may_be_asked_for_by_name(monkeypatch):
    block, x = VARIANTS["mamba"](), torch.randn(1, 4, 12)
    monkeypatch.setenv("MAMBA_SPEECH_BACKEND", "auto")
    with use_backend("naive"), use_backend("auto"):
        assert block(x).shape == x.shape

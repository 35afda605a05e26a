"""The Mamba decoder: the published one to the last digit, padded memory left out, a state in place of the past."""

import pytest
import torch
from torch import nn

from modules.asr.mamba_decoder import MambaDecoder, MambaDecoderLayer, join_memory, reorder_state
from modules.fidelity import initialise_transformer_
from modules.ssm import Mamba, available_backends, parameter_groups, use_backend
from tests.support.golden import Golden

MAMBA = {"d_state": 8, "expand": 2, "d_conv": 4, "bidirectional": True}
FORMS = {"pre-norm": True, "post-norm": False}


def decoder(normalize_before=True, layers=2, **options):
    net = MambaDecoder(
        layers, 16, 24, normalize_before=normalize_before, mamba_config=MAMBA, **options
    )
    # away from the values that hide mistakes: gains of 1, biases of 0
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def apart(net, tgt, memory, lengths):
    """The plain computation: each utterance by itself, its memory cut at its end."""
    items = range(len(lengths))
    return torch.cat([net(tgt[i : i + 1], memory[i : i + 1, : lengths[i]])[0] for i in items])


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("fidelity", ["upstream", "corrected"])
@pytest.mark.parametrize("name", ["mamba_decoder_prenorm", "mamba_decoder_postnorm"])
def test_golden_decoders_and_every_gradient(name, fidelity, backend):
    with Golden(name) as golden, use_backend(backend):
        meta = golden.meta
        net = MambaDecoder(
            meta["num_layers"],
            meta["d_model"],
            meta["d_ffn"],
            nn.GELU,
            meta["dropout"],
            meta["normalize_before"],
            meta["mamba_config"],
            fidelity,
        ).eval()
        net.load_state_dict(golden.state_dict(), strict=True)
        tgt, memory = golden["input/tgt"].clone().requires_grad_(), golden["input/memory"]
        lengths = torch.full((2,), memory.shape[1])
        out, self_attentions, attentions = net(tgt, memory, memory_lengths=lengths)
        assert self_attentions == attentions == [None, None]
        golden.compare("output/out", out)
        (out * golden["input/w"]).sum().backward()
        golden.compare("grad_input/tgt", tgt.grad)
        for key, parameter in net.named_parameters():
            golden.compare(f"grad/{key}", parameter.grad)


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("form", FORMS)
def test_every_gradient_with_uneven_memories_is_that_of_each_utterance_alone(form, backend):
    net = decoder(FORMS[form])
    lengths = [9, 1, 5, 8]
    tgt, memory = torch.randn(4, 6, 16), torch.randn(4, 9, 16)
    weight = torch.randn(4, 6, 16)
    gradients = []
    for run in (
        lambda *given: net(*given, memory_lengths=torch.tensor(lengths))[0],
        lambda *given: apart(net, *given, lengths),
    ):
        given = [tgt.clone().requires_grad_(), memory.clone().requires_grad_()]
        net.zero_grad()
        with use_backend(backend):
            out = run(*given)
            (out * weight).sum().backward()
        found = [out, *(x.grad for x in (*given, *net.parameters()))]
        gradients.append([x.detach().clone() for x in found])
    names = ["out", "tgt", "memory", *(name for name, _ in net.named_parameters())]
    for name, joined, plain in zip(names, *gradients, strict=True):
        scale = plain.abs().max()
        assert scale > 0, name
        assert (joined - plain).abs().max() < 2e-5 * scale, name


@pytest.mark.parametrize("form", FORMS)
def test_what_stands_in_padded_memory_changes_nothing_and_upstream_reads_it(form):
    tgt, memory, lengths = torch.randn(2, 5, 16), torch.randn(2, 9, 16), torch.tensor([9, 4])
    noise = memory.clone()
    noise[1, 4:] = 100.0
    for fidelity in ("corrected", "upstream"):
        net = decoder(FORMS[form], fidelity=fidelity).eval()
        with torch.no_grad():
            out, other = (net(tgt, m, memory_lengths=lengths)[0] for m in (memory, noise))
            before = [net.prefill(m, lengths) for m in (memory, noise)]
        assert torch.equal(out, other) == (fidelity == "corrected")
        same = torch.equal(before[0][0].cross_state.ssm, before[1][0].cross_state.ssm)
        assert same == (fidelity == "corrected")


def test_a_padding_mask_says_the_same_as_lengths():
    net = decoder().eval()
    tgt, memory, lengths = torch.randn(2, 5, 16), torch.randn(2, 9, 16), torch.tensor([9, 4])
    mask = torch.arange(9) >= lengths.unsqueeze(1)
    by_mask, _, _ = net(tgt, memory, memory_key_padding_mask=mask)
    assert torch.equal(by_mask, net(tgt, memory, memory_lengths=lengths)[0])


@pytest.mark.parametrize("fidelity", ["corrected", "upstream"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("form", FORMS)
def test_token_by_token_with_carried_state_equals_the_whole(form, dtype, tolerance, fidelity):
    net = decoder(FORMS[form], fidelity=fidelity).to(dtype).eval()
    tgt, memory = torch.randn(5, 12, 16, dtype=dtype), torch.randn(5, 11, 16, dtype=dtype)
    lengths = torch.tensor([11, 1, 2, 7, 3])
    with torch.no_grad():
        whole, _, _ = net(tgt, memory, memory_lengths=lengths)
        state, outputs = net.prefill(memory, lengths), []
        for token in tgt.unbind(1):
            out, state = net.step(token, state)
            outputs.append(out)
    assert outputs[0].dtype == dtype
    error = (torch.stack(outputs, 1) - whole).abs().max() / whole.abs().max()
    assert error < tolerance


def test_a_step_leaves_the_state_it_was_given_and_hypotheses_can_be_reordered_and_repeated():
    net = decoder().eval()
    tgt, memory = torch.randn(3, 4, 16), torch.randn(3, 7, 16)
    index = torch.tensor([2, 0, 0, 1, 2])
    with torch.no_grad():
        _, state = net.step(tgt[:, 0], net.prefill(memory))
        kept = reorder_state(state, torch.arange(3))
        net.step(tgt[:, 1], state)
        out, _ = net.step(tgt[index, 1], reorder_state(state, index))
        expected, _, _ = net(tgt[index, :2], memory[index])
    for layer, other in zip(state, kept, strict=True):
        for one, two in zip(layer, other, strict=True):
            assert type(one) is type(two) and all(map(torch.equal, one, two))
    assert torch.allclose(out, expected[:, 1], atol=1e-5)


def test_the_state_does_not_grow_with_the_tokens_read():
    net = decoder(layers=1).eval()
    sizes = set()
    with torch.no_grad():
        state = net.prefill(torch.randn(2, 30, 16))
        for token in torch.randn(40, 2, 16):
            _, state = net.step(token, state)
            sizes.add(sum(x.numel() for block in state[0] for x in block))
    assert len(sizes) == 1


def test_a_token_sees_no_later_token():
    net = decoder().eval()
    tgt, memory, lengths = torch.randn(2, 8, 16), torch.randn(2, 9, 16), torch.tensor([9, 4])
    changed = torch.cat([tgt[:, :5], torch.randn(2, 3, 16)], 1)
    with torch.no_grad():
        one, other = (net(x, memory, memory_lengths=lengths)[0] for x in (tgt, changed))
    assert torch.allclose(one[:, :5], other[:, :5], atol=1e-6)
    assert not torch.allclose(one[:, 5:], other[:, 5:], atol=1e-2)


def test_joined_order_is_memory_then_tokens_then_padding_for_all_lengths():
    lengths = torch.arange(0, 6)
    order, tokens = join_memory(lengths, 5, 3)
    assert torch.equal(order.sort(1).values, torch.arange(8).expand(6, 8))
    for length, row, at in zip(lengths.tolist(), order.tolist(), tokens.tolist(), strict=True):
        assert row[: length + 3] == [*range(length), 5, 6, 7]
        assert [row[i] for i in at] == [5, 6, 7]


def test_both_blocks_run_forwards_and_the_options_they_were_given_stay_as_they_were():
    options = dict(MAMBA)
    layer = MambaDecoderLayer(16, 24, mamba_config=options)
    assert type(layer.self_mamba) is type(layer.cross_mamba) is Mamba
    assert options == MAMBA


@pytest.mark.parametrize("fidelity", ["corrected", "upstream"])
def test_state_space_parameters_survive_in_corrected_mode_only_and_are_never_decayed(fidelity):
    net = MambaDecoder(2, 64, 64, mamba_config={"bidirectional": True}, fidelity=fidelity)
    initialise_transformer_(net, fidelity)
    blocks = [m for m in net.modules() if isinstance(m, Mamba)]
    assert len(blocks) == 4
    for block in blocks:
        A = block.A_log.exp()
        kept = torch.allclose(A, torch.arange(1.0, 17).expand_as(A), rtol=1e-5)
        assert kept == (fidelity == "corrected")
        assert torch.equal(block.D, torch.ones_like(block.D))
    groups = parameter_groups(net, weight_decay=0.1)
    spared = {id(p) for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    assert all({id(b.A_log), id(b.D), id(b.dt_proj.bias)} <= spared for b in blocks)


def test_bfloat16_autocast_trains_and_steps_with_a_float32_state():
    net = decoder().train()
    tgt, memory, lengths = torch.randn(2, 5, 16), torch.randn(2, 9, 16), torch.tensor([9, 4])
    expected = net.eval()(tgt, memory, memory_lengths=lengths)[0]
    with torch.autocast("cpu", torch.bfloat16):
        out, _, _ = net(tgt, memory, memory_lengths=lengths)
        out.float().pow(2).mean().backward()
        with torch.no_grad():
            first, state = net.step(tgt[:, 0], net.prefill(memory, lengths))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert all(block.ssm.dtype == torch.float32 for layer in state for block in layer)
    assert torch.allclose(out.float(), expected, atol=0.1)
    assert torch.allclose(first.float(), expected[:, 0], atol=0.1)


def test_memory_absorbed_piece_by_piece_is_memory_absorbed_at_once():
    decoder = MambaDecoder(num_layers=2, d_model=16, d_ffn=32).eval()
    memory = torch.randn(2, 11, 16)
    state = None
    for piece in memory.split([4, 1, 6], 1):
        state = decoder.prefill(piece, state=state)
    whole = decoder.prefill(memory)
    for found, wanted in zip(state, whole, strict=True):
        assert torch.allclose(found.cross_state.ssm, wanted.cross_state.ssm, atol=1e-6)
        assert torch.allclose(found.cross_state.conv, wanted.cross_state.conv, atol=1e-6)

"""The Mamba language model: causal, the same in steps as whole, and whole in everything that it hands over."""

import pytest
import torch

from modules.asr.lm import MambaLM
from modules.ssm import parameter_groups

VOCAB = 23


def make_lm(dtype=torch.float32, **options):
    """A small model whose output depends on what it reads: drawn wider than it begins."""
    lm = MambaLM(VOCAB, d_model=16, n_layers=3, d_state=4, **options).to(dtype).eval()
    torch.nn.init.normal_(lm.embedding.weight)
    return lm


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("options", [{}, {"tie_weights": True, "dt_bc_norm": True, "d_conv": 3}])
def test_step_by_step_equals_whole(dtype, tolerance, options):
    lm = make_lm(dtype, **options)
    tokens = torch.randint(0, VOCAB, (3, 40))
    whole, state = lm(tokens), lm.initial_state(3)
    for index in range(tokens.shape[1]):
        logits, state = lm.step(tokens[:, index], state)
        torch.testing.assert_close(logits, whole[:, index], atol=tolerance, rtol=0)
    assert whole.std(dim=(0, 1)).min() > 0.01


def test_a_step_leaves_the_state_it_was_given_as_it_was():
    lm = make_lm()
    _, state = lm.step(torch.tensor([1, 2]), lm.initial_state(2))
    kept = [tensor.clone() for layer in state for tensor in layer]
    lm.step(torch.tensor([3, 4]), state)
    assert all(
        torch.equal(a, b) for a, b in zip(kept, [t for layer in state for t in layer], strict=True)
    )


def test_padding_on_the_right_and_later_tokens_disturb_nothing():
    lm = make_lm(torch.float64)
    tokens = torch.randint(0, VOCAB, (1, 30))
    for length in (1, 2, 17, 29):
        alone = lm(tokens[:, :length])
        padded = torch.cat([tokens[:, :length], torch.zeros(1, 30 - length, dtype=torch.long)], 1)
        for longer in (tokens, padded):
            torch.testing.assert_close(lm(longer)[:, :length], alone, atol=1e-12, rtol=0)


def test_every_token_read_matters_to_what_follows():
    lm = make_lm(torch.float64)
    tokens = torch.randint(0, VOCAB, (1, 12))
    for index in range(12):
        other = tokens.clone()
        other[0, index] = (other[0, index] + 1) % VOCAB
        change = (lm(other) - lm(tokens)).abs().amax(dim=-1)[0]
        assert change[index:].min() > 1e-9 and (index == 0 or change[:index].max() < 1e-12)


def test_tied_weights_are_one_matrix_with_a_gradient_and_no_bias():
    tied, free = make_lm(tie_weights=True), make_lm()
    assert tied.output_proj.weight is tied.embedding.weight and tied.output_proj.bias is None
    count = {lm: sum(p.numel() for p in lm.parameters()) for lm in (tied, free)}
    assert count[free] - count[tied] == VOCAB * 16 + VOCAB
    tied(torch.randint(0, VOCAB, (2, 5))).sum().backward()
    assert all(parameter.grad is not None for parameter in tied.parameters())
    copy = make_lm(tie_weights=True)
    copy.load_state_dict(tied.state_dict(), strict=True)
    assert copy.output_proj.weight is copy.embedding.weight


def test_the_state_space_keeps_its_values_and_is_spared_from_decay():
    lm = MambaLM(VOCAB, d_model=16, n_layers=2)
    _, spared = parameter_groups(lm, weight_decay=0.1)
    spared = {id(parameter) for parameter in spared["params"]}
    for layer in lm.stack.layers:
        mixer = layer["mixer"]
        torch.testing.assert_close(mixer.A_log.exp()[0], torch.arange(1.0, 17.0))
        assert torch.equal(mixer.D, torch.ones_like(mixer.D))
        step = torch.nn.functional.softplus(mixer.dt_proj.bias)
        assert 1e-4 <= step.min() and step.max() <= 0.11
        assert {id(mixer.A_log), id(mixer.D), id(mixer.dt_proj.bias)} <= spared


def test_it_runs_under_bfloat16_autocast_and_its_state_stays_float32():
    lm = make_lm()
    tokens = torch.randint(0, VOCAB, (2, 9))
    with torch.autocast("cpu", torch.bfloat16):
        half, (_, state) = lm(tokens), lm.step(tokens[:, 0], lm.initial_state(2))
    torch.testing.assert_close(half.float(), lm(tokens), atol=0.1, rtol=0.1)
    assert all(layer.ssm.dtype == torch.float32 for layer in state)


def test_dropout_acts_in_training_only():
    lm = make_lm(dropout=0.5)
    tokens = torch.randint(0, VOCAB, (2, 9))
    assert torch.equal(lm(tokens), lm(tokens))
    lm.train()
    assert not torch.equal(lm(tokens), lm(tokens))


@pytest.mark.parametrize("options", [{"vocab": 3}, {"vocab": 10, "n_layers": 0}])
def test_sizes_that_make_no_model_are_refused_by_name(options):
    with pytest.raises(ValueError, match="n_layers of 1 or more and a vocab"):
        MambaLM(d_model=8, **options)

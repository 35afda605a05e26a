"""The consistency loss of CR-CTC: its value, where its gradient goes, and what it is blind to."""

import pytest
import torch

from modules.asr.consistency import consistency_loss


def two_views(utterances=3, time=7, vocabulary=5, seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(2 * utterances, time, vocabulary, dtype=torch.float64)
    return logits.requires_grad_(), torch.tensor([time, 4, 1] * 2)


def by_hand(log_probs, lengths):
    half = len(log_probs) // 2
    total = 0.0
    for a, b, count in zip(log_probs[:half], log_probs[half:], lengths[:half], strict=True):
        for p, q in zip(a[:count].exp(), b[:count].exp(), strict=True):
            total += 0.5 * float((p * (p / q).log()).sum() + (q * (q / p).log()).sum())
    return total / half


def test_loss_is_half_of_both_divergences_summed_over_frames_and_averaged_over_utterances():
    logits, lengths = two_views()
    log_probs = logits.log_softmax(-1)
    expected = by_hand(log_probs.detach(), lengths)
    assert consistency_loss(log_probs, lengths).item() == pytest.approx(expected, rel=1e-12)


def test_token_counts_divide_each_utterance_as_ctc_of_reduction_mean_does():
    logits, lengths = two_views()
    log_probs = logits.detach().log_softmax(-1)
    counts = torch.tensor([5, 2, 0] * 2)
    alone = [consistency_loss(log_probs[i::3], lengths[i::3]).item() for i in range(3)]
    expected = (alone[0] / 5 + alone[1] / 2 + alone[2]) / 3
    assert consistency_loss(log_probs, lengths, counts).item() == pytest.approx(expected, rel=1e-12)


def test_each_view_is_drawn_towards_the_other_held_fixed():
    logits, lengths = two_views()
    consistency_loss(logits.log_softmax(-1), lengths).backward()
    probs = logits.detach().softmax(-1)
    # of the cross-entropy with a fixed target: prediction minus target
    towards = probs.roll(3, 0)
    valid = torch.arange(7) < lengths.unsqueeze(1)
    expected = 0.5 * (probs - towards) / 3 * valid.unsqueeze(-1)
    assert torch.allclose(logits.grad, expected, atol=1e-12)


def test_equal_views_cost_nothing_and_get_no_gradient():
    logits, lengths = two_views()
    same = logits.detach()[:3].repeat(2, 1, 1).requires_grad_()
    loss = consistency_loss(same.log_softmax(-1), lengths)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12) and same.grad.abs().max() < 1e-12


def test_padding_changes_nothing_even_where_it_is_not_finite():
    logits, lengths = two_views()
    log_probs = logits.detach().log_softmax(-1)
    clean = consistency_loss(log_probs, lengths)
    behind = torch.arange(7) >= lengths.unsqueeze(1)
    assert behind.any()
    for junk in (-50.0, float("nan"), float("-inf")):
        padded = log_probs.masked_fill(behind.unsqueeze(-1), junk).requires_grad_()
        loss = consistency_loss(padded, lengths)
        loss.backward()
        assert torch.equal(loss, clean), junk
        assert padded.grad[behind].abs().max() == 0, junk


def test_views_that_are_not_two_or_differ_in_length_are_refused():
    log_probs = torch.zeros(3, 4, 2).log_softmax(-1)
    with pytest.raises(ValueError, match="two views"):
        consistency_loss(log_probs, torch.tensor([4, 4, 4]))
    with pytest.raises(ValueError, match="differ in length"):
        consistency_loss(log_probs[:2], torch.tensor([4, 3]))

"""Consistency between two views of the same speech, as a loss beside CTC.

Source: Yao et al., "CR-CTC: Consistency regularization on CTC for improved speech recognition", arXiv 2410.05101,
section 3.2.
"""

import torch
from torch.nn.functional import kl_div


def consistency_loss(log_probs, lengths, token_counts=None):
    """How far the distributions of two views of each utterance are apart, frame by frame.

    The first half of the batch holds one view of every utterance, the second half the other view of the same
    utterances in the same order; views differ by their masks (and by dropout), and not in time. Each view is
    drawn towards the other, which is held fixed: half the sum of both Kullback-Leibler divergences, summed over
    the frames of an utterance and averaged over utterances. The published weight beside CTC is 0.2.

    Arguments
    ---------
    log_probs : torch.Tensor
        (2 * utterances, time, vocabulary) log-probabilities.
    lengths : torch.Tensor
        (2 * utterances,) frames that count; what lies behind them does not, and gets no gradient.
    token_counts : torch.Tensor, optional
        (2 * utterances,) token counts. Each utterance's loss is divided by its count, as CTC losses with
        ``reduction="mean"`` are. Without counts the scale is as with ``reduction="batchmean"``.

    Returns
    -------
    torch.Tensor
        A scalar.

    Raises
    ------
    ValueError
        If the batch is not made of two views of equal length.

    Example
    -------
    >>> import torch
    >>> log_probs = torch.tensor([[[0.5, 0.5]], [[0.25, 0.75]]]).log()
    >>> round(consistency_loss(log_probs, torch.tensor([1, 1])).item(), 4)
    0.1373
    >>> consistency_loss(log_probs[[0, 0]], torch.tensor([1, 1])).item()
    0.0
    """
    if log_probs.shape[0] % 2:
        raise ValueError(
            f"consistency needs two views of each utterance; got a batch of {log_probs.shape[0]}"
        )
    first, second = log_probs.chunk(2)
    first_lengths, second_lengths = lengths.chunk(2)
    if not torch.equal(first_lengths, second_lengths):
        raise ValueError(
            "the two views of an utterance differ in length; change the speed before the batch is doubled"
        )
    # masked before and not after, so that nothing behind the frames can reach the gradient: (utterances, time, 1)
    behind = torch.arange(first.shape[1], device=lengths.device) >= first_lengths.unsqueeze(1)
    first, second = (view.masked_fill(behind.unsqueeze(-1), 0.0) for view in (first, second))
    divergence = _divergence(first, second.detach()) + _divergence(second, first.detach())
    utterances = 0.5 * divergence.sum(1)
    if token_counts is not None:
        utterances = utterances / token_counts.chunk(2)[0].clamp(min=1)
    return utterances.mean()


def _divergence(log_probs, towards):
    """KL(towards || log_probs) of every frame, (utterances, time)."""
    return kl_div(log_probs, towards, reduction="none", log_target=True).sum(-1)

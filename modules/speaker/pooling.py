"""From the frames of an utterance to one vector: attention over its own frames, whatever stands behind them.

Sources: Safari et al., "Self-attention encoding and pooling for speaker recognition" (arXiv 2008.01077, section 2.2),
and Okabe et al., "Attentive statistics pooling for deep speaker embedding" (arXiv 1803.10963, section 3).
"""

import torch
from torch import nn

from modules.ssm.masking import check_lengths, keep_valid, valid_frames
from modules.ssm.precision import at_least_float32

# least variance under a square root
_EPSILON = 1e-6


class AttentionPooling(nn.Module):
    """Weighted mean over frames; a small network scores each frame.

    Arguments
    ---------
    channels : int
        Channels of a frame.
    attention_channels : int
        Width of the scoring network.

    Example
    -------
    >>> import torch
    >>> pooling = AttentionPooling(8)
    >>> pooling(torch.randn(2, 5, 8), torch.tensor([5, 3])).shape, pooling.output_size
    (torch.Size([2, 8]), 8)
    """

    _statistics = 1

    def __init__(self, channels, attention_channels=128):
        super().__init__()
        self.output_size = self._statistics * channels
        self.score = nn.Sequential(
            nn.Linear(channels, attention_channels),
            nn.Tanh(),
            nn.Linear(attention_channels, self._count_scores(channels)),
        )

    @staticmethod
    def _count_scores(channels):
        return 1

    def forward(self, x, lengths=None):
        """Pool utterances.

        Arguments
        ---------
        x : torch.Tensor
            (batch, time, channels).
        lengths : torch.Tensor, optional
            (batch,) integer frame counts of at least 1; ``None`` if all utterances fill the batch.

        Returns
        -------
        torch.Tensor
            (batch, output_size), in float32 or better.
        """
        x, weights = self._weigh(x, lengths)
        return (weights * x).sum(1)

    def _weigh(self, x, lengths):
        """Frames (batch, time, channels) in float32 or better, zero behind each end, and their weights."""
        check_lengths(lengths, *x.shape[:2])
        valid = valid_frames(lengths, x.shape[1], x.device)
        x = keep_valid(x, valid)
        scores = at_least_float32(self.score(x))
        if valid is not None:
            scores = scores.masked_fill(~valid.unsqueeze(-1), -torch.inf)
        return at_least_float32(x), scores.softmax(1)


class AttentiveStatistics(AttentionPooling):
    """Weighted mean and standard deviation over frames; each channel weighs the frames in its own way.

    Arguments
    ---------
    channels : int
        Channels of a frame.
    attention_channels : int
        Width of the scoring network.

    Example
    -------
    >>> import torch
    >>> pooling = AttentiveStatistics(8)
    >>> pooling(torch.randn(2, 5, 8), torch.tensor([5, 3])).shape, pooling.output_size
    (torch.Size([2, 16]), 16)
    """

    _statistics = 2

    @staticmethod
    def _count_scores(channels):
        return channels

    def forward(self, x, lengths=None):
        """As :meth:`AttentionPooling.forward`: means first, then deviations."""
        x, weights = self._weigh(x, lengths)
        mean = (weights * x).sum(1)
        variance = (weights * (x - mean.unsqueeze(1)).square()).sum(1)
        return torch.cat([mean, variance.clamp(min=_EPSILON).sqrt()], 1)

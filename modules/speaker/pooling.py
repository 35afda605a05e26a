"""From the frames of an utterance to one vector: attention or statistics over its own frames.

Sources: Safari et al., "Self-attention encoding and pooling for speaker recognition" (arXiv 2008.01077, section 2.2),
and Okabe et al., "Attentive statistics pooling for deep speaker embedding" (arXiv 1803.10963, section 3).
"""

import torch
import torchaudio
from torch import nn

from modules.ssm.checks import check_lengths
from modules.ssm.masking import keep_valid, valid_frames
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


class CepstralStatistics(nn.Module):
    """Mean and deviation of cepstra over an utterance, as a linear part of its embedding.

    Statistics of cepstra alone tell many speakers apart. With little data this part learns within some hundred steps,
    long before the encoder beside it.

    Arguments
    ---------
    channels : int
        Logarithmic mel bands of a frame.
    n_cepstra : int
        Coefficients that are kept of the cosine transform over bands.
    output_size : int
        Channels of the embedding.
    dropout : float
        Dropout of the statistics.

    Raises
    ------
    ValueError
        If more coefficients are wanted than there are bands, or a training batch holds one utterance.

    Example
    -------
    >>> import torch
    >>> statistics = CepstralStatistics(40, n_cepstra=20, output_size=8).eval()
    >>> statistics(torch.randn(2, 50, 40), torch.tensor([50, 30])).shape
    torch.Size([2, 8])
    """

    def __init__(self, channels, n_cepstra, output_size, dropout=0.0):
        super().__init__()
        if not 1 <= n_cepstra <= channels:
            raise ValueError(
                f"cepstral_statistics must be from 1 to the {channels} mel bands, or 0 for none; got {n_cepstra}"
            )
        transform = torchaudio.functional.create_dct(n_cepstra, channels, "ortho")
        self.register_buffer("transform", transform, persistent=False)
        self.norm = nn.BatchNorm1d(3 * n_cepstra)
        self.dropout = nn.Dropout(dropout)
        self.embed = nn.Linear(3 * n_cepstra, output_size)

    def forward(self, x, lengths=None):
        """Embed utterances (batch, time, channels) with frame counts (batch,) as (batch, output_size)."""
        if self.training and len(x) < 2:
            raise ValueError(
                "cepstral statistics are normalised over the batch, so they cannot be trained on one utterance at a "
                "time: set batch_size to 2 or more, or cepstral_statistics to 0"
            )
        batch, time, _ = x.shape
        check_lengths(lengths, batch, time)
        valid = valid_frames(lengths, time, x.device)
        with torch.autocast(x.device.type, enabled=False):
            cepstra = at_least_float32(x) @ self.transform.to(at_least_float32(x).dtype)
            change = cepstra[:, 2:] - cepstra[:, :-2]
            mean, deviation = _moments(cepstra, valid)
            # a difference counts if both of its frames are the utterance's own
            _, speed = _moments(change, None if valid is None else valid[:, 2:])
            return self.embed(self.dropout(self.norm(torch.cat([mean, deviation, speed], 1))))


def _moments(x, valid):
    """Mean and standard deviation (batch, channels) over valid frames; of no frame, zero and the least deviation."""
    x = keep_valid(x, valid)
    counts = x.shape[1] if valid is None else valid.sum(1, keepdim=True)
    counts = max(counts, 1) if valid is None else counts.clamp(min=1)
    mean = x.sum(1) / counts
    centred = keep_valid(x - mean.unsqueeze(1), valid)
    return mean, (centred.square().sum(1) / counts).clamp(min=_EPSILON).sqrt()

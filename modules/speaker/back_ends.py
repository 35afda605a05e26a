"""Back-ends: from the frames of an utterance to its embedding.

A back-end maps features (batch, time, input_size) and frame counts to embeddings (batch, embedding_size). Padding
reaches no embedding.
"""

import torch
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, TDNNBlock
from torch import nn

from modules.lengths import reflected_indices
from modules.ssm.checks import check_lengths
from modules.ssm.masking import keep_valid, valid_frames
from modules.ssm.precision import at_least_float32


class LinearBackEnd(nn.Module):
    """Mean over an utterance's frames, then one linear layer.

    Arguments
    ---------
    input_size : int
        Channels of a frame.
    embedding_size : int
        Channels of an embedding.

    Example
    -------
    >>> import torch
    >>> LinearBackEnd(16, embedding_size=8)(torch.randn(2, 9, 16), torch.tensor([9, 4])).shape
    torch.Size([2, 8])
    """

    def __init__(self, input_size, embedding_size=192):
        super().__init__()
        self.embedding_size = embedding_size
        self.linear = nn.Linear(input_size, embedding_size)

    def forward(self, x, lengths=None):
        """Embed ``x`` (batch, time, input_size) with frame counts (batch,)."""
        lengths = frame_counts(x, lengths)
        x = keep_valid(at_least_float32(x), valid_frames(lengths, x.shape[1], x.device))
        return self.linear(x.sum(1) / lengths.unsqueeze(1))


class EcapaBackEnd(ECAPA_TDNN):
    """SpeechBrain's ECAPA-TDNN, whose paddings and statistics are each utterance's own.

    SpeechBrain reflects the batch at its longest utterance, and counts frames from rounded relative lengths. On a
    batch without padding both give the same. Weights of SpeechBrain's class load. In training, batch statistics
    are over valid frames.

    Source: Desplanques et al., "ECAPA-TDNN" (arXiv 2005.07143, section 3).

    Arguments
    ---------
    input_size : int
        Channels of a frame.
    embedding_size : int
        Channels of an embedding.
    channels : int
        Channels of the first convolution and of the three blocks; the aggregation has three times as many.
    **options
        Other options of :class:`speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN` (``attention_channels``,
        ``res2net_scale``, ``se_channels``, ``dropout``, ...).

    Raises
    ------
    ValueError
        If ``res2net_scale`` does not divide ``channels``, or a batch to train on has one utterance.

    Example
    -------
    >>> import torch
    >>> back_end = EcapaBackEnd(16, embedding_size=8, channels=16, se_channels=4)
    >>> back_end(torch.randn(2, 9, 16), torch.tensor([9, 4])).shape
    torch.Size([2, 8])
    """

    def __init__(self, input_size, embedding_size=192, channels=512, **options):
        scale = options.get("res2net_scale", 8)
        if channels % scale:
            raise ValueError(
                f"channels must be a multiple of res2net_scale = {scale}; got {channels}"
            )
        super().__init__(
            input_size,
            lin_neurons=embedding_size,
            channels=[channels] * 4 + [3 * channels],
            **options,
        )
        self.embedding_size = embedding_size

    def forward(self, x, lengths=None):
        """Embed ``x`` (batch, time, input_size) with frame counts (batch,)."""
        refuse_one(self, x, "ECAPA-TDNN")
        lengths = frame_counts(x, lengths)
        valid = valid_frames(lengths, x.shape[1], x.device)
        x = x.transpose(1, 2)  # (batch, channels, time)
        frames = _Frames(lengths, valid)
        outputs = []
        for block in self.blocks:
            x = frames.tdnn(block, x) if isinstance(block, TDNNBlock) else frames.res2net(block, x)
            outputs.append(x)
        x = frames.tdnn(self.mfa, torch.cat(outputs[1:], dim=1))
        x = self.asp_bn(frames.pool(self.asp, x))
        return self.fc(x).squeeze(2)


class _Frames:
    """SpeechBrain's layers on (batch, channels, time) of utterances with frame counts ``lengths``."""

    def __init__(self, lengths, valid):
        self.lengths, self.valid = lengths, valid.unsqueeze(1)
        self.counts = lengths.view(-1, 1, 1)

    def tdnn(self, block, x):
        """A convolution, an activation, a normalisation."""
        conv = block.conv.conv
        edge = conv.dilation[0] * (conv.kernel_size[0] - 1) // 2
        if edge:
            index = reflected_indices(self.lengths, x.shape[2], edge).unsqueeze(1)
            x = x.gather(2, index.expand(-1, x.shape[1], -1))
        return block.dropout(self.normalise(block.norm.norm, block.activation(conv(x))))

    def normalise(self, norm, x):
        """Batch normalisation; in training its statistics are over valid frames."""
        return normalise_valid(norm, x, self.valid.squeeze(1))

    def res2net(self, block, x):
        """A block of several scales with squeeze and excitation."""
        residual = block.shortcut(x) if block.shortcut else x
        x = self.tdnn(block.tdnn1, x)
        scales, last = [], None
        for index, part in enumerate(x.chunk(block.res2net_block.scale, dim=1)):
            if index == 0:
                scales.append(part)
                continue
            last = self.tdnn(
                block.res2net_block.blocks[index - 1], part if last is None else part + last
            )
            scales.append(last)
        x = self.tdnn(block.tdnn2, torch.cat(scales, dim=1))
        squeezed = x.masked_fill(~self.valid, 0.0).sum(2, keepdim=True) / self.counts
        se = block.se_block
        return se.sigmoid(se.conv2(se.relu(se.conv1(squeezed)))) * x + residual

    def pool(self, pooling, x):
        """Attentive statistics (batch, 2 * channels, 1)."""
        context = x
        if pooling.global_context:
            wide = at_least_float32(x)
            statistics = weighted_statistics(
                wide, self.valid.to(wide.dtype) / self.counts, pooling.eps
            )
            context = torch.cat([x, *(one.to(x.dtype).expand_as(x) for one in statistics)], dim=1)
        scores = pooling.conv(pooling.tanh(self.tdnn(pooling.tdnn, context)))
        weights = at_least_float32(scores).masked_fill(~self.valid, -torch.inf).softmax(2)
        return torch.cat(weighted_statistics(at_least_float32(x), weights, pooling.eps), dim=1)


def weighted_statistics(x, weights, epsilon):
    """Weighted mean and deviation of ``x`` (batch, channels, time) over time, each (batch, channels, 1)."""
    mean = (weights * x).sum(2, keepdim=True)
    variance = (weights * (x - mean).square()).sum(2, keepdim=True)
    return mean, variance.clamp(min=epsilon).sqrt()


def normalise_valid(norm, x, valid):
    """Batch normalisation of ``x`` (batch, channels, ..., time); in training its statistics are over valid frames.

    Example
    -------
    >>> import torch
    >>> x, valid = torch.randn(2, 3, 5), torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    >>> normalise_valid(torch.nn.BatchNorm1d(3), x, valid).shape
    torch.Size([2, 3, 5])
    """
    if not norm.training or bool(valid.all()):
        return norm(x)
    x = x.movedim(-1, 1)  # (batch, time, channels, ...)
    frames = x[valid]
    frames = norm(frames.unsqueeze(-1) if isinstance(norm, nn.BatchNorm2d) else frames)
    mask = valid.view(*valid.shape, *[1] * (x.dim() - 2))
    return torch.zeros_like(x).masked_scatter(mask, frames.to(x.dtype)).movedim(1, -1)


def refuse_one(module, x, name):
    """Raise ``ValueError`` if the back-end ``name`` would train on a batch of one."""
    if module.training and len(x) == 1:
        raise ValueError(
            f"{name} trains on two utterances a batch or more, it normalises over the batch: "
            "leave the last one out (drop_last), or make batches larger"
        )


def frame_counts(x, lengths):
    """Frame counts of ``x`` (batch, time, ...) on its device; ``None`` stands for full rows."""
    if lengths is None:
        return torch.full(x.shape[:1], x.shape[1], device=x.device)
    check_lengths(lengths, *x.shape[:2])
    return lengths.to(x.device)

"""ReDimNet as a back-end: frames of a self-supervised network reshaped between one and two dimensions.

Source: Yakovlev et al., "Reshape Dimensions Network for Speaker Recognition" (arXiv 2407.18223). Sizes and the order
of layers are as in its published networks. Channels times bands are the same at every depth, so that outputs of
all stages can be added. Padding reaches no embedding.
"""

import torch
from torch import nn
from torch.nn import functional as F

from modules.speaker.back_ends import frame_counts, normalise_valid, refuse_one, weighted_statistics
from modules.ssm.masking import valid_frames
from modules.ssm.precision import at_least_float32

# of each published size: bands, channels, kind of the blocks, channels a group, and for each stage: factor by which
# bands shrink, blocks, factor of channels within, and by which channels shrink within attention (None: no attention)
SIZES = {
    "b0": (
        *(60, 10, "resnet", 1),
        ((1, 2, 1, 30), (2, 3, 2, 30), (1, 3, 3, 30), (2, 4, 2, 10), (1, 3, 1, 10)),
    ),
    "b1": (
        *(72, 12, "convnext", 8),
        ((1, 2, 1, None), (2, 3, 1, None), (3, 4, 1, 12), (2, 5, 1, 12), (2, 3, 1, 8)),
    ),
    "b2": (
        *(72, 16, "convnext", 4),
        ((1, 2, 1, 12), (2, 2, 1, 12), (1, 3, 1, 12), (2, 4, 1, 8), (1, 4, 1, 8), (2, 4, 1, 4)),
    ),
    "b3": (
        *(72, 16, "resnet_excited", 1),
        (
            *((1, 6, 4, 32), (2, 6, 2, 32), (1, 8, 2, 32)),
            *((2, 10, 2, 16), (1, 10, 1, 16), (2, 8, 1, 16)),
        ),
    ),
    "b4": (
        *(72, 32, "resnet_excited", 1),
        (
            *((1, 4, 2, 48), (2, 4, 2, 48), (1, 6, 2, 48)),
            *((2, 6, 1, 32), (1, 8, 1, 24), (2, 4, 1, 16)),
        ),
    ),
    "b6": (
        *(72, 32, "resnet", 32),
        (
            *((1, 4, 4, 32), (2, 6, 2, 32), (1, 6, 2, 24)),
            *((3, 8, 1, 24), (1, 8, 1, 16), (2, 8, 1, 16)),
        ),
    ),
}
_KERNELS = (7, 19, 31, 59)
_HEADS = 4


class ReDimNetBackEnd(nn.Module):
    """Frames through a ReDimNet of a published size to an embedding.

    The published network begins with mel bands. Here a normalisation and a linear layer give each frame as many
    values as the network has channels times bands; this entrance is our interpretation. The public code gives no
    dimensions that meet the published size of b5, so b5 is absent.

    Arguments
    ---------
    input_size : int
        Channels of a frame.
    embedding_size : int
        Channels of an embedding.
    size : str
        ``b0`` (1.0 M parameters without the entrance), ``b1`` (2.2 M), ``b2`` (4.7 M), ``b3`` (3.0 M), ``b4`` (6.3 M)
        or ``b6`` (15 M).

    Raises
    ------
    ValueError
        If the size is unknown, or a batch to train on has one utterance.

    Example
    -------
    >>> import torch
    >>> back_end = ReDimNetBackEnd(16, embedding_size=8, size="b0").eval()
    >>> back_end(torch.randn(2, 9, 16), torch.tensor([9, 4])).shape
    torch.Size([2, 8])
    """

    def __init__(self, input_size, embedding_size=192, size="b2"):
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(SIZES)}; got {size!r}")
        bands, channels, kind, per_group, stages = SIZES[size]
        volume = bands * channels
        self.embedding_size, self.bands, self.channels = embedding_size, bands, channels
        self.entrance = nn.Sequential(nn.LayerNorm(input_size), nn.Linear(input_size, volume))
        self.stem = nn.Conv2d(channels, channels, 3, padding=1)
        self.stem_norm = nn.LayerNorm(channels, eps=1e-6)
        self.stages = nn.ModuleList()
        for stage in stages:
            self.stages.append(_Stage(channels, bands, kind, per_group, *stage))
            channels, bands = channels * stage[0], bands // stage[0]
        # one weight a channel and output so far; the first stage has one output to read
        self.weights = nn.ParameterList(
            torch.zeros(count, volume, 1) for count in range(2, len(stages) + 2)
        )
        self.pooling = _Pooling(volume)
        self.norm = nn.BatchNorm1d(2 * volume)
        self.linear = nn.Linear(2 * volume, embedding_size)

    def forward(self, x, lengths=None):
        """Embed ``x`` (batch, time, input_size) with frame counts (batch,)."""
        refuse_one(self, x, "ReDimNet")
        lengths = frame_counts(x, lengths)
        valid = valid_frames(lengths, x.shape[1], x.device)
        x = self.entrance(x).transpose(1, 2)  # (batch, volume, time)
        x = self.stem(_silence(_to_bands(x, self.channels), valid))
        x = _to_channels(self.stem_norm(x.movedim(1, -1)).movedim(-1, 1))
        outputs = [x]
        for stage, weights in zip(self.stages, self.weights, strict=True):
            outputs.append(stage(x, valid))
            x = sum(w * one for w, one in zip(weights.softmax(0), outputs, strict=True))
        return self.linear(self.norm(self.pooling(x, lengths, valid)))


class _Stage(nn.Module):
    """Blocks in two dimensions, then attention over time in one: (batch, volume, time) to the same shape."""

    def __init__(self, channels, bands, kind, per_group, factor, n_blocks, within, reduction):
        super().__init__()
        volume, self.channels = channels * bands, channels
        channels, bands = channels * factor, bands // factor
        wide = within * channels
        self.join = nn.Conv2d(self.channels, wide, (factor, 1), stride=(factor, 1))
        block = {
            "convnext": lambda: _ConvNeXt(wide, 2, 3, per_group),
            "resnet": lambda: _Residual(wide, None, per_group),
            "resnet_excited": lambda: _Residual(wide, bands, per_group),
        }[kind]
        self.blocks = nn.ModuleList(block() for _ in range(n_blocks))
        self.narrow = None if within == 1 else _Narrow(wide, channels, per_group)
        self.context = None if reduction is None else _TimeContext(volume, volume // reduction)

    def forward(self, x, valid):
        x = self.join(_to_bands(x, self.channels))
        for block in self.blocks:
            x = block(x, valid)
        x = _to_channels(x if self.narrow is None else self.narrow(x, valid))
        return x if self.context is None else self.context(x, valid)


class _ConvNeXt(nn.Module):
    """A grouped convolution, normalisation, GELU, a linear layer, with a residual; in one or two dimensions."""

    def __init__(self, channels, dimensions, kernel, per_group=1):
        super().__init__()
        conv, norm = {1: (nn.Conv1d, nn.BatchNorm1d), 2: (nn.Conv2d, nn.BatchNorm2d)}[dimensions]
        groups = channels // per_group
        self.conv = conv(channels, channels, kernel, padding=kernel // 2, groups=groups)
        self.norm, self.linear = norm(channels), conv(channels, channels, 1)

    def forward(self, x, valid):
        out = normalise_valid(self.norm, self.conv(_silence(x, valid)), valid)
        return x + self.linear(F.gelu(out))


class _Residual(nn.Module):
    """Two grouped convolutions with linear layers, and weights of the bands where ``bands`` is given; a residual."""

    def __init__(self, channels, bands, per_group):
        super().__init__()
        self.convs, self.linears, self.norms = (nn.ModuleList() for _ in range(3))
        groups = channels // per_group
        for _ in range(2):
            conv = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)
            self.convs.append(conv)
            self.linears.append(nn.Conv2d(channels, channels, 1))
            self.norms.append(nn.BatchNorm2d(channels))
        self.excite = None
        if bands is not None:
            hidden = min(64, max(channels, 32))
            self.excite = nn.Sequential(
                nn.Linear(bands, hidden), nn.ReLU(), nn.Linear(hidden, bands), nn.Sigmoid()
            )

    def forward(self, x, valid):
        out = F.relu(self.linears[0](self.convs[0](_silence(x, valid))))
        out = normalise_valid(self.norms[0], out, valid)
        out = self.linears[1](self.convs[1](_silence(out, valid)))
        out = normalise_valid(self.norms[1], out, valid)
        if self.excite is not None:
            wide = at_least_float32(_silence(out, valid))
            mean = wide.mean(1).sum(2) / valid.sum(1, keepdim=True)  # (batch, bands)
            out = out * self.excite(mean)[:, None, :, None].to(out.dtype)
        return F.relu(x + out)


class _Narrow(nn.Module):
    """Back from the wider channels of a stage's blocks."""

    def __init__(self, wide, channels, per_group):
        super().__init__()
        self.conv = nn.Conv2d(wide, channels, 3, padding=1, groups=channels // per_group)
        self.norm = nn.BatchNorm2d(channels, eps=1e-6)
        self.linear = nn.Conv2d(channels, channels, 1)

    def forward(self, x, valid):
        x = normalise_valid(self.norm, self.conv(_silence(x, valid)), valid)
        return self.linear(F.gelu(x))


class _TimeContext(nn.Module):
    """Convolutions over ever more frames, then a Transformer layer, on fewer channels; a residual around all."""

    def __init__(self, volume, channels):
        super().__init__()
        self.reduce = nn.Linear(volume, channels)
        self.reduce_norm = nn.LayerNorm(channels, eps=1e-6)
        self.blocks = nn.ModuleList(_ConvNeXt(channels, 1, kernel) for kernel in _KERNELS)
        self.attention = nn.TransformerEncoderLayer(
            *(channels, _HEADS, channels), dropout=0.0, activation="gelu", batch_first=True
        )
        self.expand = nn.Linear(channels, volume)

    def forward(self, x, valid):
        out = self.reduce_norm(self.reduce(x.transpose(1, 2))).transpose(1, 2)
        for block in self.blocks:
            out = block(out, valid)
        out = _silence(out, valid).transpose(1, 2)
        out = self.expand(self.attention(out, src_key_padding_mask=~valid))
        return x + out.transpose(1, 2)


class _Pooling(nn.Module):
    """Attentive statistics with the utterance's own statistics as context: (batch, 2 * volume)."""

    def __init__(self, volume, hidden=128, epsilon=1e-7):
        super().__init__()
        self.hidden, self.score = nn.Linear(3 * volume, hidden), nn.Linear(hidden, volume)
        self.epsilon = epsilon

    def forward(self, x, lengths, valid):
        wide = _silence(at_least_float32(x), valid)
        mean = valid.unsqueeze(1).to(wide.dtype) / lengths.view(-1, 1, 1)
        context = [one.expand_as(wide) for one in weighted_statistics(wide, mean, self.epsilon)]
        context = torch.cat([wide, *context], dim=1).transpose(1, 2)
        scores = self.score(torch.tanh(self.hidden(context))).transpose(1, 2)
        scores = at_least_float32(scores).masked_fill(~valid.unsqueeze(1), -torch.inf)
        statistics = weighted_statistics(wide, scores.softmax(2), self.epsilon)
        return torch.cat(statistics, dim=1).squeeze(2)


def _silence(x, valid):
    """``x`` (batch, ..., time) with zeros on invalid frames."""
    return x.masked_fill(~valid.view(valid.shape[0], *[1] * (x.dim() - 2), -1), 0.0)


def _to_bands(x, channels):
    """(batch, bands * channels, time) to (batch, channels, bands, time)."""
    return x.unflatten(1, (-1, channels)).transpose(1, 2)


def _to_channels(x):
    """(batch, channels, bands, time) to (batch, bands * channels, time)."""
    return x.transpose(1, 2).flatten(1, 2)

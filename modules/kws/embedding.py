"""The convolutional embedding that the published mel networks share: a spectrogram in, a vector a frame out.

Source: the published code of "Mamba-based Network Design for Keyword Spotting" (Makarov and Levi,
2024), whose parameter names are kept. Added are masks, so that a clip is embedded as if it were alone, and a
causal form with carried state.
"""

import torch
from torch import nn
from torch.nn import functional as F

from modules.ssm.masking import valid_frames

CHANNELS = 64
_STAGES = (0, 3, 7, 10)  # where convolution, batch norm and SiLU stand, three by three
_HALVED = 2  # stages before the pooling that halves time


class ConvolutionEmbedding(nn.Sequential):
    """Four 3 x 3 convolutions with batch norm and SiLU; frequency is pooled by four and time by two.

    Arguments
    ---------
    causal : bool
        Pad two frames on the left in place of one on each side: an output reads no later frame than its own
        second one.

    Example
    -------
    >>> import torch
    >>> x, lengths = ConvolutionEmbedding()(torch.randn(2, 31, 32), torch.tensor([31, 20]))
    >>> x.shape, lengths.tolist()
    (torch.Size([2, 15, 512]), [15, 10])
    """

    def __init__(self, causal=False):
        layers = []
        for channels, wider, pool in (
            (1, 32, None),
            (32, 32, (2, 2)),
            (32, CHANNELS, None),
            (CHANNELS, CHANNELS, (2, 1)),
        ):
            convolution = nn.Conv2d(channels, wider, 3, padding=(1, 0 if causal else 1))
            layers += [convolution, nn.BatchNorm2d(wider), nn.SiLU()]
            if pool is not None:
                layers.append(nn.MaxPool2d(pool))
        super().__init__(*layers)
        self.causal = causal
        # the layout that CPUs convolve fastest in
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def frames(lengths):
        """Frames after the embedding: half of them, but one at least."""
        return (lengths // 2).clamp(min=1)

    def forward(self, x, lengths=None):
        """Embed whole clips.

        Arguments
        ---------
        x : torch.Tensor
            (batch, time, features).
        lengths : torch.Tensor, optional
            (batch,) integer frame counts: what lies behind is no part of the clip, in training nor in
            the statistics of batch norm. ``None`` takes all frames for the clip's.

        Returns
        -------
        (torch.Tensor, torch.Tensor or None)
            (batch, time // 2, 64 * (features // 4)), at least one frame, and the new frame counts.
        """
        time = max(x.shape[1], 2)
        if time > x.shape[1] and lengths is None:
            lengths = torch.ones(x.shape[0], dtype=torch.long, device=x.device)
        x = F.pad(x, (0, 0, 0, time - x.shape[1])).transpose(1, 2).unsqueeze(1)
        valid = valid_frames(lengths, time, x.device)  # (batch, time)
        for number, stage in enumerate(_STAGES):
            x = keep_columns(x, valid)
            x = F.pad(x, (2, 0)) if self.causal else x
            x = self._stage(stage, x, valid)
            if number + 1 == _HALVED:
                x = self[6](x)
                lengths = None if lengths is None else self.frames(lengths)
                valid = valid_frames(lengths, time // 2, x.device)
        return _flatten(self[13](x)), lengths

    def _stage(self, index, x, valid=None):
        """Convolution, batch norm over the valid frames, activation."""
        convolution, norm, activation = self[index], self[index + 1], self[index + 2]
        return activation(normalise_columns(norm, convolution(x), valid))

    def initial_state(self, batch, features):
        """What a causal embedding remembers before the first frame: two frames of silence a convolution.

        The last entry holds the frame, if there is one, that waits for its neighbour to be pooled with.
        """
        heights = [features, features, features // 2, features // 2]
        past = tuple(
            self[stage].weight.new_zeros(batch, self[stage].in_channels, height, 2)
            for stage, height in zip(_STAGES, heights, strict=True)
        )
        return (*past, past[1].new_zeros(batch, self[3].out_channels, features, 0))

    def forward_chunk(self, x, state):
        """Embed the next frames of a stream with a causal embedding.

        Arguments
        ---------
        x : torch.Tensor
            (batch, time, features), any number of frames.
        state : tuple
            From :meth:`initial_state`, or what the previous chunk returned.

        Returns
        -------
        (torch.Tensor, tuple)
            (batch, pairs of frames that are complete, 64 * (features // 4)), and the state.
        """
        *past, waiting = state
        x = x.transpose(1, 2).unsqueeze(1)
        for number, stage in enumerate(_STAGES):
            x, past[number] = self._next(stage, x, past[number])
            if number + 1 == _HALVED:
                x = torch.cat([waiting, x], -1)
                pairs = x.shape[-1] // 2
                x, waiting = x[..., : 2 * pairs], x[..., 2 * pairs :]
                x = self[6](x) if pairs else x[:, :, : x.shape[2] // 2]
        x = self[13](x) if x.shape[-1] else x[:, :, : x.shape[2] // 2]
        return _flatten(x), (*past, waiting)

    def _next(self, index, x, past):
        """One stage on a chunk of any length, and the two inputs that the next chunk needs."""
        time = x.shape[-1]
        x = torch.cat([past, x], -1)
        past = x[..., -2:]
        if time == 0:
            return x.new_zeros(x.shape[0], self[index].out_channels, x.shape[2], 0), past
        return self._stage(index, x), past


def keep_columns(x, valid, time=3):
    """A picture with zeros on invalid frames.

    Arguments
    ---------
    x : torch.Tensor
        (batch, channels, ...), frames along dimension ``time``.
    valid : torch.Tensor or None
        (batch, frames), True on a clip's own frames; ``None`` if all are.
    time : int
        2 or 3.

    Returns
    -------
    torch.Tensor
        As ``x``.
    """
    if valid is None:
        return x
    return x.masked_fill(~(valid[:, None, None] if time == 3 else valid[:, None, :, None]), 0.0)


def normalise_columns(norm, x, valid, time=3):
    """Batch norm whose statistics are of the valid frames alone; arguments as :func:`keep_columns`.

    In training, invalid frames become zeros.

    Arguments
    ---------
    norm : torch.nn.BatchNorm2d

    Example
    -------
    >>> import torch
    >>> norm, x = torch.nn.BatchNorm2d(3), torch.randn(1, 3, 8, 5)
    >>> out = normalise_columns(norm, x, torch.tensor([[True, True, True, False, False]]))
    >>> torch.allclose(out[..., :3], norm(x[..., :3]), atol=1e-6)
    True
    """
    if valid is None or not norm.training:
        return norm(x)
    order = (0, 3, 1, 2) if time == 3 else (0, 2, 1, 3)
    # (valid frames, channels, features, 1); contiguous, because the CPU's batch norm gets gradients wrong of a picture
    # whose last size is 1 and whose channels lie last in memory
    columns = x.permute(order)[valid].contiguous().unsqueeze(-1)
    out = x.new_zeros(x.shape).permute(order)
    out = out.index_put(valid.nonzero(as_tuple=True), norm(columns).squeeze(-1).to(x.dtype))
    return out.permute(0, 2, 3, 1) if time == 3 else out.permute(0, 2, 1, 3)


def _flatten(x):
    """(batch, channels, features, time) to (batch, time, channels * features)."""
    return x.permute(0, 3, 1, 2).flatten(2)

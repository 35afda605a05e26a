"""The bidirectional Mamba block over a grid of chunks: all of the past, and the future up to a chunk's end.

The forward branch runs from the first frame to the last, whatever the chunks. The backward branch begins anew at each
chunk's end, with a state of zeros. So an output waits for the end of its own chunk and for nothing behind it.
"""

import torch
from torch.nn import functional as F

from modules.ssm.blocks import BiMamba
from modules.ssm.checks import check_count, frame_counts
from modules.ssm.conv import causal_conv1d
from modules.ssm.scan import selective_scan


class ChunkedBiMamba(BiMamba):
    """A :class:`modules.ssm.BiMamba` that can also run over chunks; parameters and arguments are the same.

    Example
    -------
    >>> import torch
    >>> from modules.ssm import ChunkedBiMamba
    >>> block = ChunkedBiMamba(d_model=16).eval()
    >>> x = torch.randn(2, 10, 16)
    >>> first, state = block(x[:, :4], return_state=True, chunk_size=4)
    >>> rest = block(x[:, 4:], state=state, chunk_size=4)
    >>> torch.allclose(torch.cat([first, rest], 1), block(x, chunk_size=4), atol=1e-5)
    True
    """

    def forward(self, x, lengths=None, state=None, return_state=False, chunk_size=None):
        """Run the block; see :meth:`modules.ssm.Mamba.forward`.

        Arguments
        ---------
        x, lengths, state, return_state
            As for :class:`modules.ssm.BiMamba`. Frame 0 of ``x`` begins a chunk.
        chunk_size : int, optional
            Frames of a chunk; by default, ``x`` is one chunk.

        Returns
        -------
        torch.Tensor or (torch.Tensor, MambaState)
            (batch, time, d_model), and the forward branch's state.

        Raises
        ------
        ValueError
            If an argument has another type, shape or device, or the chunks have no frame.
        """
        if chunk_size is not None:
            check_count("chunk_size", chunk_size)
        if chunk_size is None or chunk_size >= x.shape[1]:
            return super().forward(x, lengths, state, return_state)
        self._check(x, state)
        return self._run(x, lengths, state, return_state, chunk_size=chunk_size)

    def _mix(self, inner, z, lengths, state, chunk_size=None):
        if chunk_size is None:
            return super()._mix(inner, z, lengths, state)
        # the forward branch alone is the unidirectional block
        ahead, new_state = super(BiMamba, self)._mix(inner, z, lengths, state)
        time = inner.shape[1]
        counts = chunk_counts(frame_counts(lengths, inner), time, chunk_size, inner)
        u = causal_conv1d(
            split_chunks(inner, chunk_size),
            self.conv1d_b.weight,
            self.conv1d_b.bias,
            "silu",
            lengths=counts,
            reverse=True,
        )
        delta, A, B, C, D, bias = self._scan_inputs(u, "_b")
        back = selective_scan(
            u,
            delta,
            A,
            B,
            C,
            D,
            split_chunks(z, chunk_size),
            bias,
            delta_softplus=True,
            lengths=counts,
            reverse=True,
        )
        y = ahead + back.reshape(inner.shape[0], -1, inner.shape[2])[:, :time]
        return (0.5 * y if self.average else y), new_state


def split_chunks(x, chunk_size):
    """Chunks of ``x`` (batch, time, channels) as items of a batch, zeros behind the last one's end.

    Example
    -------
    >>> import torch
    >>> split_chunks(torch.arange(3.0).view(1, 3, 1), 2).flatten(1).tolist()
    [[0.0, 1.0], [2.0, 0.0]]
    """
    x = F.pad(x, (0, 0, 0, -x.shape[1] % chunk_size))
    return x.reshape(-1, chunk_size, x.shape[2])


def chunk_counts(lengths, time, chunk_size, x):
    """Valid frames of each chunk that :func:`split_chunks` gives, int64, on the device of ``x``."""
    starts = torch.arange(0, time, chunk_size, device=x.device)
    ends = time if lengths is None else lengths.to(x.device, torch.int64).unsqueeze(1)
    return (ends - starts).clamp(0, chunk_size).expand(x.shape[0], -1).reshape(-1)

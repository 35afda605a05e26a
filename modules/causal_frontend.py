"""The front-end of a stream: features that read nothing ahead, and subsampling piece by piece.

Frame ``t`` of the features ends with its own hop, and their floor is the same for every utterance. The subsampling is
:class:`modules.frontend.ConvolutionSubsampling` as it is: its frame ``j`` reads the features of its own four hops and
of some before. So frame ``j`` of an encoder depends on no sample behind its own span. The front-end looks ahead by
nothing. :func:`stream_subsampling` gives the frames that the whole utterance gives.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from modules.frontend import FilterbankFeatures


class CausalFilterbankFeatures(FilterbankFeatures):
    """Log mel filterbanks whose frames no later sample changes.

    A frame reads the ``n_fft`` samples that end with its own hop, zeros before the first sample and behind the last.
    Energies below a fixed floor are raised to it, where SpeechBrain's floor lies 80 dB below the loudest of the
    whole utterance. :class:`modules.frontend.FilterbankFeatures` gives as many frames. A frame
    stands for the same time there, but for some milliseconds (half a window less a hop).

    Arguments
    ---------
    sample_rate : int
    hop_length : float
        Milliseconds between frames.
    floor_db : float
        Floor of the features, in dB of their own scale: speech at full scale reaches 20 to 40 dB.
    **fbank_options
        Those of :class:`speechbrain.lobes.features.Fbank` (``n_fft``, ``n_mels``, ``win_length`` in ms, ...).

    Raises
    ------
    ValueError
        If the hop is longer than the transform, or the options ask for features of later frames.

    Example
    -------
    >>> import torch
    >>> features = CausalFilterbankFeatures(n_mels=80)
    >>> wavs, state, frames = torch.randn(1, 1000), features.initial_state(1), []
    >>> for piece in wavs.split(300, dim=1):
    ...     new, state = features.forward_chunk(piece, state)
    ...     frames.append(new)
    >>> frames = torch.cat([*frames, features.finish(state)], dim=1)
    >>> torch.allclose(frames, features(wavs)[0], atol=1e-3)
    True
    """

    def __init__(self, sample_rate=16000, hop_length=10, floor_db=-60.0, **fbank_options):
        super().__init__(sample_rate, hop_length, **fbank_options)
        stft, filters = self.fbank.compute_STFT, self.fbank.compute_fbanks
        if not self.hop <= stft.n_fft:
            raise ValueError(
                f"n_fft must be at least a hop, {self.hop} samples, so that every sample is read; got {stft.n_fft}"
            )
        if fbank_options.get("deltas") or fbank_options.get("context"):
            raise ValueError("deltas and context read later frames: a causal front-end has none")
        self.floor_db, self.n_mels = floor_db, filters.n_mels
        self.past = stft.n_fft - self.hop
        stft.center = False
        filters.amin, filters.top_db = 10 ** (floor_db / filters.multiplier), float("inf")

    def _filterbanks(self, wavs):
        behind = self.hop - wavs.shape[1] % self.hop
        return super()._filterbanks(F.pad(wavs, (self.past, behind)))

    def initial_state(self, batch):
        """What a stream remembers before its first sample: silence, (batch, n_fft - hop)."""
        return self.fbank.compute_STFT.window.new_zeros(batch, self.past)

    def forward_chunk(self, wavs, state):
        """Features of the hops that the next samples complete.

        Arguments
        ---------
        wavs : torch.Tensor
            (batch, samples), any number of them.
        state : torch.Tensor
            Of :meth:`initial_state` or of the last call; left as it was.

        Returns
        -------
        (torch.Tensor, torch.Tensor)
            (batch, frames, n_mels), as the whole utterance gives them, and the samples that later frames read.
        """
        wavs = torch.cat([state.to(wavs), wavs], 1)
        time = (wavs.shape[1] - self.past) // self.hop
        # a copy, since a view would keep the whole piece
        rest = wavs[:, time * self.hop :].clone()
        if time == 0:
            return wavs.new_zeros(wavs.shape[0], 0, self.n_mels), rest
        return FilterbankFeatures._filterbanks(self, wavs), rest

    def finish(self, state):
        """The one frame that a stream's end completes, (batch, 1, n_mels)."""
        behind = self.past + self.hop - state.shape[1]
        return FilterbankFeatures._filterbanks(self, F.pad(state, (0, behind)))


class BlockState(NamedTuple):
    """What a block of the subsampling remembers: its last inputs, and how many of them it has read already."""

    frames: torch.Tensor
    read: int


def stream_subsampling(cnn, x, state=None, last=False):
    """Subsample the next frames of a stream.

    Arguments
    ---------
    cnn : modules.frontend.ConvolutionSubsampling
        With strides of 2.
    x : torch.Tensor
        (batch, frames, features), any number of frames.
    state : list of BlockState, optional
        What the last call returned; left as it was. None at a stream's start.
    last : bool
        Whether the stream ends here, so that frames that wait for another one are reflected, as at the end of a whole
        utterance.

    Returns
    -------
    (torch.Tensor or None, list of BlockState)
        (batch, new frames, channels), None for no new frame, and the state.

    Raises
    ------
    ValueError
        If a stride is not 2.

    Example
    -------
    >>> import torch
    >>> from modules.frontend import ConvolutionSubsampling
    >>> cnn = ConvolutionSubsampling((8, 10, 80), out_channels=(8, 4), residuals=(False, False)).eval()
    >>> x = torch.randn(1, 11, 80)
    >>> first, state = stream_subsampling(cnn, x[:, :6])
    >>> rest, _ = stream_subsampling(cnn, x[:, 6:], state, last=True)
    >>> torch.allclose(torch.cat([first, rest], 1), cnn(x)[0], atol=1e-5)
    True
    """
    if set(cnn.strides) != {2}:
        raise ValueError(f"only strides of 2 are streamed; got {cnn.strides}")
    new_state = []
    for index, block in enumerate(cnn.children()):
        kept = None if state is None else state[index]
        x, kept = _stream_block(block, x, kept, last)
        new_state.append(kept)
    return (None if x is None else x.flatten(2)), new_state


def _stream_block(block, x, kept, last):
    """The new frames of a block (None for none) and its state; ``x`` may be None too."""
    frames, read = (None, 0) if kept is None else kept
    if x is not None:
        frames = x if frames is None else torch.cat([frames, x], 1)
    new = 0 if frames is None else frames.shape[1] - read
    if not last:
        new -= new % 2
    if new == 0:
        return None, None if frames is None else BlockState(frames.clone(), read)
    end = read + new
    heard = frames[:, :end]
    if end == 1:
        # as in a whole utterance of one frame, which has nothing to reflect
        heard = torch.cat([heard, heard], 1)
    # the block reflects at the start of what it reads, so the frames of the two old inputs are made anew and dropped
    out = block(heard)[:, read // 2 : (end + 1) // 2]
    return out, BlockState(frames[:, max(0, end - 2) :].clone(), min(2, end))

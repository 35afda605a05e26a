"""From waveforms to the frames that an encoder takes, with every utterance ending at its own end.

Both parts are SpeechBrain's, with one addition each: they count frames from samples, and the
convolutions reflect each utterance at its own last frame where SpeechBrain's reflect the batch at its
longest.
"""

import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.utils.autocast import fwd_default_precision

from modules.lengths import fbank_frames, sample_counts, strided_frames
from modules.ssm.masking import keep_valid, valid_frames
from modules.ssm.precision import at_least_float32


class FilterbankFeatures(torch.nn.Module):
    """Log mel filterbanks of a padded batch, and the number of frames of each utterance.

    Arguments
    ---------
    sample_rate : int
    hop_length : float
        Milliseconds between frames.
    **fbank_options
        Those of :class:`speechbrain.lobes.features.Fbank` (``n_fft``, ``n_mels``, ``win_length`` in ms, ...).

    Example
    -------
    >>> import torch
    >>> features, lengths = FilterbankFeatures(n_mels=80)(torch.randn(2, 16000), torch.tensor([1.0, 0.5]))
    >>> features.shape, lengths.tolist()
    (torch.Size([2, 101, 80]), [101, 51])
    """

    def __init__(self, sample_rate=16000, hop_length=10, **fbank_options):
        super().__init__()
        self.fbank = Fbank(sample_rate=sample_rate, hop_length=hop_length, **fbank_options)
        self.hop = round(sample_rate / 1000.0 * hop_length)
        filters = [
            (self.fbank.compute_fbanks, name) for name in ("f_central", "band", "all_freqs_mat")
        ]
        self._tables = [(self.fbank.compute_STFT, "window"), *filters]

    def forward(self, wavs, wav_lens=None, samples=None):
        """Compute features.

        Arguments
        ---------
        wavs : torch.Tensor
            (batch, samples); what stands behind an utterance's end does not matter.
        wav_lens : torch.Tensor, optional
            (batch,) relative lengths; by default every utterance fills its row.
        samples : torch.Tensor, optional
            (batch,) sample counts, instead of relative lengths and exact at any length.

        Returns
        -------
        (torch.Tensor, torch.Tensor)
            (batch, frames, n_mels), and the frame counts (batch,).
        """
        if samples is None:
            if wav_lens is None:
                wav_lens = torch.ones(len(wavs), device=wavs.device)
            samples = sample_counts(wav_lens, wavs.shape[1])
        samples = samples.to(wavs.device)
        wavs = keep_valid(wavs, valid_frames(samples, wavs.shape[1], wavs.device))
        return self._filterbanks(wavs), fbank_frames(samples, self.hop)

    @fwd_default_precision
    def _filterbanks(self, wavs):
        """Features (batch, frames, n_mels) of ``wavs``, in float64 if these are."""
        dtype = at_least_float32(wavs).dtype
        # SpeechBrain's tables are no buffers: they stay float32 when the module is cast
        for module, name in self._tables:
            table = getattr(module, name)
            if table.dtype != dtype and not isinstance(table, torch.nn.Parameter):
                setattr(module, name, table.to(dtype))
        return self.fbank(wavs)


class ConvolutionSubsampling(torch.nn.Module):
    """SpeechBrain's convolutional front-end, whose padding is each utterance's own.

    Takes the arguments of :class:`speechbrain.lobes.models.convolution.ConvolutionFrontEnd` for blocks of one
    layer with kernel 3 and no residual, as all recipes have them.

    Raises
    ------
    ValueError
        For blocks of another shape.

    Example
    -------
    >>> import torch
    >>> cnn = ConvolutionSubsampling(
    ...     (8, 10, 80), num_blocks=2, num_layers_per_block=1, out_channels=(64, 32),
    ...     kernel_sizes=(3, 3), strides=(2, 2), residuals=(False, False),
    ... )
    >>> out, lengths = cnn(torch.randn(2, 101, 80), torch.tensor([101, 51]))
    >>> out.shape, lengths.tolist()
    (torch.Size([2, 26, 640]), [26, 13])
    """

    def __init__(
        self,
        input_shape,
        num_blocks=2,
        num_layers_per_block=1,
        kernel_sizes=(3, 3),
        strides=(2, 2),
        **options,
    ):
        residuals = options.get("residuals", ())
        if num_layers_per_block != 1 or set(kernel_sizes) != {3} or any(residuals):
            raise ValueError(
                "ConvolutionSubsampling takes blocks of one layer, kernel 3, no residual; got "
                f"num_layers_per_block={num_layers_per_block}, kernel_sizes={kernel_sizes}, residuals={residuals}"
            )
        super().__init__()
        blocks = ConvolutionFrontEnd(
            input_shape,
            num_blocks=num_blocks,
            num_layers_per_block=1,
            kernel_sizes=kernel_sizes,
            strides=strides,
            **options,
        )
        # the blocks alone, under their own names: SpeechBrain's container takes no counts
        for name, block in blocks.named_children():
            self.add_module(name, block)
        self.strides = tuple(strides)[:num_blocks]

    def forward(self, x, lengths=None):
        """Subsample.

        Arguments
        ---------
        x : torch.Tensor
            (batch, frames, features).
        lengths : torch.Tensor, optional
            (batch,) frame counts; ``None`` pads at the end of the batch, as SpeechBrain does.

        Returns
        -------
        (torch.Tensor, torch.Tensor or None)
            (batch, frames, features * channels), and the new frame counts.
        """
        time = x.shape[1]
        for block, stride in zip(self.children(), self.strides, strict=True):
            if time < 2:
                # one frame has nothing to reflect: it stands for its neighbour
                x = torch.cat([x, x], 1)
            x = block(x if lengths is None else _reflect_end(x, lengths))
            # as convolutions count, so that an exporter sees one expression
            time = (time - 1) // stride + 1
            x = x[:, :time]  # (batch, time, features, channels)
            lengths = None if lengths is None else strided_frames(lengths, stride)
        return x.flatten(2), lengths


def _reflect_end(x, lengths):
    """``x`` (batch, time, ...) with the frame behind each utterance's end reflected from within it.

    0 1 2 3 | 2: one frame is enough for kernel 3, and what lies further on is never read.
    """
    items = torch.arange(x.shape[0], device=x.device)
    behind = lengths.clamp(max=x.shape[1] - 1)
    inside = torch.where(lengths < x.shape[1], (lengths - 2).clamp(min=0), behind)
    return x.index_put((items, behind), x[items, inside])

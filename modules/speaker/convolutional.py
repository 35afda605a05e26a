"""Convolutional front-end of wav2vec 2.0, HuBERT and WavLM, which teachers and students share.

Source: Baevski et al., "wav2vec 2.0" (arXiv 2006.11477, section 2 and appendix B). Parameters have the names of the
transformers library, so that published weights load. Frames are counted from samples, and padding reaches none.
"""

from torch import nn
from torch.nn import functional as F

from modules.speaker.front_ends import check_samples
from modules.ssm.masking import keep_valid, valid_frames
from modules.ssm.precision import at_least_float32

ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}
# what a configuration leaves out, as in wav2vec 2.0
DEFAULTS = {
    "conv_dim": (512,) * 7,
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
    "conv_bias": False,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "do_normalize": True,
}
# of the variance of a waveform, as in the teachers' own preprocessors
_EPSILON = 1e-7


class ConvolutionalFrontEnd(nn.Module):
    """One frame every 20 ms from waveforms at 16 kHz, through strided convolutions without padding.

    Arguments
    ---------
    config : dict
        Configuration of a teacher: ``conv_dim``, ``conv_kernel``, ``conv_stride`` (one number a layer),
        ``conv_bias``, ``feat_extract_activation``; ``feat_extract_norm``, which is ``group`` (each channel is
        normalised over the utterance after the first convolution) or ``layer`` (each frame after each convolution);
        ``do_normalize``, zero mean and unit variance of each waveform. wav2vec 2.0 gives what is absent.
    sample_rate : int
        Samples a second.

    Raises
    ------
    ValueError
        If the layers have different numbers of sizes, a kind of normalisation or activation is unknown, or an
        utterance has fewer than ``min_samples`` samples.

    Example
    -------
    >>> import torch
    >>> front_end = ConvolutionalFrontEnd({"conv_dim": [8] * 7})
    >>> features, lengths = front_end(torch.randn(2, 48000), torch.tensor([48000, 400]))
    >>> features.shape, lengths.tolist(), front_end.min_samples
    (torch.Size([2, 149, 8]), [149, 1], 400)
    """

    def __init__(self, config, sample_rate=16000):
        super().__init__()
        config = {**DEFAULTS, **config}
        widths, kernels, strides = (
            tuple(config[f"conv_{name}"]) for name in ("dim", "kernel", "stride")
        )
        if not widths or not len(widths) == len(kernels) == len(strides):
            raise ValueError(
                "conv_dim, conv_kernel and conv_stride must give one number for each layer; got "
                f"{len(widths)}, {len(kernels)} and {len(strides)}"
            )
        norm, activation = config["feat_extract_norm"], config["feat_extract_activation"]
        if norm not in ("group", "layer"):
            raise ValueError(f"feat_extract_norm must be group or layer; got {norm!r}")
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"feat_extract_activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}"
            )
        self.sample_rate, self.do_normalize = sample_rate, bool(config["do_normalize"])
        self.output_size, self.kernels, self.strides = widths[-1], kernels, strides
        self.activation = ACTIVATIONS[activation]
        self.conv_layers = nn.ModuleList()
        for index, sizes in enumerate(zip((1, *widths), widths, kernels, strides, strict=False)):
            layer = nn.ModuleDict({"conv": nn.Conv1d(*sizes, bias=bool(config["conv_bias"]))})
            nn.init.kaiming_normal_(layer["conv"].weight)
            if norm == "layer":
                layer["layer_norm"] = nn.LayerNorm(widths[index])
            elif index == 0:
                layer["layer_norm"] = nn.GroupNorm(widths[0], widths[0])
            self.conv_layers.append(layer)

    @property
    def min_samples(self):
        """Samples that the first frame reads."""
        samples = 1
        for kernel, stride in zip(self.kernels[::-1], self.strides[::-1], strict=True):
            samples = (samples - 1) * stride + kernel
        return samples

    def frames(self, samples):
        """Frames that ``samples`` (an int, or a tensor of counts) give."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples

    def forward(self, wavs, samples=None):
        """Compute features.

        Arguments
        ---------
        wavs : torch.Tensor
            (batch, samples); what stands behind an utterance's end does not matter.
        samples : torch.Tensor, optional
            (batch,) integer sample counts; ``None`` if all utterances fill the batch.

        Returns
        -------
        (torch.Tensor, torch.Tensor)
            (batch, time, output_size), zero behind each utterance, and the frame counts (batch,).
        """
        lengths = check_samples(wavs, samples, self.min_samples)
        valid = valid_frames(lengths, wavs.shape[1], wavs.device)
        x = keep_valid(wavs, valid)
        if self.do_normalize:
            x = normalise(x, lengths, valid)
        x = x.unsqueeze(1)  # (batch, channels, time)
        for layer, kernel, stride in zip(self.conv_layers, self.kernels, self.strides, strict=True):
            x = layer["conv"](x)
            lengths = (lengths - kernel) // stride + 1
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.LayerNorm):
                x = norm(x.transpose(1, 2)).transpose(1, 2)
            elif norm is not None:
                x = _normalise_channels(norm, x, lengths)
            x = self.activation(x)
        x = x.transpose(1, 2)
        return keep_valid(x, valid_frames(lengths, x.shape[1], x.device)), lengths


def normalise(wavs, samples, valid):
    """Waveforms (batch, samples) with zero mean and unit variance over their own samples, zero behind them."""
    wavs, counts = at_least_float32(wavs), samples.unsqueeze(1)
    wavs = keep_valid(wavs - wavs.sum(1, keepdim=True) / counts, valid)
    return wavs / (wavs.square().sum(1, keepdim=True) / counts + _EPSILON).sqrt()


def _normalise_channels(norm, x, lengths):
    """The group normalisation ``norm`` of ``x`` (batch, channels, time), one group a channel, over own frames."""
    valid = valid_frames(lengths, x.shape[2], x.device).unsqueeze(1)
    wide, counts = at_least_float32(x), lengths.view(-1, 1, 1)
    mean = wide.masked_fill(~valid, 0.0).sum(2, keepdim=True) / counts
    wide = (wide - mean).masked_fill(~valid, 0.0)
    wide = wide * (wide.square().sum(2, keepdim=True) / counts + norm.eps).rsqrt()
    return (wide * norm.weight.unsqueeze(1) + norm.bias.unsqueeze(1)).to(x.dtype)

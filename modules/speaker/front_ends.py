"""From waveforms to frames: filterbanks for speakers. Each utterance ends at its own end.

A front-end maps waveforms (batch, samples) and sample counts to features (batch, time, output_size) and frame counts.
"""

import math

import torch
from torch import nn

from modules.frontend import FilterbankFeatures
from modules.lengths import fbank_frames
from modules.ssm.checks import check_lengths
from modules.ssm.masking import keep_valid, valid_frames
from modules.ssm.precision import at_least_float32


class FilterbankFrontEnd(nn.Module):
    """Log mel filterbanks without their mean over the utterance, of each band or of all together.

    A band's mean holds the channel and the speaker. Where channels vary little, or training data are few, it tells
    speakers apart better than anything else. Then only the level, the mean over all bands, is taken away.

    Features are natural logarithms of power. A fixed floor replaces SpeechBrain's floor below the loudest value.

    Arguments
    ---------
    sample_rate : int
        Samples a second.
    n_mels : int
        Mel bands.
    win_length, hop_length : float
        Milliseconds of a window, and from one frame to the next.
    n_fft : int, optional
        Points of the Fourier transform; by default one window.
    floor_db : float
        Least power of a band in dB; a full-scale sine has about 40 dB.
    remove_mean : str
        ``band`` or ``level``.
    normalise_variance : bool
        Division of each band by its standard deviation over the utterance.

    Raises
    ------
    ValueError
        If ``remove_mean`` is neither, counts are no integers within the batch, or an utterance has fewer than
        ``min_samples`` samples.

    Example
    -------
    >>> import torch
    >>> front_end = FilterbankFrontEnd(n_mels=40)
    >>> features, lengths = front_end(torch.randn(2, 16000), torch.tensor([16000, 8000]))
    >>> features.shape, lengths.tolist()
    (torch.Size([2, 101, 40]), [101, 51])
    """

    def __init__(
        self,
        sample_rate=16000,
        n_mels=80,
        win_length=25,
        hop_length=10,
        n_fft=None,
        floor_db=-60.0,
        normalise_variance=False,
        remove_mean="band",
    ):
        super().__init__()
        if remove_mean not in ("band", "level"):
            raise ValueError(f"remove_mean must be band or level; got {remove_mean!r}")
        self.remove_mean = remove_mean
        self.sample_rate, self.output_size = sample_rate, n_mels
        self.min_samples = round(sample_rate / 1000.0 * win_length)
        self.floor_db, self.normalise_variance = floor_db, normalise_variance
        self.features = FilterbankFeatures(
            sample_rate=sample_rate,
            hop_length=hop_length,
            win_length=win_length,
            n_fft=self.min_samples if n_fft is None else n_fft,
            n_mels=n_mels,
        )
        # SpeechBrain's floor depends on the loudest frame of the batch's row
        self.features.fbank.compute_fbanks.top_db = math.inf

    def frames(self, samples):
        """Frames that ``samples`` (a tensor of counts) give."""
        return fbank_frames(samples, self.features.hop)

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
            (batch, time, n_mels), zero behind each utterance, and the frame counts (batch,).
        """
        samples = check_samples(wavs, samples, self.min_samples)
        features, lengths = self.features(wavs, samples=samples)
        features = features.clamp(min=self.floor_db) * (math.log(10.0) / 10.0)
        valid = valid_frames(lengths, features.shape[1], features.device)
        counts = lengths.view(-1, 1, 1)
        features = at_least_float32(features)
        mean = keep_valid(features, valid).sum(1, keepdim=True) / counts
        if self.remove_mean == "level":
            mean = mean.mean(2, keepdim=True)
        features = keep_valid(features - mean, valid)
        if self.normalise_variance:
            own = features.sum(1, keepdim=True) / counts
            centred = keep_valid(features - own, valid)
            variance = centred.square().sum(1, keepdim=True) / counts
            features = features * (variance + 1e-6).rsqrt()
        return features, lengths


def check_samples(wavs, samples, min_samples):
    """Sample counts on the device of ``wavs`` (batch, samples); ``None`` stands for full rows.

    Raises
    ------
    ValueError
        If waveforms are not (batch, samples) of floating numbers, counts are no integers within the batch, or one is
        below ``min_samples`` (looked at on the CPU only).
    """
    if wavs.dim() != 2 or not wavs.dtype.is_floating_point:
        raise ValueError(
            "waveforms must be floating numbers of the shape (batch, samples); got "
            f"{wavs.dtype} of the shape {tuple(wavs.shape)}"
        )
    if samples is None:
        samples = torch.full(wavs.shape[:1], wavs.shape[1], dtype=torch.long)
    check_lengths(samples, *wavs.shape)
    if (
        samples.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and bool((samples < min_samples).any())
    ):
        raise ValueError(
            f"an utterance of {int(samples.min())} samples is too short: the front-end needs {min_samples}; "
            "leave it out"
        )
    return samples.to(wavs.device)

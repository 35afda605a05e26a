"""Mel spectrograms in dB and MFCC for keyword spotting, of whole clips, padded batches and streams.

The published front-end is torchaudio's on one padded second (:class:`WaveToSpec`). :class:`KeywordFeatures`
gives the same numbers for clips of any length in one batch, each reflected at its own end and clipped
below its own maximum, and has a causal form with a fixed floor that runs on a stream.
"""

import torch
from speechbrain.utils.autocast import fwd_default_precision
from torch import nn
from torch.nn import functional as F
from torchaudio import functional as AF
from torchaudio.transforms import MelSpectrogram

from modules.lengths import reflected_indices
from modules.ssm.checks import check_lengths
from modules.ssm.masking import keep_valid, valid_frames

KINDS = ("mel", "mfcc")
# mean and deviation over all values, of 195 clips of Speech Commands (30 words) with the default options
LEVELS = {"mel": (-19.3, 18.7), "mfcc": (-6.7, 47.3)}


class KeywordFeatures(nn.Module):
    """Mel spectrogram in dB, or MFCC, of a padded batch of clips.

    A frame stands every ``hop_length`` samples. As published, it is centred and the clip is reflected at both
    ends; values more than ``top_db`` below the clip's loudest are raised to that. With ``causal`` a frame
    reads the ``n_fft`` samples that end with its hop, zeros before the clip's start, and the floor is the
    same for all clips, so that nothing later changes it.

    Arguments
    ---------
    kind : str
        ``mel`` or ``mfcc``.
    sample_rate : int
        Samples a second.
    n_mels, n_mfcc : int
        Mel bands, and cepstral coefficients of ``mfcc`` (orthonormal DCT of the bands in dB).
    n_fft, hop_length : int
        Window (Hann) and hop in samples.
    top_db : float
        Range in dB below a clip's maximum that is kept.
    causal : bool
        Read no sample behind a frame's own hop, for streams.
    floor_db : float
        The floor of a causal front-end, in dB of the same scale (a full-scale sine is about 50 dB).
    mean_norm : bool
        Take each feature's mean over its clip off it, so that the level of a clip, its microphone and steady noise
        matter less (Furui, "Cepstral analysis technique", 1981). It reads the whole clip: not for causal features.
    mean, std : float, optional
        What is taken off all features, and what they are divided by then; ``None`` takes the level of Speech
        Commands. The published recipes measure both on their training clips.

    Raises
    ------
    ValueError
        If an option is outside its range, or a clip has no samples.

    Example
    -------
    >>> import torch
    >>> features = KeywordFeatures("mfcc")
    >>> x, lengths = features(torch.randn(2, 16000), torch.tensor([16000, 9000]))
    >>> x.shape, lengths.tolist()
    (torch.Size([2, 63, 40]), [63, 36])
    """

    def __init__(
        self,
        kind="mel",
        sample_rate=16000,
        n_mels=128,
        n_mfcc=40,
        n_fft=2048,
        hop_length=256,
        top_db=80.0,
        causal=False,
        floor_db=-40.0,
        mean_norm=False,
        mean=None,
        std=None,
    ):
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
        if not 0 < hop_length <= n_fft:
            raise ValueError(f"hop_length must lie in 1..n_fft = {n_fft} samples; got {hop_length}")
        if kind == "mfcc" and not 0 < n_mfcc <= n_mels:
            raise ValueError(f"n_mfcc must lie in 1..n_mels = {n_mels}; got {n_mfcc}")
        if mean_norm and causal:
            raise ValueError(
                "mean_norm reads the whole clip, causal features must not: set one of them"
            )
        self.kind, self.sample_rate, self.causal = kind, sample_rate, causal
        self.mean_norm = mean_norm
        self.n_fft, self.hop_length = n_fft, hop_length
        self.top_db, self.floor_db = top_db, floor_db
        self.mean = LEVELS[kind][0] if mean is None else mean
        self.std = LEVELS[kind][1] if std is None else std
        if self.std <= 0:
            raise ValueError(f"std must be positive, features are divided by it; got {std}")
        self.n_features = n_mels if kind == "mel" else n_mfcc
        # the edges are laid on here, at each clip's own end
        self.mel = MelSpectrogram(
            sample_rate, n_fft=n_fft, hop_length=hop_length, n_mels=n_mels, center=False
        )
        dct = AF.create_dct(n_mfcc, n_mels, "ortho") if kind == "mfcc" else None
        self.register_buffer("dct", dct, persistent=False)  # (n_mels, n_mfcc)

    def frames(self, samples):
        """How many frames ``samples`` (an int, or a tensor of counts) give."""
        if self.causal:
            return (samples + self.hop_length - 1) // self.hop_length
        return samples // self.hop_length + 1

    def forward(self, wavs, samples=None):
        """Compute features.

        Arguments
        ---------
        wavs : torch.Tensor
            (batch, samples), floating; what stands behind a clip's end does not matter.
        samples : torch.Tensor, optional
            (batch,) integer sample counts; ``None`` if all clips fill the batch.

        Returns
        -------
        (torch.Tensor, torch.Tensor)
            (batch, time, features), zero behind each clip, and the frame counts (batch,).
        """
        if samples is None:
            samples = torch.full(wavs.shape[:1], wavs.shape[1], device=wavs.device)
        check_lengths(samples, *wavs.shape)
        samples = samples.to(wavs.device)
        # a compiler or exporter could not go on from a look at the counts
        seen = samples.device.type == "cpu" and not torch.compiler.is_compiling()
        if wavs.shape[1] == 0 or (seen and bool((samples < 1).any())):
            raise ValueError("a clip without samples has no features: leave it out of the batch")
        lengths = self.frames(samples)
        time = self.frames(wavs.shape[1])
        if self.causal:
            wavs = keep_valid(wavs, valid_frames(samples, wavs.shape[1], wavs.device))
            ahead = time * self.hop_length - wavs.shape[1]
            wavs = F.pad(wavs, (self.n_fft - self.hop_length, ahead))
        else:
            edge = self.n_fft // 2
            wavs = wavs.gather(1, reflected_indices(samples, wavs.shape[1], edge))
        valid = valid_frames(lengths, time, wavs.device)
        return keep_valid(self._features(wavs, valid), valid), lengths

    @fwd_default_precision
    def _features(self, wavs, valid=None):
        """From (batch, samples) with the edges laid on to (batch, time, features)."""
        power = self.mel(wavs).transpose(1, 2)  # (batch, time, n_mels)
        decibels = AF.amplitude_to_DB(power, multiplier=10.0, amin=1e-10, db_multiplier=0.0)
        if self.causal:
            decibels = decibels.clamp(min=self.floor_db)
        else:
            # the maximum of a clip's own frames
            loudest = decibels.amax(2).masked_fill(~valid, -torch.inf).amax(1)
            decibels = torch.maximum(decibels, (loudest - self.top_db)[:, None, None])
        features = decibels if self.kind == "mel" else decibels @ self.dct
        if self.mean_norm:
            return (features - masked_mean(features, valid)) / self.std
        return (features - self.mean) / self.std

    def initial_state(self, batch):
        """What a stream's features remember before its first sample: silence, (batch, n_fft - hop_length)."""
        self._check_causal()
        window = self.mel.spectrogram.window
        return window.new_zeros(batch, self.n_fft - self.hop_length)

    def forward_chunk(self, wavs, state):
        """Features of the next samples of a stream, for a causal front-end.

        Arguments
        ---------
        wavs : torch.Tensor
            (batch, samples), any number of them.
        state : torch.Tensor
            From :meth:`initial_state`, or what the previous chunk returned.

        Returns
        -------
        (torch.Tensor, torch.Tensor)
            (batch, time, features) of the hops that are complete, as the whole would give them, and the
            state: the samples that later frames read.

        Raises
        ------
        ValueError
            If the front-end is not causal.
        """
        self._check_causal()
        wavs = torch.cat([state.to(wavs), wavs], 1)
        time = (wavs.shape[1] - (self.n_fft - self.hop_length)) // self.hop_length
        rest = wavs[:, time * self.hop_length :]
        if time == 0:
            return wavs.new_zeros(wavs.shape[0], 0, self.n_features), rest
        return self._features(wavs), rest

    def _check_causal(self):
        if not self.causal:
            raise ValueError(
                "these features read ahead and clip by the whole clip's maximum: build them with causal=True"
            )


def masked_mean(features, valid):
    """The mean (batch, 1, features) of features (batch, time, features) over their valid frames (batch, time)."""
    total = keep_valid(features, valid).sum(1, keepdim=True)
    return total / valid.sum(1).clamp(min=1)[:, None, None]


class WaveToSpec(nn.Module):
    """The published front-end: features of single clips in dB, frequency before time.

    What it gives is not normalised: networks that were trained on :class:`KeywordFeatures` want
    ``(features - mean) / std`` with its two levels.

    Arguments
    ---------
    feature_type : str
        ``mel`` or ``mfcc``.
    sample_rate, n_fft, hop_length, n_mels, n_mfcc, top_db
        Of :class:`KeywordFeatures`.

    Example
    -------
    >>> import torch
    >>> frontend = WaveToSpec(n_mels=128, n_fft=2048, hop_length=256)
    >>> frontend(torch.randn(16000)).shape
    torch.Size([1, 128, 63])
    """

    def __init__(
        self,
        feature_type="mel",
        sample_rate=16000,
        n_fft=2048,
        hop_length=256,
        n_mels=128,
        n_mfcc=40,
        top_db=80.0,
    ):
        super().__init__()
        self.features = KeywordFeatures(
            feature_type,
            sample_rate,
            n_mels,
            n_mfcc,
            n_fft,
            hop_length,
            top_db,
            mean=0.0,
            std=1.0,
        )

    def forward(self, wav):
        """Compute features of every clip in ``wav`` on its own.

        Arguments
        ---------
        wav : torch.Tensor
            (samples,) or (..., samples).

        Returns
        -------
        torch.Tensor
            (1, features, time) or (..., features, time).
        """
        clips = wav.unsqueeze(0) if wav.dim() == 1 else wav
        features, _ = self.features(clips.reshape(-1, clips.shape[-1]))
        return features.transpose(1, 2).reshape(*clips.shape[:-1], -1, features.shape[1])

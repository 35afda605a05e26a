"""Clips of one word each: bringing them to one length, and changing them while training.

Source of the changes: the published training of KWS-Mamba (time shift, white noise, stretching) and Warden,
"Speech Commands" (arXiv 1804.03209), section 7.2 (background noise).
"""

import torch
from speechbrain.augment.time_domain import SpeedPerturb
from torch.nn import functional as F


def fit_length(waveform, samples):
    """Bring a clip to ``samples``: zeros on both sides of a shorter one, the middle of a longer one.

    Example
    -------
    >>> import torch
    >>> fit_length(torch.ones(2), 4).tolist(), fit_length(torch.arange(6), 4).tolist()
    ([0.0, 1.0, 1.0, 0.0], [1, 2, 3, 4])
    """
    missing = samples - len(waveform)
    before = missing // 2
    # a negative padding cuts
    return F.pad(waveform, (before, missing - before))


class ClipAugmenter:
    """Shift, speed and noise for a training clip, drawn anew each time from torch's generator.

    Arguments
    ---------
    sample_rate : int
    shift_ms : float
        Largest shift to either side, in milliseconds; zeros move in.
    speed_changes : list of int
        Speeds in %, one of which is drawn; ``[100]`` changes none.
    white_noise_max : float
        Largest standard deviation of white noise, where full scale is 1.
    background_probability : float
        Part of the clips that get a piece of a noise recording.
    background_snr : (float, float)
        Lowest and highest ratio of the clip's energy to that piece's, in dB.
    noises : list of torch.Tensor
        Noise recordings, (samples,) each, longer than none.

    Raises
    ------
    ValueError
        If an option is outside its range, or background noise is wanted and there is none.
    """

    def __init__(
        self,
        sample_rate,
        shift_ms=0.0,
        speed_changes=(100,),
        white_noise_max=0.0,
        background_probability=0.0,
        background_snr=(0.0, 20.0),
        noises=(),
    ):
        if shift_ms < 0 or white_noise_max < 0 or not 0 <= background_probability <= 1:
            raise ValueError(
                "shift_ms and white_noise_max must be 0 or more and background_probability from 0 to 1; got "
                f"{shift_ms}, {white_noise_max} and {background_probability}"
            )
        if len(background_snr) != 2 or background_snr[0] > background_snr[1]:
            raise ValueError(
                f"background_snr must be the lowest and the highest ratio in dB; got {background_snr}"
            )
        if background_probability and not noises:
            raise ValueError(
                "the corpus has no _background_noise_ folder with recordings: add one, or set "
                "--background_probability 0"
            )
        if not speed_changes or min(speed_changes) <= 0:
            raise ValueError(f"speed_changes must be percentages above 0; got {speed_changes}")
        self.max_shift = round(shift_ms * sample_rate / 1000)
        speeds = list(speed_changes)
        self.perturb = None if speeds == [100] else SpeedPerturb(sample_rate, speeds)
        self.white_noise_max = white_noise_max
        self.background_probability, self.background_snr = background_probability, background_snr
        self.noises = list(noises)

    def change_speed(self, waveform):
        """The clip at one of the speeds; its length changes."""
        return waveform if self.perturb is None else self.perturb(waveform[None])[0]

    def __call__(self, waveform):
        """Shift a clip (samples,) and add noise to it; its length stays."""
        waveform = self._shift(waveform)
        if self.background_probability and torch.rand(()) < self.background_probability:
            waveform = waveform + self._background(waveform)
        if self.white_noise_max:
            scale = self.white_noise_max * torch.rand(())
            waveform = waveform + scale * torch.randn(waveform.shape)
        return waveform

    def _shift(self, waveform):
        if not self.max_shift:
            return waveform
        by = int(torch.randint(-self.max_shift, self.max_shift + 1, ()))
        # a negative padding cuts
        return F.pad(waveform, (by, -by))

    def _background(self, waveform):
        noise = self.noises[int(torch.randint(len(self.noises), ()))]
        if len(noise) < len(waveform):
            noise = noise.repeat(-(-len(waveform) // len(noise)))
        start = int(torch.randint(len(noise) - len(waveform) + 1, ()))
        piece = noise[start : start + len(waveform)]
        low, high = self.background_snr
        ratio = low + (high - low) * torch.rand(())
        energies = waveform.square().sum() / piece.square().sum().clamp(min=1e-10)
        return piece * (energies * 10 ** (-ratio / 10)).sqrt()

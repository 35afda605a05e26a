"""A few separated mixtures to listen to and to look at: sound files under the published names, and spectrograms."""

import logging
from pathlib import Path

import torch

from mamba_speech.figures import separation_spectrograms
from mamba_speech.files import to_pcm16, write_wav
from modules.separation.level import fit_to_mixture

logger = logging.getLogger(__name__)

# just below what 16 bits can hold
FULL_SCALE = 0.99


def save_example(folder, number, mix, targets, estimates, sample_rate):
    """Write a mixture, its sources, what was separated from it, and their spectrograms.

    The estimates are brought to the level that they have in the mixture, since SI-SNR leaves it open. If the loudest of
    all these signals passes full scale, all are lowered by one factor. Estimates that are not finite become silence.

    Arguments
    ---------
    folder : str or Path
        Made if need be. The files are ``item{number}_mix.wav``, ``item{number}_source1.wav``,
        ``item{number}_source1hat.wav`` and so on, and ``item{number}.png``.
    number : int
    mix : torch.Tensor
        (samples,).
    targets, estimates : torch.Tensor
        (samples, speakers), in one order.
    sample_rate : int
        In Hz.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mix, targets, estimates = (t.detach().float().cpu() for t in (mix, targets, estimates))
    # as the scores count them
    estimates = estimates if torch.isfinite(estimates).all() else torch.zeros_like(estimates)
    estimates = fit_to_mixture(estimates, mix)
    loudest = max(float(t.abs().max()) for t in (mix, targets, estimates))
    if loudest > FULL_SCALE:
        mix, targets, estimates = (FULL_SCALE / loudest * t for t in (mix, targets, estimates))
    signals = {"mix": mix}
    for speaker in range(targets.shape[1]):
        signals[f"source{speaker + 1}"] = targets[:, speaker]
        signals[f"source{speaker + 1}hat"] = estimates[:, speaker]
    for name, signal in signals.items():
        path = folder / f"item{number}_{name}.wav"
        write_wav(path, to_pcm16(signal.numpy()), sample_rate)
    try:
        separation_spectrograms(mix, targets, estimates, sample_rate, folder / f"item{number}.png")
    except RuntimeError as error:
        # without matplotlib there is sound to listen to, but nothing to look at
        logger.warning("%s", error)

"""Resemblyzer's voice encoder as a teacher of speaker embeddings: its network and its features, from given weights.

Source: Wan et al., "Generalized end-to-end loss for speaker verification" (arXiv 1710.10467), as the package
Resemblyzer 0.1.4 implements it. Long silences are not cut out here.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F
from torchaudio.transforms import MelSpectrogram

from modules.speaker.front_ends import check_samples

SAMPLE_RATE, HOP, N_MELS = 16000, 160, 40
# frames of a part, frames from one to the next (1.3 parts a second), and how much of the last must be there
PART, STEP, COVERAGE = 160, 77, 0.75
# mean power that quiet recordings are raised to
POWER = 10 ** (-30 / 10)


class VoiceEncoder(nn.Module):
    """Three LSTM layers over parts of 1.6 s, whose embeddings are averaged.

    Parameters have the published names, so that the published weights load.

    Arguments
    ---------
    hidden_size, n_layers : int
        Channels of the LSTM and of an embedding, and the LSTM's layers.

    Raises
    ------
    ValueError
        If counts of samples are no integers within the batch.

    Example
    -------
    >>> import torch
    >>> encoder = VoiceEncoder(hidden_size=8, n_layers=1)
    >>> encoder(torch.randn(2, 48000), torch.tensor([48000, 9000])).shape
    torch.Size([2, 8])
    """

    sample_rate, min_samples, crop_samples = SAMPLE_RATE, 1, None

    def __init__(self, hidden_size=256, n_layers=3):
        super().__init__()
        self.embedding_size = hidden_size
        self.lstm = nn.LSTM(N_MELS, hidden_size, n_layers, batch_first=True)
        self.linear = nn.Linear(hidden_size, hidden_size)
        # without state: the published weights hold none of it
        self.features = MelSpectrogram(
            SAMPLE_RATE,
            n_fft=400,
            hop_length=HOP,
            n_mels=N_MELS,
            pad_mode="constant",
            norm="slaney",
            mel_scale="slaney",
        )
        for name, buffer in list(self.features.named_buffers()):
            place, _, leaf = name.rpartition(".")
            self.features.get_submodule(place).register_buffer(leaf, buffer, persistent=False)

    def forward(self, wavs, samples=None):
        """Embed utterances.

        Arguments
        ---------
        wavs : torch.Tensor
            (batch, samples) at 16 kHz.
        samples : torch.Tensor, optional
            (batch,) integer sample counts; ``None`` if all utterances fill the batch.

        Returns
        -------
        torch.Tensor
            (batch, embedding_size), of length 1.
        """
        counts = check_samples(wavs, samples, self.min_samples).tolist()
        parts = [self._cut(wav[:count]) for wav, count in zip(wavs, counts, strict=True)]
        _, (hidden, _) = self.lstm(torch.cat(parts))
        embeddings = F.normalize(F.relu(self.linear(hidden[-1])), dim=1)
        own = embeddings.split([len(one) for one in parts])
        return F.normalize(torch.stack([one.mean(0) for one in own]), dim=1)

    def _cut(self, wav):
        """Features (parts, 160, 40) of one utterance (samples,)."""
        power = wav.square().mean().clamp(min=1e-20)
        wav = wav * (POWER / power).sqrt().clamp(min=1.0)
        starts = part_starts(len(wav))
        end = (starts[-1] + PART) * HOP
        mels = self.features(F.pad(wav, (0, max(0, end - len(wav))))).T
        return torch.stack([mels[start : start + PART] for start in starts])


def part_starts(samples):
    """First frames of the parts of an utterance of so many samples.

    A last part is left out if less than three quarters of it are there, unless it is the only one.

    Example
    -------
    >>> part_starts(8000), part_starts(48000)
    ([0], [0, 77, 154])
    """
    frames = math.ceil((samples + 1) / HOP)
    starts = list(range(0, max(1, frames - PART + STEP + 1), STEP))
    covered = (samples - starts[-1] * HOP) / (PART * HOP)
    return starts[:-1] if covered < COVERAGE and len(starts) > 1 else starts

"""Keyword models from waveforms to logits, in the form that SpeechBrain's ``EncoderClassifier`` takes."""

import torch

from modules.lengths import sample_counts


class WaveformClassifier(torch.nn.Module):
    """A keyword model as the ``embedding_model`` of SpeechBrain's ``EncoderClassifier``: waveforms to logits.

    Arguments
    ---------
    compute_features : torch.nn.Module
        See :class:`modules.kws.features.KeywordFeatures`.
    model : torch.nn.Module
    window : int
        Samples to which shorter clips are brought; 0 leaves them.

    Example
    -------
    >>> import torch
    >>> from modules.kws.features import KeywordFeatures
    >>> from modules.kws.mamba import MambaKeywordSpotter
    >>> model = MambaKeywordSpotter(n_classes=5, d_model=16, n_layers=1)
    >>> WaveformClassifier(KeywordFeatures(), model)(torch.randn(2, 16000), torch.ones(2)).shape
    torch.Size([2, 5])
    """

    def __init__(self, compute_features, model, window=0):
        super().__init__()
        self.compute_features, self.model, self.window = compute_features, model, window

    def forward(self, wavs, wav_lens):
        """Logits (batch, classes) of ``wavs`` (batch, samples) with relative lengths ``wav_lens`` (batch,)."""
        samples = sample_counts(wav_lens, wavs.shape[1]).tolist()
        clips = [wav[:count] for wav, count in zip(wavs, samples, strict=True)]
        clips = [centred(clip, self.window) for clip in clips]
        samples = torch.tensor([len(clip) for clip in clips], device=wavs.device)
        wavs = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        return self.model(*self.compute_features(wavs, samples))


class Unchanged(torch.nn.Module):
    """Its first argument; the steps of ``EncoderClassifier`` that a keyword model does itself."""

    def forward(self, x, *_):
        """``x``."""
        return x


def centred(waveform, samples):
    """The clip (samples,) in the middle of so many samples, if it is shorter.

    Example
    -------
    >>> centred(torch.ones(2), 5)
    tensor([0., 1., 1., 0., 0.])
    """
    missing = max(0, samples - len(waveform))
    return torch.nn.functional.pad(waveform, (missing // 2, missing - missing // 2))

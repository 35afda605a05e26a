"""Trained networks from waveforms and sample counts to log-probabilities, as formats without this project take them."""

import torch

from modules.lengths import relative_lengths
from modules.ssm.masking import keep_valid, valid_frames


class KeywordLogProbs(torch.nn.Module):
    """Log-probabilities (batch, classes) of waveforms (batch, samples) with their counts (batch,).

    Arguments
    ---------
    compute_features, model : torch.nn.Module
        Of a keyword run.
    window : int
        Samples to which shorter clips are brought, with silence on both sides; 0 leaves them.

    Example
    -------
    >>> import torch
    >>> from modules.kws.features import KeywordFeatures
    >>> from modules.kws.mamba import MambaKeywordSpotter
    >>> model = MambaKeywordSpotter(n_classes=5, d_model=16, n_layers=1)
    >>> network = KeywordLogProbs(KeywordFeatures(), model, window=16000)
    >>> network(torch.randn(2, 9000), torch.tensor([9000, 4000])).shape
    torch.Size([2, 5])
    """

    def __init__(self, compute_features, model, window=0):
        super().__init__()
        self.compute_features, self.model, self.window = compute_features, model, window

    def forward(self, waveform, samples):
        """Log-probabilities (batch, classes)."""
        if self.window:
            waveform, samples = _centred(waveform, samples, self.window)
        return self.model(*self.compute_features(waveform, samples)).log_softmax(-1)


class RecognitionLogProbs(torch.nn.Module):
    """CTC's log-probabilities (batch, time, tokens) of waveforms, and their frame counts (batch,).

    Arguments
    ---------
    compute_features, normalize, model : torch.nn.Module
        Of a CTC run.
    tokens : int
        Tokens of the tokenizer; outputs past them are never read.
    """

    def __init__(self, compute_features, normalize, model, tokens):
        super().__init__()
        self.compute_features, self.normalize, self.model = compute_features, normalize, model
        self.tokens = tokens

    def forward(self, waveform, samples):
        """Log-probabilities and frame counts."""
        features, lengths = self.compute_features(waveform, samples=samples)
        relative = relative_lengths(lengths, features.shape[1])
        output = self.model(self.normalize(features, relative), lengths, relative)
        return output.log_probs[..., : self.tokens], output.lengths


def _centred(waveform, samples, window):
    """Each clip of a padded batch in the middle of ``window`` samples, if it is shorter."""
    before = (window - samples).clamp(min=0) // 2
    waveform = keep_valid(waveform, valid_frames(samples, waveform.shape[1], waveform.device))
    time = waveform.shape[1]
    # a tracer would take the larger of the two for a constant
    width = time + window if torch.jit.is_tracing() else torch.sym_max(time, window)
    index = torch.arange(width, device=waveform.device) - before.unsqueeze(1)
    inside = (index >= 0) & (index < time)
    waveform = keep_valid(waveform.gather(1, index.clamp(0, time - 1)), inside)
    return waveform, samples.clamp(min=window)

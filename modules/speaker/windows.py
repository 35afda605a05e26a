"""One embedding of a recording of any length: windows of a minute, and crops for networks that read one length only.

Memory does not grow with the recording. The embedding does not depend on the pieces that the recording comes in.
"""

import math

import torch

from modules.lengths import sample_counts
from modules.ssm.checks import check_count

WINDOW_SECONDS = 60.0


def embed_blocks(model, blocks):
    """The embedding of one recording that comes piece by piece.

    A recording of up to a minute is read at once. A longer one is cut into windows of half a minute to a minute, whose
    embeddings are averaged by duration.

    Arguments
    ---------
    model : torch.nn.Module
        In evaluation mode. Maps waveforms (B, T) and counts of samples (B,) to embeddings (B, embedding_size), and has
        ``sample_rate`` and ``crop_samples``.
    blocks : iterable of torch.Tensor
        Pieces (samples,) of any lengths at the model's rate.

    Returns
    -------
    torch.Tensor
        (embedding_size,), float32, on the CPU.

    Raises
    ------
    ValueError
        If the recording has fewer samples than the model needs.

    Example
    -------
    >>> class Loudness(torch.nn.Module):
    ...     sample_rate, crop_samples, min_samples, embedding_size = 8000, None, 1, 1
    ...
    ...     def forward(self, wavs, samples):
    ...         return wavs.abs().sum(1, keepdim=True) / samples[:, None]
    >>> embed_blocks(Loudness(), [torch.ones(3), -torch.ones(5)])
    tensor([1.])
    """
    total, samples = None, 0
    for window in cut_windows(blocks, round(WINDOW_SECONDS * model.sample_rate)):
        weighted = _embed_window(model, window) * len(window)
        total = weighted if total is None else total + weighted
        samples += len(window)
    if total is None:
        raise ValueError("holds no samples")
    return (total / samples).float()


def cut_windows(blocks, longest):
    """Cut a stream into windows that follow each other without a gap.

    Arguments
    ---------
    blocks : iterable of torch.Tensor
        (samples,) each.
    longest : int
        Samples of a window. The last two windows share the end of the stream equally.

    Yields
    ------
    torch.Tensor
        (samples,), a copy. Of a stream longer than ``longest``, at least half of it.

    Raises
    ------
    ValueError
        If ``longest`` is no whole number of 1 or more.

    Example
    -------
    >>> [len(one) for one in cut_windows([torch.zeros(7), torch.zeros(18)], 10)]
    [10, 8, 7]
    """
    check_count("longest", longest)
    kept, samples = [], 0
    for block in blocks:
        kept.append(block)
        samples += len(block)
        while samples > 2 * longest:
            whole = torch.cat(kept)
            yield whole[:longest].clone()
            kept, samples = [whole[longest:]], samples - longest
    if samples:
        whole = torch.cat(kept)
        parts = 2 if samples > longest else 1
        for part in whole.split(math.ceil(samples / parts)):
            yield part.clone()


def cut_crops(waveform, size):
    """Crops of one length that cover a waveform, evenly spaced and as few as can be.

    Arguments
    ---------
    waveform : torch.Tensor
        (samples,); one shorter than a crop is repeated until it fills one.
    size : int
        Samples of a crop.

    Returns
    -------
    torch.Tensor
        (crops, size)

    Raises
    ------
    ValueError
        If ``size`` is no whole number of 1 or more, or the waveform holds no samples.

    Example
    -------
    >>> cut_crops(torch.arange(5), 3).tolist()
    [[0, 1, 2], [2, 3, 4]]
    >>> cut_crops(torch.arange(2), 5).tolist()
    [[0, 1, 0, 1, 0]]
    """
    check_count("size", size)
    if not len(waveform):
        raise ValueError("waveform holds no samples")
    if len(waveform) < size:
        return waveform.repeat(math.ceil(size / len(waveform)))[None, :size]
    count = math.ceil(len(waveform) / size)
    room = len(waveform) - size
    starts = [room * index // max(1, count - 1) for index in range(count)]
    return torch.stack([waveform[start : start + size] for start in starts])


def _embed_window(model, window):
    """The embedding (embedding_size,) of one window, float64 on the CPU."""
    if model.crop_samples is None and len(window) < model.min_samples:
        raise ValueError(f"has {len(window)} samples, and the model needs {model.min_samples}")
    wavs = window[None] if model.crop_samples is None else cut_crops(window, model.crop_samples)
    device = next((one.device for one in model.parameters()), wavs.device)
    samples = torch.full((len(wavs),), wavs.shape[1], device=device)
    return model(wavs.to(device), samples).double().mean(0).cpu()


class RecordingEmbedding(torch.nn.Module):
    """A speaker model as the ``embedding_model`` of SpeechBrain's ``SpeakerRecognition``.

    Arguments
    ---------
    model : torch.nn.Module
        See :func:`embed_blocks`.

    Example
    -------
    >>> class Loudness(torch.nn.Module):
    ...     sample_rate, crop_samples, min_samples, embedding_size = 8000, 4, 1, 1
    ...
    ...     def forward(self, wavs, samples):
    ...         return wavs.abs().mean(1, keepdim=True)
    >>> RecordingEmbedding(Loudness())(torch.ones(2, 6), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 1, 1])
    """

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, wavs, wav_lens):
        """Embeddings (batch, 1, embedding_size) of ``wavs`` (batch, samples) with relative lengths (batch,)."""
        counts = sample_counts(wav_lens, wavs.shape[1]).tolist()
        recordings = [wav[:count].cpu() for wav, count in zip(wavs, counts, strict=True)]
        vectors = [embed_blocks(self.model, [one]) for one in recordings]
        return torch.stack(vectors)[:, None].to(wavs.device)


class Unchanged(torch.nn.Module):
    """Its first argument; the steps of ``SpeakerRecognition`` that a speaker model does itself."""

    def forward(self, x, *_):
        """``x``."""
        return x


def check_crops(wavs, samples, crop_samples):
    """Raise ``ValueError`` unless a model of a fixed length gets utterances of that length.

    Arguments
    ---------
    wavs : torch.Tensor
        (batch, samples).
    samples : torch.Tensor
        (batch,) integer sample counts, looked at on the CPU only.
    crop_samples : int or None
        Samples that the model takes; ``None`` for any length.

    Example
    -------
    >>> check_crops(torch.zeros(2, 4), torch.tensor([4, 4]), crop_samples=4)
    """
    if crop_samples is None or torch.compiler.is_compiling():
        return
    longest = wavs.shape[1] if samples.device.type != "cpu" else int(samples.max())
    if longest != crop_samples or wavs.shape[1] != longest:
        raise ValueError(
            f"this model takes crops of exactly {crop_samples} samples; got {max(longest, wavs.shape[1])}: cut "
            "longer recordings into crops, and average the embeddings"
        )

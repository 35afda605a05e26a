"""From recordings to embeddings, with any speaker model in memory, and from two embeddings to their score."""

import hashlib
import math
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from mamba_speech.audio import AudioError, check_file
from mamba_speech.recordings import Recording, RecordingResult, each_result
from mamba_speech.speaker.speech import MIN_SPEECH_SECONDS, SpeechMeter
from modules.speaker.windows import embed_blocks

# number of the way from a recording to its embedding: embeddings of two ways are not comparable
METHOD = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedding(RecordingResult):
    """The embedding of one recording.

    Attributes
    ----------
    vector : numpy.ndarray or None
        (embedding_size,), float32, not normalised; None where there is an error.
    speech_seconds : float
        Seconds of speech by :class:`mamba_speech.speaker.speech.SpeechMeter`.
    path, seconds, error, warnings
        See :class:`mamba_speech.recordings.RecordingResult`.
    """

    vector: np.ndarray | None = None
    speech_seconds: float = 0.0


def embed_files(model, files, store=None, min_speech=MIN_SPEECH_SECONDS):
    """The embeddings of files, one after the other.

    Each file is read alone and piece by piece, so its embedding depends on nothing else, and memory does not grow with
    its length. See :func:`modules.speaker.windows.embed_blocks`.

    Arguments
    ---------
    model : torch.nn.Module
        A speaker model, on its device. It is used in evaluation mode and left in the mode it had.
    files : iterable of str or Path
    store : mamba_speech.speaker.store.EmbeddingStore, optional
        Embeddings that are kept there are not computed again.
    min_speech : float
        Least seconds of speech; 0 takes every file.

    Yields
    ------
    Embedding
        In the order of the files. One that cannot be used has ``error``, and the others go on.

    Example
    -------
    >>> import tempfile
    >>> import soundfile
    >>> class Loudness(torch.nn.Module):
    ...     sample_rate, crop_samples, min_samples, embedding_size = 8000, None, 1, 1
    ...
    ...     def forward(self, wavs, samples):
    ...         return wavs.abs().sum(1, keepdim=True) / samples[:, None]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/a.wav", np.resize([0.5, -0.5], 8000), 8000)
    ...     [(one.vector.tolist(), one.seconds) for one in embed_files(Loudness(), [f"{folder}/a.wav"])]
    [([0.5], 1.0)]
    """
    return embed_recordings(model, map(Recording, files), store, min_speech)


def embed_recordings(model, recordings, store=None, min_speech=MIN_SPEECH_SECONDS):
    """The same as :func:`embed_files` for recordings, which may be waveforms.

    Arguments
    ---------
    model, store, min_speech
        See :func:`embed_files`. Waveforms are not kept in the store.
    recordings : iterable of mamba_speech.recordings.Recording

    Yields
    ------
    Embedding
    """
    weights = model_hash(model) if store is not None else None

    def embed(recording):
        # the store knows files, and no parts of files
        if store is None or recording.path is None or recording.row is not None:
            return embed_recording(model, recording, min_speech)
        content = file_hash(recording.path)
        found = store.get(weights, content)
        if found is None:
            found = embed_recording(model, recording, min_speech)
            store.put(weights, content, found)
        # it may have been kept by somebody who takes less speech
        _check_speech(recording.name, found.speech_seconds, min_speech)
        return Embedding(
            path=recording.path,
            seconds=found.seconds,
            vector=found.vector,
            speech_seconds=found.speech_seconds,
        )

    return each_result(recordings, embed, Embedding)


def embed_recording(model, recording, min_speech=MIN_SPEECH_SECONDS):
    """The embedding of one recording.

    Arguments
    ---------
    model, min_speech
        See :func:`embed_files`.
    recording : mamba_speech.recordings.Recording

    Returns
    -------
    Embedding

    Raises
    ------
    mamba_speech.audio.AudioError
        If the recording is no usable audio, holds less speech than ``min_speech``, or gives an embedding that is not
        finite or is zero.
    """
    meter = SpeechMeter(model.sample_rate)
    samples = 0

    def heard():
        nonlocal samples
        for block in recording.blocks(model.sample_rate):
            meter.add(block)
            samples += len(block)
            yield block
        # the last window is embedded after this: a short recording meets the network only if it is speech
        _check_speech(recording.name, meter.seconds(), min_speech)

    try:
        with _evaluating(model):
            vector = embed_blocks(model, heard()).numpy()
    except AudioError:
        raise
    except ValueError as error:
        raise AudioError(f"{recording.name}: {error}") from error
    if not (np.isfinite(vector).all() and vector.any()):
        raise AudioError(
            f"{recording.name}: the model made of it an embedding that is not finite, or is zero"
        )
    return Embedding(
        path=recording.path,
        seconds=samples / model.sample_rate,
        vector=vector,
        speech_seconds=meter.seconds(),
    )


def embed_waveform(model, waveform):
    """The embedding of a waveform in memory, whatever speech it holds.

    Arguments
    ---------
    model : torch.nn.Module
        See :func:`embed_files`.
    waveform : torch.Tensor
        (samples,), float32, at the model's rate.

    Returns
    -------
    torch.Tensor
        (embedding_size,), float32, on the CPU.

    Raises
    ------
    ValueError
        If the waveform has fewer samples than the model needs.
    """
    with _evaluating(model):
        return embed_blocks(model, [waveform.cpu()])


def _check_speech(name, found, least):
    if found < least:
        raise AudioError(f"{name}: holds {found:.2f} s of speech; {least:g} s are needed")


@contextmanager
def _evaluating(model):
    """A model in evaluation mode and full precision, without gradients; afterwards as it was."""
    training = [one for one in model.modules() if one.training]
    device = next((one.device.type for one in model.parameters()), "cpu")
    model.eval()
    try:
        # not inference_mode: tensors that the model keeps for later serve training too
        with torch.no_grad(), torch.autocast(device, enabled=False):
            yield
    finally:
        for one in training:
            one.training = True


def similarity(a, b):
    """The cosine of two embeddings: the score of a trial.

    The sums are rounded once, so the order of the two does not matter, to the last bit.

    Arguments
    ---------
    a, b : numpy.ndarray
        (embedding_size,), finite and not zero.

    Returns
    -------
    float
        From -1 to 1; exactly 1 for equal embeddings.

    Example
    -------
    >>> similarity(np.array([3.0, 4.0]), np.array([8.0, 6.0]))
    0.96
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    dot, power_a, power_b = (math.fsum((x * y).tolist()) for x, y in ((a, b), (a, a), (b, b)))
    return max(-1.0, min(1.0, dot / math.sqrt(power_a * power_b)))


def model_hash(model):
    """A hash of a model's weights, which tells its embeddings from any other model's.

    The lengths that the model reads and the way to embed a recording count too.

    Arguments
    ---------
    model : torch.nn.Module

    Returns
    -------
    str
        32 hexadecimal digits.

    Example
    -------
    >>> class Loudness(torch.nn.Linear):
    ...     sample_rate, crop_samples, min_samples, embedding_size = 8000, None, 1, 1
    >>> with torch.random.fork_rng(devices=[]):
    ...     models = Loudness(1, 1), Loudness(1, 1)
    >>> len({model_hash(model) for model in (*models, *models)})
    2
    """
    read = (METHOD, model.sample_rate, model.crop_samples, model.embedding_size)
    digest = hashlib.sha256(repr(read).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        data = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(data.numpy())
    return digest.hexdigest()[:32]


def file_hash(path):
    """A hash of a file's bytes: 32 hexadecimal digits.

    Raises
    ------
    mamba_speech.audio.AudioError
        If the file cannot be read.
    """
    check_file(path)
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()[:32]

"""What the public classes take and give: one recording or many, and a result for each.

One recording is a file, or a waveform in an array. Several are a folder, or any iterable of files, folders and
waveforms.
"""

import io
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch

from mamba_speech.audio import (
    AudioError,
    AudioWarning,
    check_samples,
    collected_warnings,
    find_audio,
    give_warnings,
    is_folder,
    load_audio,
    recording_fault,
    resample,
)
from mamba_speech.audio.listening import listen
from mamba_speech.blocks import AudioBlocks

# the scales of the integers that recordings are kept in
_PCM = {torch.int16: 2.0**15, torch.int32: 2.0**31}
# what Python can go through, piece by piece, and nobody means as many recordings
_NO_LISTS = (Mapping, io.IOBase, bytes, bytearray, memoryview, range)


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordingResult:
    """What became of one recording; each task has a class of its own.

    Attributes
    ----------
    path : str or None
        The file; None for a waveform.
    seconds : float
        Duration of the audio; 0 where there is an error.
    error : str or None
        Why there is no result; the sentence names the file.
    warnings : tuple of mamba_speech.audio.AudioWarning
        What is odd about a recording that was used all the same: it was cut off, for example, or one of its channels
        is silent.
    """

    path: str | None = None
    seconds: float = 0.0
    error: str | None = None
    warnings: tuple[AudioWarning, ...] = ()


class Recording:
    """One recording that a user gave, read when it is asked for.

    Arguments
    ---------
    source : str, Path, numpy.ndarray or torch.Tensor
        A file that :func:`mamba_speech.audio.open_audio` reads; or a waveform (samples,) or (samples, channels) of
        floats in -1..1, or of 16- or 32-bit integers, which are scaled. Channels are averaged, or chosen as
        :func:`mamba_speech.audio.load_audio` chooses them. What is odd goes to
        :func:`mamba_speech.audio.collected_warnings`.
    sample_rate : int, optional
        Of a waveform, which must have one; files know theirs.
    name : str
        What errors call a waveform.

    Raises
    ------
    ValueError
        If a waveform has no sample rate, or the source is something else.

    Example
    -------
    >>> stereo = np.array([[16384, 8192], [8192, 16384]], dtype=np.int16)
    >>> Recording(stereo, 8000).load(8000)
    tensor([0.3750, 0.3750])
    """

    def __init__(self, source, sample_rate=None, name="the waveform"):
        self.path = self.waveform = None
        if _is_waveform(source):
            self.name, self.waveform = name, source
            self.sample_rate = _whole_rate(sample_rate, name)
        elif isinstance(source, str | os.PathLike):
            self.path = self.name = os.fspath(source)
        else:
            raise ValueError(
                f"a recording is a path, or a waveform in a numpy array or a torch tensor; got {source!r:.60}"
            )

    def load(self, sample_rate):
        """The mono waveform (samples,), float32, at a rate.

        Raises
        ------
        AudioError
            If it is no usable audio.
        """
        if self.path is not None:
            return load_audio(self.path, sample_rate)
        return resample(
            _mono(self.waveform, self.sample_rate, self.name), self.sample_rate, sample_rate
        )

    def blocks(self, sample_rate):
        """The same in pieces (samples,) of some seconds, which are read as they are asked for."""
        if self.path is not None:
            return AudioBlocks(self.path, sample_rate)
        return self.load(sample_rate).split(5 * sample_rate)


def recordings_of(audio, sample_rate=None):
    """The recordings that a user means, and whether they are one or many.

    Arguments
    ---------
    audio : str, Path, numpy.ndarray, torch.Tensor, or iterable of these
        See :class:`Recording`. A folder stands for the recordings in it, at any depth and sorted. A path is never a
        list of letters, nor an array a list of waveforms.
    sample_rate : int, optional
        Of the waveforms.

    Returns
    -------
    recordings : iterable of Recording
        Read from an iterator as they are asked for.
    many : bool

    Raises
    ------
    ValueError
        See :class:`Recording`; of many recordings, when the one at fault is reached.

    Example
    -------
    >>> [recording.path for recording in recordings_of("yes.wav")[0]]
    ['yes.wav']
    >>> recordings_of(["yes.wav"])[1]
    True
    """
    if isinstance(audio, str | os.PathLike):
        if not os.fspath(audio) or not is_folder(audio):
            return [Recording(audio)], False
        audio = [audio]
    if isinstance(audio, np.ndarray) and audio.dtype.kind in "OU":
        # names from a table, as pandas gives them
        audio = audio.ravel().tolist()
    if _is_waveform(audio) or isinstance(audio, _NO_LISTS) or not isinstance(audio, Iterable):
        return [Recording(audio, sample_rate)], False
    return _each(audio, sample_rate), True


def _each(audio, sample_rate):
    for number, one in enumerate(audio):
        if isinstance(one, str | os.PathLike) and os.fspath(one):
            yield from map(Recording, find_audio([one]))
        else:
            yield Recording(one, sample_rate, f"waveform {number}")


def one_or_each(results, many):
    """The results of many recordings, as they come; or the one result of a single recording.

    Raises
    ------
    AudioError
        If the single result is an error.
    """
    if many:
        return results
    (result,) = results
    if result.error is not None:
        raise AudioError(result.error)
    return result


def each_result(recordings, work, kind):
    """The results of work on recordings, one after the other; what is wrong with one does not end the rest.

    Arguments
    ---------
    recordings : iterable of Recording
    work : callable
        From a recording to a result. Whatever it raises is the error of that recording.
    kind : type
        Class of the results.

    Yields
    ------
    RecordingResult
    """
    for recording in recordings:
        try:
            with collected_warnings() as odd:
                result = work(recording)
            if odd:
                result = replace(result, warnings=tuple(odd))
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            result = kind(path=recording.path, error=recording_fault(recording.name, error))
        yield result


def _is_waveform(source):
    return isinstance(source, np.ndarray | torch.Tensor)


def _whole_rate(sample_rate, name):
    with suppress(TypeError, ValueError, OverflowError):
        rate = int(sample_rate)
        if rate == sample_rate and rate >= 1:
            return rate
    raise ValueError(
        f"{name} needs its samples a second: give sample_rate=16000, for example; got {sample_rate!r:.60}"
    )


def _mono(waveform, rate, name):
    """The waveform as float32 (samples,)."""
    if isinstance(waveform, np.ndarray):
        if waveform.dtype.kind not in "fiu":
            raise AudioError(f"{name}: holds {waveform.dtype} and no numbers")
        if waveform.dtype.itemsize > 8:
            # torch has no numbers so long
            waveform = waveform.astype(np.float64)
        # a copy, since arrays may be read-only, reversed, or in another order of bytes
        waveform = torch.from_numpy(waveform.astype(waveform.dtype.newbyteorder("="), order="C"))
    wave = waveform.detach().cpu()
    floating = wave.is_floating_point()
    if wave.dtype in _PCM:
        wave = wave.double() / _PCM[wave.dtype]
    if not wave.is_floating_point():
        raise AudioError(
            f"{name}: holds {wave.dtype} numbers; give floats in -1..1, or 16- or 32-bit integers"
        )
    shape = tuple(wave.shape)
    if wave.dim() not in (1, 2):
        raise AudioError(f"{name}: must be (samples,) or (samples, channels); got {shape}")
    if wave.numel() == 0:
        raise AudioError(f"{name}: holds no samples")
    if wave.dim() == 2 and shape[1] > shape[0]:
        raise AudioError(
            f"{name}: is {shape}, more channels than samples; give (samples, channels), its transpose"
        )
    check_samples(wave, name)
    samples = (wave if wave.dim() == 2 else wave[:, None]).float().numpy()
    verdict = listen(samples, rate, floating)
    give_warnings(verdict.warnings(name))
    return torch.from_numpy(verdict.apply(samples))

"""What the public classes take and give: one recording or many, and a result for each.

One recording is a file, or a waveform in an array. Several are a folder, a list of recordings or of parts of
recordings, or any iterable of files, folders, lists and waveforms.
"""

import io
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch

from mamba_speech.arguments import STANDARD_INPUT
from mamba_speech.audio import (
    AudioError,
    AudioWarning,
    check_file,
    check_samples,
    collected_warnings,
    find_audio,
    give_warnings,
    is_folder,
    load_audio,
    open_audio,
    recording_fault,
    resample,
)
from mamba_speech.audio.listening import listen
from mamba_speech.blocks import AudioBlocks
from mamba_speech.files import error_text
from mamba_speech.lists import ListError, is_list, read_list

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
    id : str or None
        Name of the utterance in a list of recordings, where the list gives one.
    start, end : float or None
        Part of the file in seconds, where a list means a part.
    """

    path: str | None = None
    seconds: float = 0.0
    error: str | None = None
    warnings: tuple[AudioWarning, ...] = ()
    id: str | None = None
    start: float | None = None
    end: float | None = None

    def place(self):
        """The keys of a record that say what the result is of: path, and of a row of a list id, start and end."""
        found = {name: getattr(self, name) for name in ("id", "start", "end")}
        return {"path": self.path} | {
            key: value for key, value in found.items() if value is not None
        }


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
        self.path = self.waveform = self.row = self.fault = self.id = self.start = self.end = None
        # what results call it in place of its path
        self.told = None
        if _is_waveform(source):
            self.name, self.waveform = name, source
            self.sample_rate = _whole_rate(sample_rate, name)
        elif isinstance(source, str | os.PathLike):
            self.path = self.name = os.fspath(source)
        else:
            raise ValueError(
                f"a recording is a path, or a waveform in a numpy array or a torch tensor; got {source!r:.60}"
            )

    @classmethod
    def of_row(cls, row, listed):
        """The recording that a row of a list means.

        Arguments
        ---------
        row : mamba_speech.lists.ListRow
        listed : str or Path
            The list.
        """
        recording = cls(row.path or row.name or listed)
        recording.row, recording.id = row, row.id
        if row.fault is not None:
            recording.fault = f"{listed}, {row.place}: {row.fault}"
        return recording

    @classmethod
    def of_stream(cls, path):
        """The recording that a file holds into which standard input was copied; results call it ``-``."""
        recording = cls(path)
        recording.told = STANDARD_INPUT
        return recording

    @classmethod
    def failed(cls, path, fault):
        """What stands for a list that cannot be read; its error is told when it is asked for."""
        recording = cls(path)
        recording.fault = fault
        return recording

    def check(self):
        """Refuse a row that cannot be used, and a path that is no file.

        Raises
        ------
        AudioError
        """
        if self.fault is not None:
            raise AudioError(self.fault)
        if self.path is not None:
            check_file(self.path)

    def place(self):
        """The keys of a record that say which recording it is of; see :meth:`RecordingResult.place`."""
        told = {"id": self.id, "start": self.start, "end": self.end}
        return {"path": self.told or self.path} | {
            key: value for key, value in told.items() if value is not None
        }

    def _part(self):
        """The first sample of the file and the end, as arguments of a reader; none for the whole file."""
        self.check()
        if self.row is None or not self.row.is_segment:
            return ()
        with open_audio(self.path) as audio:
            rate, frames = audio.rate, audio.frames
        try:
            part = self.row.samples(rate, frames)
        except ValueError as error:
            raise AudioError(f"{self.path}: {error} ({self.row.place} of the list)") from error
        first, last = part or (0, frames)
        self.start, self.end = first / rate, None if last is None else last / rate
        return part or ()

    def is_longer(self, seconds):
        """Whether the recording lasts longer; one that does not tell its length is read so far.

        Raises
        ------
        AudioError
            If it is no usable audio.
        """
        if self.path is None:
            return max(self.waveform.shape, default=0) > seconds * self.sample_rate
        first, last = self._part() or (0, None)
        with open_audio(self.path) as audio:
            limit = seconds * audio.rate
            ends = [one for one in (audio.frames, last) if one is not None]
            if ends:
                return min(ends) - first > limit
            heard = 0
            for block in audio.blocks(first):
                heard += len(block)
                if heard > limit:
                    return True
        return False

    def load(self, sample_rate):
        """The mono waveform (samples,), float32, at a rate.

        Raises
        ------
        AudioError
            If it is no usable audio.
        """
        if self.path is not None:
            return load_audio(self.path, sample_rate, *self._part())
        return resample(
            _mono(self.waveform, self.sample_rate, self.name), self.sample_rate, sample_rate
        )

    def blocks(self, sample_rate):
        """The same in pieces (samples,) of some seconds, which are read as they are asked for."""
        if self.path is not None:
            return AudioBlocks(self.path, sample_rate, *self._part())
        return self.load(sample_rate).split(5 * sample_rate)


def recordings_of(audio, sample_rate=None):
    """The recordings that a user means, and whether they are one or many.

    Arguments
    ---------
    audio : str, Path, numpy.ndarray, torch.Tensor, or iterable of these
        See :class:`Recording`. A folder stands for the recordings in it, at any depth and sorted. A list of recordings
        (see :func:`mamba_speech.lists.read_list`) stands for its rows; a row may be a part of a recording. A path is
        never a list of letters, nor an array a list of waveforms. A Recording stands for itself.
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
        if not os.fspath(audio) or not (is_folder(audio) or is_list(audio)):
            return [Recording(audio)], False
        audio = [audio]
    if isinstance(audio, np.ndarray) and audio.dtype.kind in "OU":
        # names from a table, as pandas gives them
        audio = audio.ravel().tolist()
    if isinstance(audio, Recording):
        return [audio], False
    if _is_waveform(audio) or isinstance(audio, _NO_LISTS) or not isinstance(audio, Iterable):
        return [Recording(audio, sample_rate)], False
    return _each(audio, sample_rate), True


def _each(audio, sample_rate):
    for number, one in enumerate(audio):
        if isinstance(one, Recording):
            yield one
        elif isinstance(one, str | os.PathLike) and os.fspath(one):
            yield from _listed(one) if is_list(one) else map(Recording, find_audio([one]))
        else:
            yield Recording(one, sample_rate, f"waveform {number}")


def recordings_in(inputs):
    """The recordings that the inputs of a command mean: files, folders, lists and recordings, in a list."""
    return list(_each(inputs, None))


def _listed(path):
    """The recordings of a list; a list that is empty or cannot be read gives one, which fails."""
    empty = True
    try:
        for row in read_list(path):
            empty = False
            yield Recording.of_row(row, path)
        if empty:
            yield Recording.failed(path, f"{path}: a list in which there is no recording")
    except (OSError, ListError) as error:
        # any text may be called .txt, the notes beside recordings for example
        prose = os.path.splitext(path)[1].lower() == ".txt"
        yield Recording(path) if prose else Recording.failed(path, error_text(error))


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
            changes = {"warnings": tuple(odd)} if odd else {}
            changes |= recording.place() if recording.row or recording.told else {}
            result = replace(result, **changes) if changes else result
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            result = kind(**recording.place(), error=recording_fault(recording.name, error))
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

"""The one reader of recordings: any format, rate and number of channels, whole, in part, or block by block."""

import os
from functools import cached_property
from itertools import chain

import numpy as np
import soundfile

from mamba_speech.audio.errors import (
    NO_SAMPLES,
    AudioError,
    check_samples,
    recording_fault,
    unreadable,
)
from mamba_speech.audio.finding import check_file
from mamba_speech.audio.headers import read_header
from mamba_speech.audio.listening import HEARD_WHOLE, Listener, hear_all
from mamba_speech.audio.sources import Sound, open_source
from mamba_speech.audio.warnings import TRUNCATED, UNKNOWN_LENGTH, AudioWarning

BLOCK_SECONDS = 5.0
# What libsndfile gives as the length of a file that tells none, or more.
NO_LENGTH = 1 << 62
# numbers that are taken in one piece, 4 GiB, since a header may promise anything
AT_ONCE = 1 << 30
# samples at the end of a file that show whether it is whole
END = 16
FLOATS = ("FLOAT", "DOUBLE")


def open_audio(path):
    """Open a recording.

    Arguments
    ---------
    path : str or Path
        Any file that libsndfile reads (WAV, FLAC, Ogg, MP3, ...), or a medium that
        :mod:`mamba_speech.audio.media` decodes.

    Returns
    -------
    AudioFile
        A context manager.

    Raises
    ------
    AudioError
        If the file is missing, empty, or no audio.

    Example
    -------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> soundfile.write(f"{folder.name}/tone.wav", np.zeros((32000, 2)), 16000)
    >>> with open_audio(f"{folder.name}/tone.wav") as audio:
    ...     audio.rate, audio.channels, audio.frames, audio.warnings, audio.read(4).shape
    (16000, 2, 32000, (), (4, 2))
    """
    return AudioFile(path)


class AudioFile:
    """A recording that is open; see :func:`open_audio`.

    Attributes
    ----------
    path : str or Path
    rate, channels : int
    frames : int or None
        Samples of each channel by the header; None where it does not say. A truncated file may have fewer.
    floating : bool
        Whether it holds floating-point numbers, which need not be within -1..1.
    """

    def __init__(self, path):
        self.path, self._place, self._ended = path, 0, None
        self._cut, self._verdict, self._beneath = False, None, None
        check_file(path)
        self._open()
        self.rate, self.channels = self._file.samplerate, self._file.channels
        frames = self._file.frames
        self.frames = None if frames is None or frames >= NO_LENGTH else frames
        self.floating = getattr(self._file, "subtype", None) in FLOATS

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Close the file."""
        self._file.close()
        if self._beneath is not None:
            self._beneath.close()

    def _open(self):
        try:
            self._file, self._beneath = open_source(self.path, lambda: self._header)
        except (soundfile.SoundFileError, MemoryError) as error:
            raise self._fault(error) from error

    def _reopen(self):
        self.close()
        self._open()
        self._place, self._ended = 0, None

    def _fault(self, error):
        return AudioError(recording_fault(self.path, unreadable(self.path, error)))

    @cached_property
    def _header(self):
        try:
            return read_header(os.fsencode(self.path))
        except OSError:
            return None

    def _take(self, frames, dtype="float32", **options):
        if isinstance(self._file, Sound):
            return self._file.read(frames, dtype=dtype, always_2d=True, **options)
        return self._file.read(frames)

    def seek(self, place):
        """Go to sample ``place``, at most the file's length.

        Raises
        ------
        AudioError
            If the file has no such sample.
        """
        if place == self._place:
            return
        if self.frames is not None and place > self.frames:
            raise AudioError(f"{self.path}: has {self.frames} samples, and none at {place}")
        try:
            self._file.seek(place)
            self._place, self._ended = place, None
        except soundfile.SoundFileError:
            # one without a length, or that was cut off
            self._skip(place)

    def _skip(self, place):
        """Read up to a sample."""
        self._reopen()
        step = round(BLOCK_SECONDS * self.rate)
        while self._place < place:
            wanted = min(step, place - self._place)
            if len(self.read(wanted)) < wanted:
                raise AudioError(f"{self.path}: has {self._place} samples, and none at {place}")

    def read(self, frames, dtype="float32"):
        """The next samples.

        Arguments
        ---------
        frames : int
        dtype : str
            ``float32``; or ``int16``, which is faster, of a file that is not ``floating``.

        Returns
        -------
        numpy.ndarray
            (frames, channels), fewer at the end of what can be read.

        Raises
        ------
        AudioError
            If the file is damaged before its end.
        """
        if self._ended is not None:
            return np.zeros((0, self.channels), dtype)
        wanted = frames
        if self.frames is not None and not self._is_guess():
            # what follows the samples is no sound: a tag would be taken for damage
            wanted = min(frames, max(0, self.frames - self._place))
        try:
            block = self._take(wanted, dtype)
        except (soundfile.SoundFileError, MemoryError) as error:
            block = self._rescue(wanted, error)
        self._place += len(block)
        if len(block) < frames:
            self._ended = self._place
            if self.frames is not None and self._ended < self.frames:
                self._cut |= not self._is_guess()
        return block

    def _rescue(self, frames, error):
        """What can be read before an error, at the end of a file that was cut off; else raise it."""
        place = self._place
        if isinstance(error, MemoryError) or self._has_end():
            raise self._fault(error) from error
        # the library does not tell how many samples it wrote before the error: marks do
        marked = np.full((frames, self.channels), np.nan, dtype="float32")
        try:
            self._skip(place)
            read = self._take(frames, out=marked)
        except soundfile.SoundFileError:
            read = marked[: int((~np.isnan(marked[:, 0])).sum())]
        if place + len(read) == 0:
            raise self._fault(error) from error
        # what follows the last frame of an MP3 file may be a tag
        at_guess = self._is_guess() and place + len(read) > 0.95 * self.frames
        self._cut |= not at_guess
        return read

    def _is_guess(self):
        """Whether the length is a guess, as of MP3 without a count; a WAV file around MP3 counts bytes alone."""
        mpeg = getattr(self._file, "subtype", "").startswith("MPEG")
        return mpeg and self._header and (self._header.guessed or bool(self._header.promised))

    def _has_end(self):
        """Whether the last samples can be read; afterwards the file is at no known place."""
        if self.frames is None:
            return False
        last = min(END, self.frames)
        try:
            self._reopen()
            self._file.seek(self.frames - last)
            return len(self._take(last)) == last
        except soundfile.SoundFileError:
            # the last samples are not there to go to
            return False

    def check_end(self):
        """Read the end of the file alone, so that `warnings` tell whether it was cut off.

        A file that does not tell its length, or whose end cannot be read alone, is read whole. So is an MP3 file of
        which bytes are missing.

        Returns
        -------
        frames : int
            Length of the file.
        """
        if self.frames is None or (self._header and self._header.doubtful):
            self._reopen()
            return sum(map(len, self.blocks()))
        if self._header is None or (self._header.promised is None and not self._header.guessed):
            whole = self._has_end()
            self._reopen()
            if not whole:
                # cut off, or of a format without places to go to
                return sum(map(len, self.blocks()))
        return self.frames

    def blocks(self, start=0, stop=None, frames=None):
        """Samples from one place to another.

        Arguments
        ---------
        start : int
        stop : int, optional
            By default the end of the file.
        frames : int, optional
            Samples of a block; by default five seconds.

        Yields
        ------
        numpy.ndarray
            (samples, channels), float32; fewer in all where the file ends.
        """
        frames = frames or max(1, round(BLOCK_SECONDS * self.rate))
        self.seek(start)
        while stop is None or self._place < stop:
            wanted = frames if stop is None else min(frames, stop - self._place)
            block = self.read(wanted)
            if len(block):
                yield block
            if len(block) < wanted:
                return

    def read_all(self, start=0, stop=None):
        """The samples from one place to another, (samples, channels), float32, as :meth:`blocks` gives them."""
        ends = [one for one in (self.frames, stop) if one is not None]
        if not ends or (min(ends) - start) * self.channels > AT_ONCE:
            found = list(self.blocks(start, stop))
            return np.concatenate(found) if found else np.zeros((0, self.channels), "float32")
        self.seek(start)
        return self.read(max(0, min(ends) - start))

    def judge(self, samples=None):
        """The verdict on the whole recording; then `warnings` tell of it too.

        Arguments
        ---------
        samples : numpy.ndarray, optional
            All samples (samples, channels), where they were read already.

        Returns
        -------
        mamba_speech.audio.listening.Verdict
        """
        if self._verdict is None and samples is not None:
            self._verdict = hear_all(self._listener(), samples)
        elif self._verdict is None:
            self._judged()
        return self._verdict

    def mono_blocks(self):
        """The whole recording as one channel, by its verdict.

        Yields
        ------
        numpy.ndarray
            (samples,), float32.

        Raises
        ------
        AudioError
            If there are no samples, or such as :func:`mamba_speech.audio.check_samples` refuses.
        """
        for block in self._judged():
            yield self._verdict.apply(block)
        if self._place == 0:
            raise AudioError(f"{self.path}: holds no samples", NO_SAMPLES)

    def _listener(self):
        return Listener(self.rate, self.channels, self.frames, self.floating)

    def _judged(self):
        """All blocks, once the verdict on them is known; few files are read twice for it."""
        listener, kept, held = self._listener(), [], 0
        if self._place or self._ended is not None:
            self._reopen()
        blocks = self._checked(listener.piece)
        while not listener.settled:
            block = next(blocks, None)
            if block is None:
                break
            listener.hear(block)
            held += block.size
            kept = [*kept, block] if held <= HEARD_WHOLE else []
        self._verdict = listener.verdict()
        if held > HEARD_WHOLE:
            self._reopen()
            blocks = self._checked(listener.piece)
        return chain(kept, blocks)

    def _checked(self, frames):
        for block in self.blocks(frames=frames):
            check_samples(block, self.path)
            yield block

    @property
    def warnings(self):
        """Tuple of :class:`mamba_speech.audio.AudioWarning`: what is known so far, all of it once the end was read."""
        return (*self._of_length(), *(self._verdict.warnings(self.path) if self._verdict else ()))

    def _of_length(self):
        header = self._header
        is_sound = isinstance(self._file, Sound)
        if is_sound and header and header.chained:
            text = (
                f"{self.path}: holds several streams one after another, and only the first is read; install the "
                "program ffmpeg, or pip install av"
            )
            yield AudioWarning(TRUNCATED, text)
        elif self._cut or getattr(self._file, "truncated", False) or (header and header.cut):
            text = f"{self.path}: was cut off, or is damaged: {self._seconds_missing()}"
            yield AudioWarning(TRUNCATED, text)
        if (is_sound and self.frames is None) or (header and header.open_ended):
            text = f"{self.path}: does not tell its length: it is read to the end of the file"
            yield AudioWarning(UNKNOWN_LENGTH, text)

    def _seconds_missing(self):
        """How much of a file that was cut off can be read, as far as that is known."""
        promised, found = self.frames, self._ended
        if self._header and self._header.promised and self._header.there > 0 and promised:
            # libsndfile gives what is there
            found = self.frames
            promised = round(self.frames * self._header.promised / self._header.there)
        if found is None or promised is None or found >= promised:
            return "its end is missing"
        return f"it holds {found / self.rate:.2f} s of {promised / self.rate:.2f} s"

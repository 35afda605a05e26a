"""Audio that libsndfile does not read: MP4 and M4A, WebM, Windows Media, AMR, raw AAC and others.

The program ffmpeg decodes it where it is installed, and the package PyAV (`av`, of the extra `media`) where not. The
file's first bytes name its format. The decoder is told that format and guesses none, so that a playlist under a media
file's name opens no other file. A name is always a file: never an option, a protocol or an address.
"""

import shutil
from itertools import chain

import numpy as np

from mamba_speech.audio.decoders import Ffmpeg, PyAV
from mamba_speech.audio.errors import AudioError
from mamba_speech.audio.media_formats import SUFFIXES, has_decoder, is_cut, media_format

__all__ = ["SUFFIXES", "MediaFile", "has_decoder", "media_format", "open_media"]


def open_media(path):
    """Open an audio file, or a video's first sound track, that libsndfile does not read.

    Arguments
    ---------
    path : str or Path

    Returns
    -------
    MediaFile

    Raises
    ------
    AudioError
        If it is in none of the known formats, nothing can be decoded, or no decoder is installed.
    """
    return MediaFile(path)


class MediaFile:
    """A file that ffmpeg or PyAV decodes, with the interface of ``soundfile.SoundFile``; a context manager.

    It is decoded from its start. To seek backwards is to decode it anew, so long files that are read in many parts
    should be converted first.

    Arguments
    ---------
    path : str or Path

    Attributes
    ----------
    samplerate, channels : int
    frames : None
        The length is known when the end is reached: what containers say is rounded.

    Raises
    ------
    AudioError
        See :func:`open_media`; while reading, if the decoder stops answering.
    """

    frames = None
    # as soundfile would call the samples that are read
    subtype = "FLOAT"

    def __init__(self, path):
        self.path, self.format = path, media_format(path)
        if self.format is None:
            raise AudioError(f"{path}: cannot be read as audio (its format is unknown)")
        if not has_decoder():
            raise AudioError(
                f"{path}: is in the format {self.format.name}, which needs a decoder; install the program ffmpeg, "
                "or pip install av"
            )
        self._cut = is_cut(path, self.format)
        self._decoder = None
        try:
            self._start()
        except AudioError as error:
            if self.truncated:
                reason = "is cut short, and what is left cannot be decoded"
                raise AudioError(f"{path}: {reason}") from error
            raise
        self.samplerate, self.channels = self._decoder.samplerate, self._decoder.channels

    @property
    def truncated(self):
        """Whether it is known so far that the file holds more than can be read."""
        return self._cut or getattr(self._decoder, "damaged", False)

    def _start(self):
        self.close()
        self._decoder = _decode(self.path, self.format)
        self._blocks = iter(self._decoder)
        self._rest = np.empty((0, self._decoder.channels), np.float32)
        self._position = 0

    def read(self, frames=-1):
        """The next samples: float32 (frames, channels), fewer at the end; by default all that are left."""
        wanted, parts = frames if frames >= 0 else float("inf"), []
        for block in chain([self._rest], self._blocks):
            part = block[: int(min(len(block), wanted))]
            self._rest = block[len(part) :]
            parts.append(part)
            wanted -= len(part)
            if not wanted:
                break
        self._position += sum(map(len, parts))
        return np.concatenate(parts)

    def seek(self, frame):
        """Go to a sample of the file; past the end, nothing more is read."""
        if frame < self._position:
            self._start()
        while self._position < frame and len(self.read(min(frame - self._position, 1 << 20))):
            pass

    def close(self):
        """End the decoder."""
        if self._decoder is not None:
            self._decoder.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _decode(path, form):
    program = shutil.which("ffmpeg")
    return Ffmpeg(program, path, form.demuxer) if program else PyAV(path, form.demuxer)

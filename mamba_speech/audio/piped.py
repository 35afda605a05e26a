"""Sound that another program writes into a pipe, piece by piece as it comes: raw samples, or WAV.

A pipe cannot be gone back in. libsndfile reads the header of every other container by going back, so such a container
is refused with what to do. Source of the WAV layout: the Library of Congress, "Sustainability of Digital Formats".
"""

import io
import logging
import struct

import numpy as np
import soundfile
import torch

from mamba_speech.audio.errors import NO_SAMPLES, AudioError, check_samples
from mamba_speech.audio.headers import is_open_end
from mamba_speech.audio.resampling import BlockResampler, warn_of_rate

logger = logging.getLogger(__name__)

# libsndfile's names of the samples that a WAV header names by a tag and a number of bits
_CODECS = {(1, 8): "PCM_U8", (1, 16): "PCM_16", (1, 24): "PCM_24", (1, 32): "PCM_32"}
_CODECS |= {(3, 32): "FLOAT", (3, 64): "DOUBLE", (6, 8): "ALAW", (7, 8): "ULAW"}
_EXTENSIBLE = 0xFFFE
# RF64 and BW64 hold sizes of 64 bits in a chunk of their own; the size of 32 bits is full then
_RIFFS, _WIDE = (b"RIFF", b"RF64", b"BW64"), 0xFFFFFFFF
_MOST_RATE, _MOST_CHANNELS = 768_000, 1024
# bytes that are skipped at a time
_SKIP = 1 << 16


class PipedAudio:
    """A stream of bytes as mono pieces of sound; iterate over it once.

    Arguments
    ---------
    file : io.BufferedReader
        Bytes as they come, with ``read1``. A piece is given as soon as bytes are there.
    rate : int, optional
        Samples a second of raw 16-bit little-endian samples in one channel; by default the bytes are WAV.
    piece_seconds : float
        Longest piece.
    name : str
        What errors call the stream.

    Raises
    ------
    AudioError
        While iterating: if the bytes end before the first sample, are no WAV, or hold samples that
        :func:`mamba_speech.audio.check_samples` refuses.

    Example
    -------
    >>> file = io.BufferedReader(io.BytesIO(np.array([0, 16384], "<i2").tobytes()))
    >>> [(piece.tolist(), rate) for piece, rate in PipedAudio(file, 8000)]
    [([0.0, 0.5], 8000)]
    """

    def __init__(self, file, rate=None, piece_seconds=0.1, name="standard input"):
        self.file, self.rate, self.piece_seconds, self.name = file, rate, piece_seconds, name

    def __iter__(self):
        """Pairs of samples (samples,), float32, and their rate."""
        pieces = self._wavs() if self.rate is None else self._samples(self.rate, 1, "PCM_16", None)
        heard = 0
        for samples, rate in pieces:
            heard += len(samples)
            yield torch.from_numpy(samples), rate
        if not heard:
            raise AudioError(
                f"{self.name}: ended before the first sample; is the program before it running?",
                NO_SAMPLES,
            )

    def _wavs(self):
        """The samples of one WAV, and of others behind it."""
        first, left = True, 0
        while head := self._head(left):
            if head[:4] not in _RIFFS or head[8:] != b"WAVE":
                if first:
                    raise AudioError(
                        f"{self.name}: holds no WAV; decode it first, as in "
                        "`ffmpeg -i FILE -f s16le -ac 1 -ar 16000 - | mamba-speech listen RUN - --raw 16000`"
                    )
                logger.warning("%s: what follows the WAV is no sound, and is left out", self.name)
                return
            first = False
            left = yield from self._wav(head)

    def _head(self, left):
        """Twelve bytes that should begin a WAV; further chunks in the ``left`` bytes of the one before are skipped."""
        head = self._read(8)
        while len(head) == 8 and head[:4] not in _RIFFS:
            size = _padded(*struct.unpack("<I", head[4:]))
            if size + 8 > left:
                break
            self._skip(size)
            left, head = left - size - 8, self._read(8)
        return head + self._read(4)

    def _wav(self, head):
        """The samples of the WAV whose first twelve bytes were read; returns how many bytes of it are left behind."""
        form, (whole,), wide = None, struct.unpack("<I", head[4:8]), 0
        passed = 4
        while len(chunk := self._read(8)) == 8:
            name, (size,) = chunk[:4], struct.unpack("<I", chunk[4:])
            if name == b"data":
                if form is None:
                    raise AudioError(
                        f"{self.name}: its WAV header names no format before its samples"
                    )
                if head[:4] != b"RIFF" and size == _WIDE:
                    size = wide
                endless = size == 0 or is_open_end(size)
                yield from self._samples(*form, None if endless else size)
                self._skip(size % 2)
                return 0 if endless else whole - passed - 8 - _padded(size)
            passed += 8 + _padded(size)
            rest = _padded(size)
            if name in (b"fmt ", b"ds64"):
                fields = self._read(min(size, _SKIP))
                rest -= len(fields)
                if name == b"fmt ":
                    form = self._form(fields)
                elif len(fields) >= 16:
                    whole, wide = struct.unpack("<QQ", fields[:16])
            self._skip(rest)
        raise AudioError(f"{self.name}: ended within its WAV header", NO_SAMPLES)

    def _form(self, fields):
        """Rate, channels and libsndfile's name of the samples."""
        if len(fields) < 16:
            raise AudioError(f"{self.name}: ended within its WAV header", NO_SAMPLES)
        tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", fields[:16])
        if tag == _EXTENSIBLE and len(fields) >= 26:
            (tag,) = struct.unpack("<H", fields[24:26])
        codec = _CODECS.get((tag, bits))
        if codec is None:
            raise AudioError(
                f"{self.name}: holds WAV with codec {tag:#x} and {bits} bits, which cannot be read from a pipe; "
                "give the file itself"
            )
        if not (0 < channels <= _MOST_CHANNELS and 0 < rate <= _MOST_RATE):
            raise AudioError(
                f"{self.name}: its WAV header gives {channels} channels at {rate} Hz, which cannot be"
            )
        return rate, channels, codec

    def _samples(self, rate, channels, codec, size):
        """Pairs of samples and rate, of ``size`` bytes or to the end."""
        options = {"samplerate": rate, "channels": channels, "subtype": codec, "format": "RAW"}
        options |= {"endian": "LITTLE", "always_2d": True, "dtype": "float32"}
        frame, rest = channels * _BYTES[codec], b""
        wanted = max(1, round(self.piece_seconds * rate)) * frame
        while size is None or size > 0:
            count = wanted - len(rest)
            more = self.file.read1(count if size is None else min(count, size))
            if not more:
                break
            size = None if size is None else size - len(more)
            rest += more
            whole = len(rest) // frame * frame
            if whole:
                samples, _ = soundfile.read(io.BytesIO(rest[:whole]), **options)
                rest = rest[whole:]
                check_samples(samples, self.name)
                yield np.ascontiguousarray(samples.mean(1)), rate
        if rest:
            logger.warning("%s: ended within a sample, which is left out", self.name)
        elif size:
            logger.warning("%s: was cut off, %d bytes before its end", self.name, size)

    def _read(self, count):
        """So many bytes, fewer at the end."""
        return self.file.read(count)

    def _skip(self, count):
        while count > 0 and (read := len(self.file.read(min(count, _SKIP)))):
            count -= read


def _padded(size):
    """Bytes of a chunk that begins and ends at even places."""
    return size + size % 2


_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4}
_BYTES |= {"FLOAT": 4, "DOUBLE": 8, "ALAW": 1, "ULAW": 1}


def at_rate(pieces, sample_rate, name="standard input"):
    """Pieces at one rate, whatever rates they come at; resampling begins anew where their rate changes.

    Arguments
    ---------
    pieces : iterable of (torch.Tensor, int)
        Samples (samples,), and their rate.
    sample_rate : int
        Wanted samples a second.
    name : str
        What a warning calls the stream.

    Yields
    ------
    torch.Tensor
        (samples,)

    Example
    -------
    >>> pieces = [(torch.zeros(160), 16000), (torch.zeros(80), 8000)]
    >>> sum(len(piece) for piece in at_rate(pieces, 16000))
    320
    """
    resample, seconds = None, 0.0
    for samples, rate in pieces:
        if resample is None or rate != resample.rate:
            if resample is not None:
                logger.warning(
                    "%s: its rate changes from %d to %d Hz after %.2f s",
                    name,
                    resample.rate,
                    rate,
                    seconds,
                )
                yield resample.finish()[0]
            if rate != sample_rate:
                warn_of_rate(rate, sample_rate)
            resample = BlockResampler(rate, sample_rate)
        seconds += len(samples) / rate
        yield resample(samples[None])[0]
    if resample is not None:
        yield resample.finish()[0]

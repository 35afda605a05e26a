"""The program ffmpeg, or the library PyAV, as a source of blocks of samples."""

import os
import re
import selectors
import struct
import subprocess

import numpy as np

from mamba_speech.audio.errors import AudioError

# An ffmpeg that gives nothing for so long is ended.
STALL_SECONDS = 60
# bytes of a block of samples, and of ffmpeg's messages that are kept
_BLOCK, _MESSAGES = 1 << 18, 1 << 12
# Sun's audio format: its header is the simplest that holds rate and channels
_HEADER = struct.Struct(">4s5I")


class Ffmpeg:
    """Blocks (samples, channels) of float32 that the program ffmpeg decodes; iterate over it once.

    Arguments
    ---------
    program : str
        The program's path.
    path : str or Path
        The file.
    demuxer : str
        ffmpeg's name of the file's format; no other is tried.

    Attributes
    ----------
    samplerate, channels : int

    Raises
    ------
    AudioError
        If nothing can be decoded, or the program stops answering.
    """

    def __init__(self, program, path, demuxer):
        self.path = path
        command = [program, "-nostdin", "-hide_banner", "-loglevel", "error", "-threads", "1"]
        command += ["-protocol_whitelist", "file", "-f", demuxer]
        # the protocol is part of the name, so nothing in the name can be taken for one
        command += ["-i", b"file:" + os.path.abspath(os.fsencode(path))]
        command += ["-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        try:
            self._process = subprocess.Popen(command, **pipes, bufsize=0)
        except OSError as error:
            raise AudioError(f"{path}: {program} cannot be started ({error.strerror})") from error
        self._messages, self._output = b"", b""
        self._open = selectors.DefaultSelector()
        for pipe in (self._process.stdout, self._process.stderr):
            self._open.register(pipe, selectors.EVENT_READ)
        try:
            self.samplerate, self.channels = self._read_header()
        except BaseException:
            self.close()
            raise

    def __iter__(self):
        frame = 4 * self.channels
        while len(block := self._take(_BLOCK // frame * frame or frame)) >= frame:
            samples = np.frombuffer(block[: len(block) // frame * frame], ">f4")
            yield samples.astype(np.float32).reshape(-1, self.channels)

    def close(self):
        """End the program."""
        self._open.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._process.stderr.close()

    def _read_header(self):
        header = self._take(_HEADER.size)
        if len(header) < _HEADER.size:
            raise AudioError(f"{self.path}: {self._fault()}")
        magic, length, _, _, samplerate, channels = _HEADER.unpack(header)
        if magic != b".snd" or not samplerate or not channels:
            raise AudioError(f"{self.path}: cannot be read as audio (ffmpeg gave something else)")
        self._take(length - _HEADER.size)
        self._output = self._take(1) + self._output
        if not self._output:
            raise AudioError(f"{self.path}: {self._fault()}")
        return samplerate, channels

    def _take(self, count):
        """The next bytes of the output, fewer at its end."""
        parts = [self._output]
        missing = count - len(self._output)
        while missing > 0 and self._process.stdout in self._pipes():
            ready = self._open.select(STALL_SECONDS)
            if not ready:
                raise AudioError(f"{self.path}: ffmpeg gave nothing for {STALL_SECONDS} seconds")
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                if not data:
                    self._open.unregister(key.fileobj)
                elif key.fileobj is self._process.stderr:
                    self._messages = (self._messages + data)[:_MESSAGES]
                else:
                    parts.append(data)
                    missing -= len(data)
        whole = b"".join(parts)
        self._output = whole[count:]
        return whole[:count]

    def _pipes(self):
        return [key.fileobj for key in self._open.get_map().values()]

    def _fault(self):
        """What ffmpeg said, as half a sentence."""
        while self._process.stderr in self._pipes() and self._open.select(1):
            data = os.read(self._process.stderr.fileno(), 1 << 16)
            if not data:
                break
            self._messages = (self._messages + data)[:_MESSAGES]
        text = self._messages.decode(errors="replace")
        if "matches no streams" in text:
            return "holds no sound track"
        for line in text.splitlines():
            # without the part of ffmpeg that speaks, and without the file's name
            said = re.sub(r"^(\[[^]]*\] *)+", "", line)
            said = said.replace(f"file:{os.path.abspath(self.path)}: ", "").strip(" .")
            if said:
                return f"cannot be read as audio (ffmpeg: {said[:200]})"
        return "cannot be read as audio (ffmpeg: nothing in it can be decoded)"


class PyAV:
    """The same from the library PyAV, of the package `av`.

    Arguments
    ---------
    path, demuxer : str
        See :class:`Ffmpeg`.

    Attributes
    ----------
    damaged : bool
        Whether decoding ended before the file did.
    """

    def __init__(self, path, demuxer):
        import av

        self.path, self._av, self.damaged = path, av, False
        try:
            # PyAV takes names that are text only, and might take one for an address
            self._file = open(path, "rb")  # noqa: SIM115 - closed with the container
        except OSError as error:
            raise AudioError(f"{path}: {error.strerror.lower()}") from error
        self._container = None
        try:
            self._container = av.open(self._file, format=demuxer)
            if not self._container.streams.audio:
                raise AudioError(f"{path}: holds no sound track")
            if self._container.streams.audio[0].codec_context is None:
                raise AudioError(f"{path}: cannot be read as audio (its codec is unknown)")
            self._frames = self._decode()
            self._first = next(self._frames, None)
        except av.FFmpegError as error:
            self.close()
            raise AudioError(f"{path}: cannot be read as audio ({_said(error)})") from error
        except BaseException:
            self.close()
            raise
        if self._first is None:
            self.close()
            raise AudioError(f"{path}: cannot be read as audio (nothing in it can be decoded)")
        # of the samples, and not what the container says: some codecs double the rate
        self.samplerate, self.channels = self._first.sample_rate, len(self._first.layout.channels)

    def _decode(self):
        """Frames, without what is damaged."""
        stream = self._container.streams.audio[0]
        stream.codec_context.thread_count = 1
        for packet in self._container.demux(stream):
            try:
                yield from packet.decode()
            except self._av.InvalidDataError:
                continue

    def __iter__(self):
        layout = self._first.layout
        for frame, convert in self._converters(layout):
            for converted in convert.resample(frame):
                # where nothing needs converting, the end of the frames comes back too
                if converted is not None:
                    yield converted.to_ndarray().reshape(-1, self.channels)

    def _converters(self, layout):
        """Each frame with what makes it packed floats; a file may change its kind of samples on the way."""
        kind = convert = None
        frame = self._first
        while frame is not None:
            now = (frame.format.name, frame.layout.name, frame.sample_rate)
            if now != kind:
                if convert is not None:
                    yield None, convert
                kind = now
                convert = self._av.AudioResampler("flt", layout, self.samplerate)
            yield frame, convert
            try:
                frame = next(self._frames, None)
            except self._av.FFmpegError:
                # a file that was cut, or that goes on at another rate: what came before is good
                frame, self.damaged = None, True
        yield None, convert

    def close(self):
        """Close the file."""
        if self._container is not None:
            self._container.close()
        self._file.close()


def _said(error):
    return (error.strerror or str(error)).rstrip(".")

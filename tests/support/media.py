"""Media files of any codec, written with PyAV, and a program named ffmpeg that decodes with PyAV."""

import os
import sys
from fractions import Fraction

import av
import numpy as np

# A stand-in for the program: it understands what the project says to it, checks it, and answers as ffmpeg does.
FFMPEG = """#!{python}
import struct, sys
import av
import numpy as np

arguments = sys.argv[1:]
given = dict(zip(arguments, arguments[1:]))
name = given["-i"]
assert "-nostdin" in arguments and arguments[-1] == "pipe:1" and given["-protocol_whitelist"] == "file"
assert given["-f"] == "au" and given["-c:a"] == "pcm_f32be" and given["-map"] == "0:a:0"
demuxer = arguments[arguments.index("-f") + 1]
assert arguments.index("-f") < arguments.index("-i") and name.startswith("file:/")
try:
    container = av.open(open(name[5:], "rb"), format=demuxer)
except av.FFmpegError as error:
    print(f"[{{demuxer}} @ 0x55d0c0ffee] {{name}}: {{error.strerror}}", file=sys.stderr)
    print(f"Error opening input file {{name}}.", file=sys.stderr)
    sys.exit(183)
if not container.streams.audio:
    print("Stream map '0:a:0' matches no streams.", file=sys.stderr)
    sys.exit(234)
head = False

def write(parts):
    for part in filter(None, parts):
        sys.stdout.buffer.write(part.to_ndarray().astype(">f4").tobytes())

for packet in container.demux(container.streams.audio[0]):
    try:
        frames = packet.decode()
    except av.InvalidDataError as error:
        print(f"Error submitting packet to decoder: {{error.strerror}}", file=sys.stderr)
        continue
    for frame in frames:
        if not head:
            convert = av.AudioResampler("flt", frame.layout, frame.sample_rate)
            values = 32, 0xFFFFFFFF, 6, frame.sample_rate, len(frame.layout.channels)
            sys.stdout.buffer.write(struct.pack(">4s5I8x", b".snd", *values))
            head = True
        write(convert.resample(frame))
if head:
    write(convert.resample(None))
"""


def write_media(path, samples, rate, codec, container=None):
    """Write a file as an encoder of FFmpeg does.

    Arguments
    ---------
    path : Path
    samples : numpy.ndarray
        (samples,) or (samples, channels), within -1..1.
    rate : int
    codec : str
        FFmpeg's name of the encoder.
    container : str, optional
        FFmpeg's name of the format; by default that of the suffix.
    """
    channels = np.ascontiguousarray(np.atleast_2d(samples.T), np.float32)
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(channels)]
    with av.open(os.fspath(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.layout = layout
        # Windows Media's encoder needs to be told, the lossless ones do not listen
        stream.bit_rate = 12200 if "amr" in codec else 96000
        frame = av.AudioFrame.from_ndarray(channels, "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    return path


def install_ffmpeg(folder, monkeypatch, script=FFMPEG):
    """Put a program named ffmpeg, of Python code, first on the path."""
    folder.mkdir(exist_ok=True)
    program = folder / "ffmpeg"
    program.write_text(script.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

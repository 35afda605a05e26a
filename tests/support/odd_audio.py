"""Recordings whose files are odd: cut off, of no told length, of channels that hurt, or on the scale of integers."""

import struct

import numpy as np
import soundfile

RATE = 16000
# formats that libsndfile writes, and whose headers tell a length
LENGTHS = {
    "wav": {"format": "WAV"},
    "wavex": {"format": "WAVEX"},
    "rifx": {"format": "WAV", "endian": "BIG"},
    "rf64": {"format": "RF64"},
    "w64": {"format": "W64"},
    "aiff": {"format": "AIFF"},
    "au": {"format": "AU"},
    "caf": {"format": "CAF"},
    "sph": {"format": "NIST"},
    "flac": {"format": "FLAC"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
}


def speech_like(seconds=2.0, seed=0, rate=RATE):
    """Noise (samples,) that rises and falls, float32, within -0.5..0.5."""
    random = np.random.default_rng(seed)
    samples = round(seconds * rate)
    slow = 0.6 + 0.4 * np.sin(np.arange(samples) * 2 * np.pi * 3 / rate)
    noise = 0.1 * slow * random.standard_normal(samples)
    return np.clip(noise, -0.5, 0.5).astype("float32")


def write_format(path, name, samples=None):
    """Write a file in one of the formats `LENGTHS`."""
    samples = speech_like() if samples is None else samples
    soundfile.write(path, samples, RATE, **LENGTHS[name])
    return path


def cut(path, part=0.5):
    """Leave the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])


def edit(path, changes):
    """Replace bytes of a file, by place."""
    content = bytearray(path.read_bytes())
    for place, new in changes.items():
        content[place : place + len(new)] = new
    path.write_bytes(content)


def forget_flac_length(path):
    """A FLAC file as an encoder writes it to a pipe: STREAMINFO tells 0 samples."""
    kept = path.read_bytes()[21] & 0xF0
    edit(path, {21: bytes([kept]), 22: bytes(4)})


def set_data_size(path, size, riff=None):
    """Another size in the header of a WAV file's samples, and of the file."""
    place = path.read_bytes().index(b"data") + 4
    changes = {place: struct.pack("<I", size)}
    if riff is not None:
        changes[4] = struct.pack("<I", riff)
    edit(path, changes)


def drop_xing(path):
    """An MP3 file in which nothing tells how many frames there are."""
    content = path.read_bytes()
    name = next(name for name in (b"Xing", b"Info") if name in content[:200])
    edit(path, {content.index(name): bytes(4)})

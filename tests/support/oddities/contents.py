"""Files that hold no speech, or samples of an odd size."""

import struct

import numpy as np
import soundfile

from tests.support.damage import overwrite_middle
from tests.support.oddities.headers import CUT, LEFT_OUT, altered, encoded, without_total
from tests.support.oddities.inputs import EXACT, KEPT, RATE, READ, SAME, TOO_SHORT, Odd

NO_SAMPLES, SHORT = "error: no samples", {"embed": TOO_SHORT}
CUT_READ = f"{READ}, warns: {CUT}"


def floats(change, subtype="FLOAT"):
    """A function that writes the plain recording as floats, after a change."""

    def write(path, samples):
        soundfile.write(path, change(samples.copy()), RATE, subtype)

    return write


def put(value, count=1):
    def change(samples):
        samples[len(samples) // 2 : len(samples) // 2 + count] = value
        return samples

    return change


def content(data):
    """A function that writes bytes."""
    return lambda path, _: path.write_bytes(data)


def damaged_flac(path, samples):
    path.write_bytes(encoded(samples, "FLAC"))
    overwrite_middle(path)


def no_audio():
    """Files that hold no samples."""
    group, broken = "No sound in the file", "error: cannot be read as audio"
    html = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>\n"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    unreadable = "skipped: unreadable"
    for name, file, data in (
        ("text named .wav", "text.wav", b"this is no audio\n"),
        ("an HTML page named .mp3, of a failed download", "page.mp3", html),
        ("a Git LFS pointer named .flac", "pointer.flac", pointer),
        ("a PNG picture named .wav", "picture.wav", b"\x89PNG\r\n\x1a\n" + bytes(200)),
        ("a ZIP archive named .wav", "zip.wav", b"PK\x03\x04" + bytes(200)),
        ("zeros named .wav", "zeros.wav", bytes(1000)),
        ("noise bytes named .m4a", "noise.m4a", np.random.default_rng(1).bytes(1000)),
        ("samples without a header named .raw", "headerless.raw", bytes(3200)),
    ):
        yield Odd(group, name, file, content(data), broken, unreadable, likeness=None)
    write = content(b"")
    yield Odd(
        group, "0 bytes", "zero.wav", write, "error: empty file", "skipped: empty", likeness=None
    )
    nothing = lambda path, _: soundfile.write(path, [], RATE)
    for ending in ("wav", "ogg"):
        name, file = f"{ending.upper()} without samples", f"nothing.{ending}"
        yield Odd(group, name, file, nothing, NO_SAMPLES, "skipped: no samples", likeness=None)
    write = lambda path, _: soundfile.write(path, np.zeros((0, 2)), RATE)
    yield Odd(
        group,
        "stereo without samples",
        "none2.wav",
        write,
        NO_SAMPLES,
        "skipped: no samples",
        likeness=None,
    )
    write = altered("FLAC", lambda data: without_total(data)[: data.index(b"\xff\xf8")])
    yield Odd(
        group,
        "FLAC without samples",
        "nothing.flac",
        write,
        NO_SAMPLES,
        "skipped: no samples",
        likeness=None,
    )
    write = lambda path, _: soundfile.write(path, [0.1], RATE)
    yield Odd(group, "one sample", "one.wav", write, READ, KEPT, SHORT, None)
    write = floats(lambda samples: 0 * samples)
    yield Odd(group, "silence", "silence.wav", write, READ, KEPT, SHORT, None)


def sizes():
    """Samples of odd sizes."""
    group, damaged = "Size of samples", "error: not finite"
    not_finite, unsound = "skipped: not finite", "skipped: no sound"
    for name, file, value in (
        ("a NaN", "nan.wav", np.nan),
        ("an infinity", "inf.wav", np.inf),
        ("minus infinity", "minus.wav", -np.inf),
    ):
        yield Odd(group, name, file, floats(put(value)), damaged, not_finite, likeness=None)
    write = floats(put(3e38))
    yield Odd(
        group, "a sample of 3e38", "huge.wav", write, "error: it is damaged", unsound, likeness=None
    )
    integers = f"{SAME}, warns: integer_scale"
    for bits in (16, 24, 32):
        name, file = f"floats at the scale of {bits}-bit integers", f"integers{bits}.wav"
        write = floats(lambda samples, bits=bits: samples * 2.0 ** (bits - 1), "DOUBLE")
        likeness = EXACT if bits == 16 else 60
        yield Odd(group, name, file, write, integers, KEPT, likeness=likeness)
    write = floats(lambda samples: np.round(samples * 2.0**15), "FLOAT")
    yield Odd(
        group, "floats at the scale of 16 bits, of single precision", "single.wav", write, integers
    )
    write = floats(lambda samples: 1.5 * samples / abs(samples).max())
    yield Odd(
        group, "floats slightly over full scale", "over.wav", write, READ, KEPT, likeness=None
    )
    write = floats(put(1e-40, 50))
    yield Odd(group, "denormals", "denormal.wav", write, READ, KEPT, likeness=5)
    write = floats(lambda samples: samples * 1e-42, "DOUBLE")
    yield Odd(group, "denormals alone", "denormals.wav", write, READ, KEPT, SHORT, None)
    write = floats(lambda samples: 0.5 * samples + 0.4)
    yield Odd(group, "a constant added (DC offset)", "offset.wav", write, READ, KEPT, likeness=None)
    write = floats(lambda samples: np.sign(samples))
    yield Odd(group, "clipped to a square wave", "square.wav", write, READ, KEPT, likeness=None)
    write = floats(lambda samples: samples * 1e-4)
    yield Odd(group, "speech at -100 dB", "quiet.wav", write, READ, KEPT, SHORT, None)
    broken = "error: cannot be read as audio"
    yield Odd(
        group,
        "FLAC damaged in its middle",
        "damaged.flac",
        damaged_flac,
        broken,
        "skipped: unreadable",
        likeness=None,
    )
    years = content(endless())
    yield Odd(
        group,
        "a FLAC header that claims 2^36 samples",
        "years.flac",
        years,
        CUT_READ,
        LEFT_OUT,
        SHORT,
        None,
    )


def endless():
    data = bytearray(encoded(np.zeros(RATE), "FLAC"))
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    return bytes(data[:300])


def wrong_headers():
    """WAV headers with impossible values."""
    group, broken = "Impossible headers", "error: "
    for name, place, kind, value in (
        ("a rate of 0", 24, "<I", 0),
        ("0 channels", 22, "<H", 0),
        ("0 bits a sample", 34, "<H", 0),
        ("an unknown codec", 20, "<H", 0x7777),
    ):

        def write(path, samples, place=place, kind=kind, value=value):
            data = bytearray(encoded(samples, "WAV"))
            data[place : place + struct.calcsize(kind)] = struct.pack(kind, value)
            path.write_bytes(bytes(data))

        file = f"{name.replace(' ', '_')}.wav"
        yield Odd(
            group, f"WAV with {name}", file, write, broken, "skipped: unreadable", likeness=None
        )


ODD = (*no_audio(), *sizes(), *wrong_headers())

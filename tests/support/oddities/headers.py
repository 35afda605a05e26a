"""Recordings whose headers are odd: lengths that are wrong, blocks that nobody expects, names that mislead."""

import io
import struct

import numpy as np
import soundfile

from tests.support.media import write_media
from tests.support.oddities.inputs import RATE, READ, SAME, Odd, pcm16

UNKNOWN, CUT = "unknown_length", "truncated"
# what preparation leaves out, since half the audio is no example of the whole text
LEFT_OUT = "skipped: truncated"
FMT = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)


def chunk(name, content):
    """A chunk of a WAV file; one of odd size is padded."""
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def wav(samples, before=b"", after=b"", data_size=None, riff_size=None, head=b"RIFF", fmt=FMT):
    """Bytes of a 16-bit WAV file, with chunks before and after the data, and sizes that may be wrong."""
    data = pcm16(samples)
    size = len(data) if data_size is None else data_size
    body = b"WAVE" + fmt + before + b"data" + struct.pack("<I", size) + data + after
    return head + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def as_wav(**options):
    """A function that writes the plain recording as such a WAV file."""
    return lambda path, samples: path.write_bytes(wav(samples, **options))


def encoded(samples, form, subtype="PCM_16", **options):
    """Bytes of a file of another format."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, subtype, format=form, **options)
    return file.getvalue()


def altered(form, alter, subtype="PCM_16", times=1, **options):
    """A function that writes a file of a format, with the speech so many times, whose bytes were altered."""

    def write(path, samples):
        content = encoded(np.tile(samples, times), form, subtype, **options)
        path.write_bytes(bytes(alter(bytearray(content))))

    return write


def without_total(content):
    """FLAC as an encoder writes it to a pipe: of no known length, and without a checksum."""
    content[21] &= 0xF0
    content[22:42] = bytes(20)
    return content


def au_without_length(content):
    content[8:12] = b"\xff" * 4
    return content


def half(content):
    return content[: len(content) // 2]


def odd_byte(content):
    return content[: len(content) // 2 | 1]


def without_tag(content):
    """MP3 without the frame that tells its length."""
    frames = [at for at in range(len(content) - 1) if content[at : at + 2] == b"\xff\xf3"]
    return content[frames[1] :] if b"Info" in content[:200] or b"Xing" in content[:200] else content


def with_id3(content):
    """A tag of 3,000 bytes before the first frame, a picture's size."""
    body = b"TIT2" + struct.pack(">IH", 3000 - 10, 0) + b"\0" * (3000 - 10)
    return b"ID3\x03\x00\x00" + bytes([0, 0, 3000 >> 7, 3000 & 0x7F]) + body + content


def with_id3v1(content):
    return content + b"TAG" + b"title".ljust(125, b"\0")


def renamed(form, subtype):
    return altered(form, lambda content: content, subtype)


def cut_medium(path, samples):
    write_media(path, samples, RATE, "aac")
    path.write_bytes(half(path.read_bytes()))


def lengths():
    """WAV and FLAC files whose headers tell no length, or a wrong one."""
    unknown = f"{SAME}, warns: {UNKNOWN}"
    group = "Length in the header"
    full = 0xFFFFFFFF
    tag = chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"Lavf60.16.100\0"))
    for name, options in (
        ("WAV with data size 0, of a recorder that was killed", {"data_size": 0}),
        ("WAV with both sizes 0", {"data_size": 0, "riff_size": 0}),
        ("WAV with data size 0xFFFFFFFF, from a pipe", {"data_size": full}),
        ("WAV with both sizes 0xFFFFFFFF", {"data_size": full, "riff_size": full}),
        (
            "WAV as ffmpeg writes it to a pipe",
            {"before": tag, "data_size": full, "riff_size": full},
        ),
        ("WAV with data size 0x7FFFFFFF", {"data_size": 0x7FFFFFFF, "riff_size": 0x7FFFFFFF}),
        ("WAV as SoX writes it to a pipe", {"data_size": 0x7FFFF000, "riff_size": 0x7FFFF024}),
    ):
        file = f"{len(name)}_{abs(hash_of(name))}.wav"
        yield Odd(group, name, file, as_wav(**options), unknown)
    yield Odd(group, "WAV with RIFF size 0", "riff0.wav", as_wav(riff_size=0))
    yield Odd(group, "WAV with RIFF size too large", "riff1.wav", as_wav(riff_size=1 << 30))
    write = altered("FLAC", without_total)
    yield Odd(group, "FLAC of unknown length, from a pipe", "pipe.flac", write, unknown)
    write = altered("AU", au_without_length)
    yield Odd(group, "AU of unknown length", "pipe.au", write, unknown)


def hash_of(name):
    return sum(map(ord, name))


def chunks():
    """WAV files with more chunks than a reader needs."""
    group = "More in the file than sound"
    info = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"a title\0"))
    extensible = b"fmt " + struct.pack(
        "<IHHIIHHHHI", 40, 0xFFFE, 1, RATE, 2 * RATE, 2, 16, 22, 16, 4
    )
    extensible += struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
    for name, options in (
        ("LIST chunk before the data", {"before": info}),
        ("LIST chunk after the data", {"after": info}),
        ("broadcast chunk of 602 bytes", {"before": chunk(b"bext", b"\0" * 602)}),
        ("chunk of odd size, padded", {"before": chunk(b"junk", b"abc")}),
        ("chunk of unknown name", {"before": chunk(b"abcd", b"1234")}),
        ("id3 chunk", {"before": chunk(b"id3 ", b"ID3\x03\x00\x00\x00\x00\x00\x00")}),
        (
            "cue and sample chunks",
            {"after": chunk(b"cue ", b"\0" * 4) + chunk(b"smpl", b"\0" * 36)},
        ),
        ("one byte after the data", {"after": b"\0"}),
        ("a page of zeros after the data", {"after": b"\0" * 4096}),
        ("text after the data", {"after": b"recorded by somebody\n" * 20}),
        ("an extensible header", {"fmt": extensible}),
        ("a header of 18 bytes", {"fmt": b"fmt " + struct.pack("<I", 18) + FMT[8:] + b"\0\0"}),
    ):
        yield Odd(group, f"WAV with {name}", f"{name.replace(' ', '_')}.wav", as_wav(**options))
    odd = b"junk" + struct.pack("<I", 3) + b"abc"
    yield Odd(
        group,
        "WAV with a chunk of odd size before the data, not padded",
        "unpadded.wav",
        as_wav(before=odd),
        "error: cannot be read as audio",
        "skipped: unreadable",
        likeness=None,
    )
    mp3 = {"bitrate_mode": "CONSTANT"}
    for name, alter in (
        ("ID3 tag before it", with_id3),
        ("ID3 tag behind it", with_id3v1),
    ):
        file, write = (
            f"{name.replace(' ', '_')}.mp3",
            altered("MP3", alter, "MPEG_LAYER_III", **mp3),
        )
        yield Odd(group, f"MP3 with {name}", file, write, READ, likeness=10)
    write = altered("MP3", without_tag, "MPEG_LAYER_III", times=2, **mp3)
    yield Odd(
        group, "MP3 with no frame that tells its length", "bare.mp3", write, READ, likeness=None
    )
    write = altered("FLAC", with_id3)
    yield Odd(group, "FLAC with an ID3 tag before it", "tagged.flac", write)


def endings():
    """Names that say another format, or none."""
    group = "Ending of the name"
    for name, file, form, subtype in (
        ("FLAC named .wav", "flac.wav", "FLAC", "PCM_16"),
        ("WAV named .mp3", "wav.mp3", "WAV", "PCM_16"),
        ("WAV named .flac", "wav.flac", "WAV", "PCM_16"),
        ("WAV named .m4a", "wav.m4a", "WAV", "PCM_16"),
        ("WAV named .raw", "wav.raw", "WAV", "PCM_16"),
        ("WAV named .WAV", "upper.WAV", "WAV", "PCM_16"),
        ("WAV named .Wav", "mixed.Wav", "WAV", "PCM_16"),
        ("WAV named .txt", "wav.txt", "WAV", "PCM_16"),
        ("WAV without an ending", "wav", "WAV", "PCM_16"),
        ("FLAC without an ending", "flac", "FLAC", "PCM_16"),
        ("SPHERE named .wav, as TIMIT has it", "timit.wav", "NIST", "PCM_16"),
        ("SPHERE named .WV1, as WSJ0 has it", "001.WV1", "NIST", "PCM_16"),
        ("AIFF named .wav", "aiff.wav", "AIFF", "PCM_16"),
    ):
        yield Odd(group, name, file, renamed(form, subtype))
    write = renamed("MP3", "MPEG_LAYER_III")
    yield Odd(group, "MP3 named .wav", "mp3.wav", write, READ, likeness=10)
    write = renamed("OGG", "VORBIS")
    yield Odd(group, "Ogg Vorbis named .mp3", "ogg.mp3", write, READ, likeness=8)
    write = renamed("OGG", "OPUS")
    yield Odd(group, "Opus named .oga", "opus.oga", write, READ, likeness=5)

    def m4a(path, samples):
        write_media(path, samples, RATE, "aac", "ipod")

    yield Odd(group, "M4A named .wav", "m4a.wav", m4a, READ, likeness=10)
    yield Odd(group, "M4A without an ending", "m4a", m4a, READ, likeness=10)


def cuts():
    """Files that end too early."""
    group, cut = "Cut off", f"{READ}, warns: {CUT}"
    for form, subtype in (
        ("WAV", "PCM_16"),
        ("WAV", "IMA_ADPCM"),
        ("WAVEX", "FLOAT"),
        ("RF64", "PCM_16"),
        ("W64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("CAF", "PCM_16"),
        ("NIST", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ):
        name, file = f"half of {form} {subtype}", f"half_{form}_{subtype}.{form.lower()}"
        # an Ogg page holds a second and more
        write = altered(form, half, subtype, times=12 if form == "OGG" else 4)
        yield Odd(group, name, file, write, cut, LEFT_OUT, likeness=None)
    write = altered("WAV", odd_byte, times=4)
    yield Odd(group, "WAV cut within a sample", "byte.wav", write, cut, LEFT_OUT, likeness=None)
    write = altered("FLAC", lambda content: content[:-1])
    yield Odd(group, "FLAC without its last byte", "last.flac", write, cut, LEFT_OUT, likeness=None)
    write = altered("WAV", lambda content: content[:-200])
    yield Odd(
        group, "WAV without its last 100 samples", "last.wav", write, cut, LEFT_OUT, likeness=None
    )
    lost = "error: is cut short, and what is left cannot be decoded"
    yield Odd(
        group,
        "half of M4A, whose index is at its end",
        "half.m4a",
        cut_medium,
        lost,
        "skipped: unreadable",
        likeness=None,
    )
    for form, subtype, keep in (
        ("WAV", "PCM_16", 30),
        ("FLAC", "PCM_16", 30),
        ("MP3", "MPEG_LAYER_III", 20),
    ):
        write = altered(form, lambda content, keep=keep: content[:keep], subtype)
        name, file = f"the first {keep} bytes of {form}", f"head.{form.lower()}"
        broken = "error: cannot be read as audio"
        yield Odd(group, name, file, write, broken, "skipped: unreadable", likeness=None)


ODD = (*lengths(), *chunks(), *endings(), *cuts())

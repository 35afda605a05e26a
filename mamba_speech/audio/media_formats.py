"""Formats that libsndfile does not read, by the first bytes of a file, and whether a file was cut short.

Sources: the magic numbers of ISO/IEC 14496-12 and 13818-7, the Matroska and ASF specifications, RFC 4867 and others.
"""

import importlib.util
import os
import shutil
import struct
from typing import NamedTuple

# What such files are called. Their content decides; names are for finding them in a folder.
SUFFIXES = frozenset(
    {".3g2", ".3gp", ".aac", ".ac3", ".amr", ".ape", ".asf", ".avi", ".dts", ".eac3", ".flv"}
    | {".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp4", ".mpc", ".mpeg", ".mpg", ".ts"}
    | {".tta", ".webm", ".wma", ".wmv", ".wv"}
)


class MediaFormat(NamedTuple):
    """A format: what people call it, and ffmpeg's name of its demuxer."""

    name: str
    demuxer: str


# offset, bytes, format
_MAGIC = [
    (4, b"ftyp", MediaFormat("MP4", "mov")),
    (4, b"moov", MediaFormat("QuickTime", "mov")),
    (4, b"mdat", MediaFormat("QuickTime", "mov")),
    (4, b"wide", MediaFormat("QuickTime", "mov")),
    (0, b"\x1aE\xdf\xa3", MediaFormat("Matroska or WebM", "matroska")),
    (0, bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), MediaFormat("Windows Media", "asf")),
    (0, b"#!AMR", MediaFormat("AMR", "amr")),
    (0, b"FLV\x01", MediaFormat("Flash Video", "flv")),
    (0, b"wvpk", MediaFormat("WavPack", "wv")),
    (0, b"TTA1", MediaFormat("True Audio", "tta")),
    (0, b"MAC ", MediaFormat("Monkey's Audio", "ape")),
    (0, b"MPCK", MediaFormat("Musepack", "mpc8")),
    (0, b"\x7f\xfe\x80\x01", MediaFormat("DTS", "dts")),
    (0, b"\x00\x00\x01\xba", MediaFormat("MPEG", "mpeg")),
    (0, b".RMF", MediaFormat("RealMedia", "rm")),
    (8, b"AVI ", MediaFormat("AVI", "avi")),
]
_AAC = MediaFormat("AAC", "aac")
# codecs of WAV and CAF that libsndfile reads itself: their damage is its to tell
_WAV_CODECS = {0x1, 0x2, 0x3, 0x6, 0x7, 0x11, 0x31, 0x40, 0x55, 0xFFFE}
_CAF_CODECS = {b"lpcm", b"ulaw", b"alaw", b"alac"}
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_MOST_ATOMS = 1_000_000
# A page of Ogg has at most 65,307 bytes.
OGG_PAGE = 65307


def has_decoder():
    """Whether the program ffmpeg or the package PyAV is installed."""
    return bool(shutil.which("ffmpeg") or importlib.util.find_spec("av"))


def media_format(path):
    """The format of a file that a decoder of media is for.

    Arguments
    ---------
    path : str or Path

    Returns
    -------
    MediaFormat or None
        None for other files, for those that libsndfile should read, and for what cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            return _format_of(file)
    except (OSError, ValueError):
        return None


def _format_of(file):
    head = file.read(4096)
    for offset, magic, form in _MAGIC:
        if head.startswith(magic, offset):
            return form
    if head.startswith(b"\x0bw"):
        # the version of the bit stream
        return MediaFormat("E-AC-3", "eac3") if head[5:6] > b"\x57" else MediaFormat("AC-3", "ac3")
    if head.startswith(b"V") and head[1:2] >= b"\xe0":
        return MediaFormat("AAC in LATM", "loas")
    if head.startswith(b"G") and head[188:189] == head[376:377] == b"G":
        return MediaFormat("MPEG transport stream", "mpegts")
    if head.startswith(b"OggS"):
        other = any(name in head[:512] for name in (b"Speex   ", b"theora", b"fishead"))
        return MediaFormat("Ogg", "ogg") if other or is_chained(file, head) else None
    if head.startswith(b"caff"):
        codec = head[28:32]
        return (
            MediaFormat("CAF", "caf")
            if head[8:12] == b"desc" and codec not in _CAF_CODECS
            else None
        )
    if head[:4] in (b"RIFF", b"RF64") and head.startswith(b"WAVE", 8):
        place = head.find(b"fmt ", 12)
        codec = int.from_bytes(head[place + 8 : place + 10], "little")
        return MediaFormat("WAV", "wav") if place > 0 and codec not in _WAV_CODECS else None
    return _AAC if _is_adts(file, head) else None


def is_chained(file, head):
    """Whether an Ogg file ends in another stream than the one it begins with; libsndfile reads the first alone.

    Arguments
    ---------
    file : file
        Open for reading bytes.
    head : bytes
        Its beginning.
    """
    file.seek(max(0, file.seek(0, os.SEEK_END) - OGG_PAGE))
    tail = file.read()
    last = tail.rfind(b"OggS\0")
    # the number of the stream
    return last >= 0 and tail[last + 14 : last + 18] not in (b"", head[14:18])


def _is_adts(file, head):
    """Whether two frames of raw AAC follow each other, behind an ID3 tag or at the start."""
    start = 0
    if head.startswith(b"ID3") and len(head) > 10:
        # four times seven bits
        start = 10 + sum(byte << 7 * place for place, byte in enumerate(reversed(head[6:10])))
    file.seek(start)
    frame = file.read(8192)
    for _ in range(2):
        if len(frame) < 7 or frame[0] != 0xFF or frame[1] & 0xF6 != 0xF0:
            return False
        length = (frame[3] & 3) << 11 | frame[4] << 3 | frame[5] >> 5
        if length < 7 or len(frame) <= length:
            # a file of one frame
            return length >= 7
        frame = frame[length:]
    return True


def is_cut(path, form):
    """Whether a file is shorter than its container says; False where containers of the kind say nothing.

    Arguments
    ---------
    path : str or Path
    form : MediaFormat
    """
    size = os.path.getsize(path)
    said = {"mov": _mov_size, "matroska": _matroska_size, "asf": _asf_size}.get(form.demuxer)
    if form.demuxer in ("avi", "wav"):
        said = _riff_size
    if said is None:
        return False
    with open(path, "rb") as file:
        return said(file) > size


def _mov_size(file):
    """Where the last atom ends."""
    end = 0
    for _ in range(_MOST_ATOMS):
        file.seek(end)
        head = file.read(16)
        if len(head) < 8 or not head[4:8].isalnum():
            # the names of atoms at the top are letters; anything else is damage
            break
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:
            # up to the end of the file, or no atom
            break
        end += length
    return end


def _matroska_size(file):
    """Where the segment ends; 0 where it was written without its length."""
    head = file.read(4096)
    length, place = _vint(head, 4)
    place += length
    if head[place : place + 4] != b"\x18S\x80g":
        return 0
    length, start = _vint(head, place + 4)
    return start + length


def _vint(data, place):
    """A number of EBML and where it ends: as many bytes as the first one begins with zero bits, and one."""
    first = data[place] if place < len(data) else 0
    width = 9 - first.bit_length()
    number = int.from_bytes(data[place : place + width], "big") & (1 << 7 * width) - 1
    unknown = number == (1 << 7 * width) - 1
    return 0 if unknown else number, place + width


def _asf_size(file):
    """What the file's properties say; 0 for a broadcast, which does not know."""
    head = file.read(1 << 16)
    place = head.find(_ASF_PROPERTIES)
    if place < 0 or len(head) < place + 92:
        return 0
    (size,) = struct.unpack_from("<Q", head, place + 40)
    (flags,) = struct.unpack_from("<I", head, place + 88)
    return 0 if flags & 1 else size


def _riff_size(file):
    length = int.from_bytes(file.read(8)[4:], "little")
    return 0 if length == 0xFFFFFFFF else 8 + length

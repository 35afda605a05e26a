"""The length that an audio file's header promises, beside what is there.

The library that reads audio (libsndfile) takes the length of uncompressed audio from the size of the file, so a file
that was cut off reads like a whole one. It takes a length of 0 for the truth, which a killed recorder leaves.

Sources: the formats' own descriptions, as the Library of Congress lists them ("Sustainability of Digital Formats") for
WAVE, RF64, Wave64, AIFF and CAF; RFC 3533 for Ogg.
"""

import io
import os
import re
import struct
from dataclasses import dataclass, field, replace

from mamba_speech.audio.mp3 import FRAME_SPAN, after_tags, find_frame, frame_bytes

# Bytes that may be missing: some programs count the header too.
SLACK = 64
# What programs write that cannot go back to the header: about 2 or 4 GiB, less what the header takes.
OPEN_ENDS = (1 << 31, 1 << 32)
NEAR = 1 << 13
# A page of Ogg has at most 65,307 bytes.
PAGE = 65307
MOST_CHUNKS = 1000


@dataclass(frozen=True)
class Header:
    """Where the samples of a file lie.

    Attributes
    ----------
    promised : int or None
        Bytes of samples that the header gives; None where it gives no number.
    there : int
        Bytes from the first sample to the end of the file.
    open_ended : bool
        Whether the file does not say where it ends.
    cut : bool
        Whether the file ends before its samples do.
    first : int
        Place of the first frame of an MP3 file, and of FLAC behind a tag.
    guessed : bool
        Whether libsndfile guesses the length from the size of the file: MP3 without a count of its frames.
    chained : bool
        Whether streams follow the first, which libsndfile does not read: Ogg.
    doubtful : bool
        Whether bytes are missing, so that only reading all of it shows whether samples are: MP3.
    patches : dict of int to bytes
        What to write over the header, by place, such that libsndfile reads all samples that are there.
    """

    promised: int | None = None
    there: int = 0
    open_ended: bool = False
    cut: bool = False
    first: int = 0
    guessed: bool = False
    chained: bool = False
    doubtful: bool = False
    patches: dict = field(default_factory=dict)


def read_header(path):
    """The header of a file, as far as its format is one whose length may be wrong.

    Arguments
    ---------
    path : str, bytes or Path

    Returns
    -------
    Header or None
        None for other formats, and for headers that make no sense.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        start = file.read(4096)
        size = os.fstat(file.fileno()).st_size
        data = _Bytes(file, start, size)
        try:
            name = data.get(after_tags(data.get), 4) if start[:3] == b"ID3" else start[:4]
            is_mp3 = start[:3] == b"ID3" or (start[:1] == b"\xff" and start[1:2] >= b"\xe0")
            if is_mp3 and name != b"fLaC":
                return _mp3(data, size)
            if is_mp3:
                return Header(first=after_tags(data.get))
            parse = _PARSERS.get(name)
            return parse(data, size) if parse else None
        except (struct.error, ValueError, IndexError):
            # it ends within its header
            return None


class _Bytes:
    """A file's bytes by place; most lie in its first block."""

    def __init__(self, file, start, size):
        self.file, self.start, self.size = file, start, size

    def get(self, place, count):
        if place + count <= len(self.start):
            return self.start[place : place + count]
        self.file.seek(place)
        return self.file.read(count)

    def number(self, form, place):
        return struct.unpack(form, self.get(place, struct.calcsize(form)))[0]


def _told(promised, there, patches=None):
    """The header of samples whose bytes are told."""
    if patches is not None and promised <= 0 < there:
        return Header(None, there, open_ended=True, patches=patches)
    return Header(promised, there, cut=promised - there > SLACK)


def is_open_end(size):
    """Whether a length is what programs write that cannot go back to the header."""
    return any(-NEAR <= size - end < NEAR for end in OPEN_ENDS)


def _chunks(data, place, end, form, head, align=2):
    """(name, place of the contents, size) of each chunk from a place on; the last may pass the end."""
    width = struct.calcsize(form)
    for _ in range(MOST_CHUNKS):
        if place + head > end:
            return
        size = data.number(form, place + head - width)
        yield data.get(place, head - width), place + head, size
        place += head + size + -size % align


def _are_chunks(data, place, end, form):
    """Whether the rest of a file is further chunks, and no samples."""
    for name, contents, size in _chunks(data, place, end, form, 8):
        if not (name.isalnum() or name.strip().isalnum()):
            return False
        place = contents + size
    return end - place in (0, 1)


def _riff(data, size):
    order = ">" if data.get(0, 4) == b"RIFX" else "<"
    number = f"{order}I"
    wide = None
    for name, place, length in _chunks(data, 12, size, number, 8):
        if name == b"ds64":
            wide = place + 8
        if name != b"data":
            continue
        there = size - place
        if wide is not None and length == 0xFFFFFFFF:
            promised = data.number(f"{order}Q", wide)
            patches = {wide: struct.pack(f"{order}Q", there if promised <= 0 else promised)}
            told = _told(promised, there, patches)
            if data.get(0, 4) == b"BW64":
                # the same format, by a name that libsndfile does not know
                return replace(told, patches=patches | {0: b"RF64"})
            return told
        if wide is None and is_open_end(length) and length > there:
            return Header(None, there, open_ended=True)
        filled = struct.pack(number, 0xFFFFFFFF)
        patches = {place - 4: filled, 4: filled}
        too_small = wide is None and _is_too_small(length, there)
        if too_small and not _are_chunks(data, place + length + length % 2, size, number):
            # libsndfile reads no more than a full size
            beyond = there > 0xFFFFFFFF
            return Header(None, there, open_ended=not beyond, cut=beyond, patches=patches)
        if length or _are_chunks(data, place, size, number):
            patches = None
        return _told(length, there, patches)
    return None


def _is_too_small(length, there):
    """Whether a size of 32 bits cannot be right: the file has at least 2 GiB, and the size is full or went round."""
    if there - length <= NEAR or there < 1 << 31:
        return False
    beyond = (there - length) % (1 << 32)
    return is_open_end(length) or min(beyond, (1 << 32) - beyond) < NEAR


def _wave64(data, size):
    # after the first name and size, and the name "wave"
    for name, place, length in _chunks_of_wave64(data, 40, size):
        if name == b"data":
            there = size - place
            patches = {place - 8: struct.pack("<Q", there + 24), 16: struct.pack("<Q", size)}
            return _told(length - 24, there, patches)
    return None


def _chunks_of_wave64(data, place, end):
    """As `_chunks`; sizes count the head of 24 bytes, and chunks begin at multiples of 8."""
    for _ in range(MOST_CHUNKS):
        if place + 24 > end:
            return
        size = data.number("<Q", place + 16)
        yield data.get(place, 4), place + 24, size
        if size < 24:
            return
        place += size + -size % 8


def _aiff(data, size):
    if data.get(8, 4) not in (b"AIFF", b"AIFC"):
        return None
    common = None
    for name, place, length in _chunks(data, 12, size, ">I", 8):
        if name == b"COMM":
            common = place
        if name != b"SSND":
            continue
        there = size - place - 8
        patches = None
        if common is not None and length <= 8 and not _are_chunks(data, place + 8, size, ">I"):
            channels, _, bits = struct.unpack(">hIh", data.get(common, 8))
            frames = there // max(1, channels * -(-bits // 8))
            patches = {
                common + 2: struct.pack(">I", frames),
                place - 4: struct.pack(">I", there + 8),
                4: struct.pack(">I", size - 8),
            }
        return _told(length - 8, there, patches)
    return None


def _au(data, size):
    order = "<" if data.get(0, 4) == b"dns." else ">"
    there = size - data.number(f"{order}I", 4)
    promised = data.number(f"{order}I", 8)
    if promised == 0xFFFFFFFF:
        return Header(None, there, open_ended=True)
    return _told(promised, there, {8: struct.pack(f"{order}I", 0xFFFFFFFF)})


def _caf(data, size):
    for name, place, length in _chunks(data, 8, size, ">q", 12, align=1):
        if name == b"data":
            # the samples follow a number of 4 bytes; libsndfile refuses a size beyond the file's end
            there, patches = size - place - 4, {place - 8: struct.pack(">q", size - place)}
            if length == -1 or length == 0 < there:
                return Header(None, there, open_ended=True, patches=patches)
            told = _told(length - 4, there)
            return Header(told.promised, there, cut=told.cut, patches=patches if told.cut else {})
        if length < 0:
            return None
    return None


def _sphere(data, size):
    fields = dict(re.findall(rb"^(\w+) -\w+ (\S+)", data.get(0, 1024), re.MULTILINE))
    samples, channels, width = (
        int(fields.get(name, default))
        for name, default in ((b"sample_count", 0), (b"channel_count", 1), (b"sample_n_bytes", 2))
    )
    if not samples or b"," in fields.get(b"sample_coding", b""):
        # a comma comes before the name of a compression
        return None
    return _told(samples * channels * width, size - int(data.get(8, 8)))


def _ogg(data, size):
    first = max(0, size - PAGE)
    tail = data.get(first, size - first)
    place = tail.rfind(b"OggS\0")
    if place < 0 or place + 27 > len(tail):
        return Header(cut=True)
    # the number of the stream
    chained = tail[place + 14 : place + 18] != data.get(14, 4)
    segments = tail[place + 26]
    end = place + 27 + segments + sum(tail[place + 27 : place + 27 + segments])
    last = tail[place + 5] & 4
    if end > len(tail) or (not last and end < len(tail)):
        return Header(cut=True, chained=chained)
    return Header(open_ended=not last, chained=chained)


def _mp3(data, size):
    place = after_tags(data.get)
    # some programs write zeros between tags and frames
    place += find_frame(data.get(place, FRAME_SPAN))
    first, there = data.get(place, 200), size - place
    for name in (b"Xing", b"Info"):
        tag = first.find(name)
        if tag >= 0:
            # flags: frames are told, bytes are told
            has_frames, has_bytes = first[tag + 7] & 1, first[tag + 7] & 2
            told = int.from_bytes(first[tag + 8 + 4 * has_frames :][:4], "big")
            end = place + told
            # a tag of the first version has 128 bytes
            end = after_tags(data.get, end + 128 * (data.get(end, 3) == b"TAG"))
            if has_bytes and find_frame(data.get(end, FRAME_SPAN), 1) == 0:
                # another file was appended: the count is its first part's
                place += frame_bytes(first)
                return Header(there=size - place, first=place, guessed=True)
            doubtful = not has_bytes or told > there
            return Header(there=there, first=place, guessed=not has_frames, doubtful=doubtful)
    tag = first.find(b"VBRI")
    told = int.from_bytes(first[tag + 10 :][:4], "big")
    return Header(there=there, first=place, guessed=tag < 0, doubtful=tag >= 0 and told > there)


_PARSERS = {
    b"RIFF": _riff,
    b"RIFX": _riff,
    b"RF64": _riff,
    b"BW64": _riff,
    b"riff": _wave64,
    b"FORM": _aiff,
    b".snd": _au,
    b"dns.": _au,
    b"caff": _caf,
    b"NIST": _sphere,
    b"OggS": _ogg,
}


class PatchedFile(io.RawIOBase):
    """A file that reads as if some of its bytes were others.

    Arguments
    ---------
    path : str, bytes or Path
    patches : dict of int to bytes
        See :class:`Header`.
    first : int
        Where it begins.
    """

    def __init__(self, path, patches, first=0):
        super().__init__()
        # closed by `close`
        self.file, self.patches, self.first = open(path, "rb", buffering=0), patches, first  # noqa: SIM115
        self.file.seek(first)

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, place, whence=os.SEEK_SET):
        """Go to a place, and return it."""
        size = os.fstat(self.file.fileno()).st_size
        start = {os.SEEK_SET: self.first, os.SEEK_CUR: self.file.tell()}.get(whence, size)
        # damaged headers lead to places that no file has
        return self.file.seek(min(max(start + place, self.first), size)) - self.first

    def tell(self):
        """The place of the next byte."""
        return self.file.tell() - self.first

    def readinto(self, buffer):
        """Read into a buffer; return the number of bytes."""
        place = self.tell()
        count = self.file.readinto(buffer)
        view = memoryview(buffer)
        for first, patch in self.patches.items():
            for offset, byte in enumerate(patch, first - place):
                if 0 <= offset < count:
                    view[offset] = byte
        return count

    def close(self):
        """Close the file beneath."""
        self.file.close()
        super().close()

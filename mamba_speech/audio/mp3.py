"""MP3 files whose header does not count their frames: libsndfile guesses their length by the first frames' bit rate.

Where the bit rate varies, the guess is wrong and the rest of the file would never be read. The frames are counted here,
and the count is put before the first frame, as other encoders do. Source: ISO/IEC 11172-3 and 13818-3, layer III.
"""

import io
import mmap
import os

# kilobits a second, by the four bits of a header: MPEG-1, and MPEG-2 with its extension to low rates
_BITRATES = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    0: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# more bytes than the longest frame and the next one's header have
FRAME_SPAN = 1 << 12
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def frame_bytes(header):
    """Length of a frame of layer III by its first four bytes; 0 if they begin none.

    Example
    -------
    >>> frame_bytes(b"\\xff\\xfb\\x90\\x64"), frame_bytes(b"TAG ")
    (417, 0)
    """
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version, bits, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or bits in (0, 15) or rate == 3:
        return 0
    size = 144 if version == 3 else 72
    return size * 1000 * _BITRATES[version][bits] // _RATES[version][rate] + (header[2] >> 1 & 1)


def find_frame(data, most=None):
    """Where a frame begins that another follows, within bytes.

    Arguments
    ---------
    data : bytes
    most : int, optional
        Places that are tried; by default all, and then 0 says that there is no frame.

    Returns
    -------
    int
        -1 where ``most`` is given and no frame begins there.
    """
    place = data.find(b"\xff")
    while 0 <= place < (most or len(data)):
        length = frame_bytes(data[place : place + 4])
        if length and frame_bytes(data[place + length : place + length + 4]):
            return place
        place = data.find(b"\xff", place + 1)
    return 0 if most is None else -1


def after_tags(get, place=0):
    """Where the sound begins, behind ID3 tags.

    Arguments
    ---------
    get : callable
        Gives bytes of the file by place and number.
    place : int
        Where tags may begin.

    Returns
    -------
    int
    """
    while (head := get(place, 10))[:3] == b"ID3" and len(head) == 10:
        # seven bits of each byte are the tag's size
        place += 10 + sum(
            byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
        )
    return place


def count_frames(path, place):
    """How many frames there are from a place of a file on; the last must be whole, and tags may lie between.

    Arguments
    ---------
    path : str, bytes or Path
    place : int

    Returns
    -------
    int
    """
    count = 0
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        size = len(content)
        while place < size:
            length = frame_bytes(content[place : place + 4])
            if length and place + length <= size:
                place += length
                count += 1
                continue
            place = content.find(b"\xff", place + 1)
            while 0 <= place and find_frame(content[place : place + FRAME_SPAN], 1) < 0:
                place = content.find(b"\xff", place + 1)
            if place < 0:
                break
    return count


class CountedFile(io.RawIOBase):
    """An MP3 file that reads as if it began with a frame that tells the number of frames.

    Arguments
    ---------
    path : str, bytes or Path
    place : int
        Where the first frame begins.
    """

    def __init__(self, path, place):
        super().__init__()
        # closed by `close`
        self.file, self.place, self.position = open(path, "rb"), place, 0  # noqa: SIM115
        self.file.seek(place)
        header = bytearray(self.file.read(4))
        length = frame_bytes(header)
        self.frames = count_frames(path, place)
        # without a checksum; the side information is silence
        header[1] |= 1
        mono, wide = header[3] >> 6 == 3, header[1] >> 3 & 3 == 3
        side = (17 if mono else 32) if wide else (9 if mono else 17)
        told = b"Xing" + (1).to_bytes(4, "big") + self.frames.to_bytes(4, "big")
        self.frame = (bytes(header) + bytes(side) + told).ljust(length, b"\0")
        self.size = os.fstat(self.file.fileno()).st_size - place + len(self.frame)

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, place, whence=os.SEEK_SET):
        """Go to a place, and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.position}.get(whence, self.size)
        self.position = min(max(start + place, 0), self.size)
        return self.position

    def tell(self):
        """The place of the next byte."""
        return self.position

    def readinto(self, buffer):
        """Read into a buffer; return the number of bytes."""
        place = self.position - len(self.frame)
        if place < 0:
            found = self.frame[place:][: len(buffer)]
        else:
            self.file.seek(self.place + place)
            found = self.file.read(len(buffer))
        buffer[: len(found)] = found
        self.position += len(found)
        return len(found)

    def close(self):
        """Close the file beneath."""
        self.file.close()
        super().close()

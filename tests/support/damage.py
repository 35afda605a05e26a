"""Damage to files of recordings, of the kinds that disks and networks do."""

from pathlib import Path


def overwrite_middle(path, count=500):
    """Overwrite bytes in the middle of a file, or half of a short one; its header and its end stay."""
    path = Path(path)
    content = bytearray(path.read_bytes())
    count = min(count, len(content) // 2)
    start = (len(content) - count) // 2
    # neither zeros nor noise, so that every test damages a file alike
    content[start : start + count] = bytes((91 * index + 7) % 256 for index in range(count))
    path.write_bytes(bytes(content))


def cut_short(path, part=0.5):
    """Keep the first part of a file alone."""
    path = Path(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])

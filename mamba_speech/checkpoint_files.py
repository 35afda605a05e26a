"""Whether a checkpoint is whole: its meta file, and the files whose sizes and checksums the meta file holds.

A checkpoint is a folder with a meta file, ``CKPT.yaml``, which is written last. A folder whose saving was cut short is
torn, and a folder that was spoiled afterwards is damaged.
"""

import math
import zlib
from pathlib import Path

import yaml
from speechbrain.utils.checkpoints import CKPT_PREFIX, METAFNAME, PARAMFILE_EXT

from mamba_speech.plain_yaml import errors_name

# suffix of the meta file until all other files are written
UNFINISHED = ".partial"
# before the name of a damaged checkpoint that was set aside
DAMAGED = "damaged-"
# bytes that are read at once
_PIECE = 1 << 20


class DamagedFile(ValueError):
    """A file of a checkpoint that cannot be used.

    Arguments
    ---------
    path : Path
    reason : str
        What is wrong with it.
    """

    def __init__(self, path, reason):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = Path(path), reason


def read_meta(folder):
    """What stands in a checkpoint's meta file.

    Returns
    -------
    meta : dict or None
        None, if there is no meta file, or nothing is in it.

    Raises
    ------
    ValueError
        If it is no YAML; the message names the file.
    """
    file = Path(folder) / METAFNAME
    if not file.is_file():
        return None
    with errors_name(file):
        meta = yaml.safe_load(file.read_text(encoding="utf-8"))
    return meta if isinstance(meta, dict) else None


def list_folders(save_folder):
    """Folders that are checkpoints by name, torn and damaged ones included, sorted by name."""
    return sorted(path for path in Path(save_folder).glob(f"{CKPT_PREFIX}*") if path.is_dir())


def is_torn(folder):
    """Whether saving a checkpoint was cut short, or goes on."""
    if (folder / METAFNAME).exists():
        return False
    return (folder / (METAFNAME + UNFINISHED)).exists() or not any(folder.glob(f"*{PARAMFILE_EXT}"))


def is_whole(folder):
    """Whether a checkpoint is whole, as far as its meta file and the sizes of its files tell."""
    return not is_torn(folder) and find_damage(folder) is None


def find_damage(folder):
    """What is wrong with a checkpoint, by its meta file and the sizes of its files.

    Arguments
    ---------
    folder : Path

    Returns
    -------
    str or None
        A part of a sentence that names the file; None, if the checkpoint is whole as far as this tells.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "CKPT.yaml").write_text("unixtime: yesterday")
    ...     find_damage(Path(folder))
    'CKPT.yaml has no usable unixtime'
    """
    try:
        meta = read_meta(folder)
    except (OSError, ValueError):
        return f"{METAFNAME} cannot be read as YAML"
    if meta is None:
        missing = not (folder / METAFNAME).exists()
        return f"{METAFNAME} is missing" if missing else f"{METAFNAME} holds no values"
    return _wrong_value(meta) or next(
        (damage for name in meta.get("files") or () if (damage := _misfit(folder, name, meta))),
        None,
    )


def _wrong_value(meta):
    """The first value of a meta file that is of another type than it must be."""
    kinds = {"unixtime": _is_number, "end-of-epoch": _is_switch}
    # published checkpoints, which have no list of files, tell other things by this name
    kinds |= {"epoch": _is_count} if meta.get("files") is not None else {}
    for name, fits in kinds.items():
        if (name in meta or name == "unixtime") and not fits(meta.get(name)):
            return f"{METAFNAME} has no usable {name}"
    files = meta.get("files")
    if files is None:
        return None
    # a dictionary has sizes and checksums, a list of earlier versions has names alone
    named = isinstance(files, dict | list) and all(isinstance(name, str) for name in files)
    if not named or any(Path(name).name != name for name in files):
        return f"{METAFNAME} has no usable list of files"
    if isinstance(files, dict) and not all(_are_facts(facts) for facts in files.values()):
        return f"{METAFNAME} has no usable list of files"
    known = {"unixtime", "files"}
    odd = [name for name in meta.keys() - known if not isinstance(meta[name], int | float)]
    return f"{METAFNAME} has no usable {min(map(str, odd))}" if odd else None


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_switch(value):
    return isinstance(value, bool)


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _are_facts(facts):
    return (
        isinstance(facts, dict)
        and _is_count(facts.get("bytes"))
        and isinstance(facts.get("crc32"), str)
    )


def _misfit(folder, name, meta):
    """What is wrong with a file by its size alone."""
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    size = path.stat().st_size
    expected = meta["files"][name]["bytes"] if isinstance(meta["files"], dict) else max(size, 1)
    return None if size == expected else f"{name} has {size:,} of {expected:,} bytes"


def checksum(path):
    """CRC-32 of a file, as eight hexadecimal digits."""
    value, buffer = 0, memoryview(bytearray(_PIECE))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            value = zlib.crc32(buffer[:count], value)
    return f"{value:08x}"


def check_file(path, meta=None):
    """Compare a file of a checkpoint with its checksum, if its meta file has one.

    Arguments
    ---------
    path : str or Path
    meta : dict, optional
        Content of the meta file, which is read by default.

    Returns
    -------
    bool
        Whether there was one.

    Raises
    ------
    DamagedFile
        If the file is another than was saved.
    """
    path = Path(path)
    files = ((read_meta(path.parent) or {}) if meta is None else meta).get("files")
    facts = files.get(path.name) if isinstance(files, dict) else None
    if not _are_facts(facts):
        return False
    if path.stat().st_size != facts["bytes"] or checksum(path) != facts["crc32"]:
        raise DamagedFile(
            path, "is another than was saved, by its checksum in CKPT.yaml: put a copy in its place"
        )
    return True

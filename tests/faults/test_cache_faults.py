"""The compiled kernels' cache and compiler, spoiled in every way: no process crashes, none is wrong, none stays slow.

A fresh process looks for the kernels in each case. A script that copies a library stands for the compiler, and writes
down that it was called, so that a case costs milliseconds.
"""

import os
from pathlib import Path

import pytest

from modules.ssm.cpu import build
from tests.support.kernel_builds import NOTHING_TO_SAY, assert_compiled, other_library

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(
        build.refusal() is not None or not Path("/proc/self/fd").is_dir(),
        reason="no compiled kernels, or no /proc",
    ),
]
AS_ROOT = pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="needs root")


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def replace_by(make):
    """A change that takes a file away and puts something else there."""

    def change(path):
        path.unlink()
        make(path)

    return change


def with_its_sum(change):
    """A change of the library that the checksum goes along with."""

    def both(path):
        from modules.ssm.cpu.cache import _checksum

        change(path)
        path.with_suffix(".sum").write_bytes(_checksum(path.read_bytes()))

    return both


# what happens to the library: it is built anew, once
DAMAGED_LIBRARY = {
    "emptied": lambda p: os.truncate(p, 0),
    "one byte": lambda p: os.truncate(p, 1),
    "a header": lambda p: os.truncate(p, 64),
    "a page": lambda p: os.truncate(p, 4096),
    "half": lambda p: os.truncate(p, p.stat().st_size // 2),
    "all but a byte": lambda p: os.truncate(p, p.stat().st_size - 1),
    "a byte more": lambda p: os.truncate(p, p.stat().st_size + 1),
    "zeros": lambda p: p.write_bytes(bytes(p.stat().st_size)),
    "zeros in its second half": lambda p: p.write_bytes(
        p.read_bytes()[: p.stat().st_size // 2].ljust(p.stat().st_size, b"\0")
    ),
    "a bit in its header": lambda p: flip(p, 40),
    "a bit in its middle": lambda p: flip(p, 60000),
    "a bit at its end": lambda p: flip(p, -1),
    "text": lambda p: p.write_text("no library"),
    "gone": lambda p: p.unlink(),
    "a link to itself": replace_by(lambda p: p.symlink_to(p)),
    "a link to nothing": replace_by(lambda p: p.symlink_to("nowhere")),
    "a pipe": replace_by(os.mkfifo),
    "a terabyte of nothing": lambda p: os.truncate(p, 1 << 40),
    "another library": other_library,
    "another library with its sum": with_its_sum(other_library),
    "text with its sum": with_its_sum(lambda p: p.write_text("no library")),
    "nothing with its sum": with_its_sum(lambda p: os.truncate(p, 0)),
    "half with its sum": with_its_sum(lambda p: os.truncate(p, p.stat().st_size // 2)),
    "writable by all": lambda p: p.chmod(0o666),
    "writable by its group": lambda p: p.chmod(0o664),
}
# what happens to the checksum
DAMAGED_SUM = {
    "sum emptied": lambda p: os.truncate(p, 0),
    "sum half": lambda p: os.truncate(p, 30),
    "sum of NULs": lambda p: p.write_bytes(bytes(72)),
    "sum gone": lambda p: p.unlink(),
    "sum of another": lambda p: p.write_text("128464 " + "0" * 64 + "\n"),
    "sum is a library": lambda p: p.write_bytes(p.with_suffix(".so").read_bytes()),
    "sum is a link to itself": replace_by(lambda p: p.symlink_to(p)),
    "sum is a pipe": replace_by(os.mkfifo),
    "sum writable by all": lambda p: p.chmod(0o666),
}
FOREIGN = {
    "owned by another": lambda p: os.chown(p, 12345, 12345),
    "sum owned by another": lambda p: os.chown(p.with_suffix(".sum"), 12345, 12345),
}
DAMAGES = [
    *(pytest.param(n, change, "so", id=n) for n, change in DAMAGED_LIBRARY.items()),
    *(pytest.param(n, change, "sum", id=n) for n, change in DAMAGED_SUM.items()),
    *(pytest.param(n, change, "so", id=n, marks=AS_ROOT) for n, change in FOREIGN.items()),
]


@pytest.mark.parametrize("name, change, file", DAMAGES)
def test_a_damaged_or_foreign_library_is_built_anew_once(name, change, file, place):
    place.fill()
    change(getattr(place, file))
    answer = place.run(twice=True)
    assert_compiled(answer)
    assert place.built() == 1 and answer["again"] == NOTHING_TO_SAY
    assert place.so.read_bytes() == place.library.read_bytes()
    if "writable" in name or "owned" in name:
        assert any("others can write" in line for line in answer["warnings"])


# what changes nothing
HARMLESS = {
    "times of 1970": lambda place: [os.utime(p, (0, 0)) for p in place.cache.iterdir()],
    "times of 2100": lambda place: [os.utime(p, (4e9, 4e9)) for p in place.cache.iterdir()],
    "read-only files": lambda place: [p.chmod(0o444) for p in place.cache.iterdir()],
    "a read-only folder": lambda place: place.cache.chmod(0o555),
    "no lock": lambda place: (place.cache / "kernels.lock").unlink(),
    "a folder for a lock": lambda place: (
        (place.cache / "kernels.lock").unlink(),
        (place.cache / "kernels.lock").mkdir(),
    ),
    "other files": lambda place: (place.cache / "kernels-0.so").write_text("old"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_not_touch_the_kernels_costs_no_build(name, place):
    place.fill()
    HARMLESS[name](place)
    answer = place.run()
    assert_compiled(answer)
    assert place.built() == 0 and not answer["warnings"]


@pytest.mark.parametrize(
    "what",
    ["truncate -s 0 {so}", "truncate -s 4096 {so}", "cp {other} {so}", "rm {so} {sum}", "rm -r {cache}",
     "head -c 100000 /dev/zero > {so}"],
)  # fmt: skip
def test_a_loaded_library_computes_on_whatever_becomes_of_its_file(what, place):
    place.fill()
    other = place.folder / "other"
    other_library(other)
    paths = {"so": place.so, "sum": place.sum, "cache": place.cache, "other": other}
    assert_compiled(place.run(after_loading=what.format(**paths)))
    assert_compiled(place.run())


def test_leftovers_of_killed_builds_go_at_the_next_start(place):
    place.fill()
    (place.cache / "kernels-1234abcd.tmp").write_text("half")
    room = place.cache / "build-old.tmp"
    room.mkdir()
    (room / "kernels.so").write_text("half")
    assert_compiled(place.run())
    assert not list(place.cache.glob("*.tmp")) and place.built() == 0


@pytest.mark.parametrize("moment", ["before the library", "half the library", "whole library"])
def test_a_build_that_is_killed_leaves_nothing_that_counts(moment, place):
    """Three kills: the compiler waits at a moment, and its caller dies there."""
    here = place.folder / "here"
    write = {
        "before the library": "",
        "half the library": f'head -c 60000 {place.library} > "$2"; ',
        "whole library": f'cp {place.library} "$2"; ',
    }[moment]
    place.write_compiler(before=f"{write}touch {here}; sleep 2; exit 1")
    assert place.run(kill_when=here)["status"] == -9
    assert not list(place.cache.glob("*.so")) and list(place.cache.glob("*.tmp"))
    place.write_compiler()
    assert_compiled(place.run())
    assert not list(place.cache.glob("*.tmp"))


def test_processes_that_start_together_build_once(place):
    place.write_compiler(before="sleep 0.5")
    for answer in place.run(count=4):
        assert_compiled(answer)
    assert place.built() == 1
    kept = {p.suffix for p in place.cache.iterdir()}
    assert kept == {".so", ".sum", ".lock"}


def test_a_build_that_hangs_elsewhere_is_not_waited_for_without_end(place):
    import fcntl

    place.cache.mkdir()
    with open(place.cache / "kernels.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = place.run(patience=0.5)
    assert_compiled(answer)
    assert answer["seconds"] < 3


def test_another_processor_or_compiler_gets_a_library_of_its_own(place):
    place.write_compiler()
    assert_compiled(place.run())
    place.compiler.write_text(place.compiler.read_text().replace("compiler 1.0", "compiler 2.0"))
    assert_compiled(place.run())
    assert place.built() == 2 and len(list(place.cache.glob("*.so"))) == 2

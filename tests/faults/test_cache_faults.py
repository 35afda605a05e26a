"""The compiled kernels' cache and compiler, spoiled in every way: no process crashes, none is wrong, none stays slow.

A fresh process looks for the kernels in each case. A script that copies a library stands for the compiler, and writes
down that it was called, so that a case costs milliseconds.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from modules.ssm.cpu import build
from tests.support.kernel_builds import Builds

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(
        build.refusal() is not None or not Path("/proc/self/fd").is_dir(),
        reason="no compiled kernels, or no /proc",
    ),
]
AS_ROOT = pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="needs root")

# $2 is the file behind -o; every build leaves a line
_COMPILER = """#!/bin/sh
[ "$1" = --version ] && {{ echo 'compiler 1.0'; exit 0; }}
while [ "$1" != -o ]; do shift; done
echo build >> $BUILDS
{before}
cp {library} "$2"
"""


@pytest.fixture(scope="module")
def builds():
    server = Builds()
    yield server
    server.close()


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A whole library, as a file of its own."""
    path = tmp_path_factory.mktemp("library") / "whole.so"
    path.write_bytes(Path(build._loaded._name).read_bytes())
    return path


class Place:
    """A cache, a home and a temporary folder of one case, and its compiler."""

    def __init__(self, folder, library, builds, whole=None):
        self.folder, self.library, self._builds, self._whole = folder, library, builds, whole
        self.cache, self.home, self.temporary = (folder / n for n in ("cache", "home", "tmp"))
        self.home.mkdir()
        self.temporary.mkdir()
        self.log = folder / "log"
        self.compiler = self.write_compiler() if whole is None else whole.compiler

    def write_compiler(self, text=None, before=""):
        path = self.folder / "compiler"
        if text is None:
            text = _COMPILER.format(library=self.library, before=before)
        path.write_text(text)
        path.chmod(0o755)
        self.compiler = path
        return path

    def fill(self):
        """Put the kernels of an earlier process into the cache."""
        shutil.copytree(self._whole.cache, self.cache)

    def run(self, **options):
        """Answer of a fresh process under this case's variables."""
        variables = {
            "MAMBA_SPEECH_CACHE": self.cache,
            "HOME": self.home,
            "TMPDIR": self.temporary,
            "CC": self.compiler,
            "BUILDS": self.log,
        }
        return self._builds.run(**variables | options)

    def built(self):
        """Number of builds so far."""
        return len(self.log.read_text().split()) if self.log.exists() else 0

    @property
    def so(self):
        (path,) = self.cache.glob("*.so")
        return path

    @property
    def sum(self):
        return self.so.with_suffix(".sum")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, library, builds):
    """A place with kernels, which others copy."""
    place = Place(tmp_path_factory.mktemp("whole"), library, builds)
    assert_compiled(place.run())
    assert place.built() == 1
    return place


@pytest.fixture
def place(tmp_path, library, builds, whole):
    return Place(tmp_path, library, builds, whole)


def assert_compiled(answer):
    assert answer["status"] == 0 and answer["refusal"] is None
    assert answer["backends"] == ["cpu", "torch", "naive"] and answer["error"] < 1e-5


NOTHING_TO_SAY = {"refusal": None, "warnings": []}


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


def other_library(path):
    """A library that is whole, and another one."""
    (found, *_) = Path(os.__file__).parent.rglob("*.cpython*.so")
    path.write_bytes(found.read_bytes())


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


# MAMBA_SPEECH_CACHE, from the case's folder; the first are taken, the others named in a warning
TAKEN = {
    "a new folder in a new folder": lambda f: f / "a" / "b",
    "spaces, a hash and an umlaut": lambda f: f / "ein #1 Wörtchen ",
    "a folder of its name in the home": lambda f: "~/kernels",
    "a link to a folder": lambda f: link(f / "link", f / "home"),
    "a name that begins with a dash": lambda f: f / "-o",
}
NOT_TAKEN = {
    "a file": lambda f: touch(f / "file"),
    "under a file": lambda f: touch(f / "file") / "cache",
    "a link to nothing": lambda f: link(f / "link", f / "nowhere"),
    "a link to itself": lambda f: link(f / "link", f / "link"),
    "a name without end": lambda f: f / ("x" * 300),
    "a file system that takes nothing": lambda f: "/proc/kernels",
    "a device": lambda f: "/dev/null",
    "a folder that all can write": lambda f: folder(f / "open", 0o777),
    "a folder that its group can write": lambda f: folder(f / "group", 0o775),
    "a folder with a folder for a lock": lambda f: folder(f / "locked" / "kernels.lock").parent,
}


def touch(path):
    path.touch()
    return path


def link(path, to):
    path.symlink_to(to)
    return path


def folder(path, mode=0o755):
    path.mkdir(parents=True)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("name", TAKEN)
def test_a_folder_of_any_name_keeps_the_kernels(name, place):
    chosen = TAKEN[name](place.folder)
    answer = place.run(MAMBA_SPEECH_CACHE=chosen, twice=True)
    assert_compiled(answer)
    assert place.built() == 1 and not answer["warnings"] and answer["again"] == NOTHING_TO_SAY
    assert not (place.home / ".cache").exists()


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_where_a_folder_cannot_keep_the_kernels_the_home_does_and_one_line_says_so(name, place):
    chosen = NOT_TAKEN[name](place.folder)
    answer = place.run(MAMBA_SPEECH_CACHE=chosen, twice=True)
    assert_compiled(answer)
    (line,) = answer["warnings"]
    assert "MAMBA_SPEECH_CACHE" in line and str(chosen) in line and "\n" not in line
    assert list((place.home / ".cache" / "mamba-speech").glob("*.so"))
    assert answer["again"]["refusal"] is None and place.built() == 1


@AS_ROOT
def test_a_folder_of_another_user_keeps_no_kernels(place):
    place.cache.mkdir()
    os.chown(place.cache, 12345, 12345)
    answer = place.run()
    assert_compiled(answer)
    assert "others can write" in answer["warnings"][0] and not list(place.cache.iterdir())


@AS_ROOT
def test_a_full_disk_keeps_no_kernels_and_stops_nothing(place):
    place.cache.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place.cache)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        answer = place.run()
        assert_compiled(answer)
        assert "No space left" in answer["warnings"][0] and not list(place.cache.iterdir())
    finally:
        subprocess.run(["umount", str(place.cache)], check=True)


def test_without_any_folder_every_process_compiles_and_says_so(place):
    home, user = touch(place.folder / "no-home"), os.getuid()
    touch(place.temporary / f"mamba-speech-{user}")
    answer = place.run(HOME=home, MAMBA_SPEECH_CACHE=None, twice=True)
    assert_compiled(answer)
    for (line,) in (answer["warnings"], answer["again"]["warnings"]):
        assert "every process compiles" in line and "MAMBA_SPEECH_CACHE" in line
    assert place.built() == 2
    assert len(list(place.temporary.iterdir())) == 1


SCRIPT = "#!/bin/sh\n"
VERSION = SCRIPT + '[ "$1" = --version ] && { echo 1; exit 0; }\n'
OUTPUT = 'while [ "$1" != -o ]; do shift; done\n'
# a compiler: the text of a script, or CC itself
COMPILERS = {
    "a quotation mark": "'",
    "two kinds of them": "\"'",
    "a quotation mark behind a name": "cc '",
    "a command that there is not": "no-such-compiler",
    "a path that there is not": "/nowhere/cc",
    "a folder": "/etc",
    "a device": "/dev/null",
    "a name with a line break": "cc\nrm",
    "an option alone": "-O3",
    "a failure": "false",
    "a success that makes nothing": "true",
    "an echo": "echo",
    "an unknown option": "cc --no-such-option",
    "no programme": "just text, no programme",
    "one that dies": SCRIPT + "kill -9 $$\n",
    "one that says no UTF-8": SCRIPT + "printf '\\377\\376'; exit 1\n",
    "one that says its version and no more": VERSION + "exit 1\n",
    "one that makes an empty file": VERSION + OUTPUT + ': > "$2"\n',
    "one that makes text": VERSION + OUTPUT + 'echo text > "$2"\n',
    "one that makes a folder": VERSION + OUTPUT + 'mkdir -p "$2"\n',
    "one that makes another library": VERSION + OUTPUT + 'cp {other} "$2"\n',
    "one that hangs": SCRIPT + "exec sleep 60\n",
    "one whose child hangs": SCRIPT + "sleep 60\n",
    "one that hangs in the build": VERSION + "sleep 60\n",
    "one that closes its output and hangs": SCRIPT + "exec >&- 2>&-; sleep 60\n",
    "one that prints without end": SCRIPT + "exec yes\n",
    "one that complains without end": VERSION + "yes >&2\n",
}


@pytest.mark.parametrize("name", COMPILERS)
def test_a_compiler_that_does_not_work_is_named_once_with_the_remedy_and_torch_computes(
    name, place
):
    other_library(place.folder / "other")
    text = COMPILERS[name].replace("{other}", str(place.folder / "other"))
    script = text.startswith("#!") or " text" in text
    chosen = place.write_compiler(text) if script else text
    answer = place.run(CC=chosen, patience=0.5)
    assert answer["status"] == 0 and answer["backends"] == ["torch", "naive"]
    (line,) = answer["warnings"]
    assert "torch takes over: " in line and "set CC to a C compiler" in line and "CC=" in line
    assert "\n" not in line.replace(str(chosen), "") and answer["seconds"] < 5
    assert "without end" not in name or "prints without end" in line
    assert not list(place.cache.glob("kernels-*.so")) and not list(place.cache.glob("*.tmp"))


def test_a_compiler_that_hangs_is_ended_with_its_children(place):
    pid = place.folder / "pid"
    place.write_compiler(SCRIPT + f"sleep 60 & echo $! > {pid}; wait\n")
    assert place.run(patience=0.5)["refusal"]
    time.sleep(0.1)
    status = Path("/proc", pid.read_text().strip(), "status")
    assert not status.exists() or "State:\tZ" in status.read_text()


@pytest.mark.parametrize("chosen", ["", "   ", None])
def test_no_compiler_of_one_s_own_is_the_system_s(chosen, place):
    folder = place.folder / "bin"
    folder.mkdir()
    shutil.copy(place.compiler, folder / "cc")
    assert_compiled(place.run(CC=chosen, PATH=f"{folder}:{os.environ['PATH']}"))
    assert place.built() == 1


def test_a_machine_without_a_compiler_is_told_to_install_one(place):
    (place.folder / "bin").mkdir()
    answer = place.run(CC=None, PATH=place.folder / "bin")
    (line,) = answer["warnings"]
    assert "no C compiler found" in line and "install one" in line
    assert answer["backends"] == ["torch", "naive"]


def test_another_processor_or_compiler_gets_a_library_of_its_own(place):
    place.write_compiler()
    assert_compiled(place.run())
    place.compiler.write_text(place.compiler.read_text().replace("compiler 1.0", "compiler 2.0"))
    assert_compiled(place.run())
    assert place.built() == 2 and len(list(place.cache.glob("*.so"))) == 2

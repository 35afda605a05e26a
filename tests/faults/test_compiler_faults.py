"""Folders that keep no kernels, and compilers that make none: one line names the cause, and computing goes on.

A fresh process looks for the kernels in each case.
"""

import os
import shutil
import subprocess
import time
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
    assert answer["status"] == 0 and answer["backends"] == ["torch", "naive", "graph"]
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
    assert answer["backends"] == ["torch", "naive", "graph"]

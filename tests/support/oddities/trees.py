"""Folders as people have them: links, files of systems, things that are no recordings, names that collide."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.media import write_media
from tests.support.oddities.headers import wav
from tests.support.oddities.inputs import RATE, resampled

GROUP = "Folders"


@dataclass(frozen=True)
class OddTree:
    """An odd folder.

    Arguments
    ---------
    name : str
        Words for it, different from all others'.
    write : callable
        From the folder, which is there, and the samples of the plain recording to nothing.
    found : tuple of str
        Paths of the recordings in the folder that are read, sorted.
    broken : tuple of str
        Paths of the files that are found and give an error.
    passed : str
        Words of the warning about what was passed over; none where empty.
    refused : str
        Words of the error of a folder without a recording.
    """

    name: str
    write: Callable
    found: tuple = ("a.wav",)
    broken: tuple = ()
    passed: str = ""
    refused: str = ""

    group = GROUP


def tree(*names, other=None):
    """A function that writes recordings under these names, and does something more."""

    def write(folder, samples):
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(wav(samples))
        if other is not None:
            other(folder, samples)

    return write


def linked_folder(folder, samples):
    real = folder.with_name(f"{folder.name}-real")
    tree("b.wav")(real, samples)
    (folder / "link").symlink_to(real)


def loops(folder, _):
    (folder / "loop").symlink_to(".")
    (folder / "d").mkdir()
    (folder / "d" / "up").symlink_to("..")


def two_loops(folder, _):
    for one, other in (("x", "y"), ("y", "x")):
        (folder / one).mkdir()
        (folder / one / "other").symlink_to(f"../{other}")


def dangling(folder, _):
    for number in range(5):
        (folder / f"gone{number}.wav").symlink_to("nowhere.wav")


def mac(folder, _):
    for name in ("._a.wav", ".DS_Store", ".a.wav"):
        (folder / name).write_bytes(b"\0\5\x16\7" + bytes(100))
    for name in ("__MACOSX", ".Trashes", "@eaDir"):
        (folder / name).mkdir()
        (folder / name / "a.wav").write_bytes(b"\0\5\x16\7")


def texts(folder, _):
    for name in ("a.txt", "a.lab", "README", "a.wav.bak"):
        (folder / name).write_text("no audio\n")


def unreadable(folder, _):
    (folder / "b.wav").write_bytes(b"")
    (folder / "c.wav").write_text("no audio\n")


def media(folder, samples):
    for name, codec, rate in (
        ("b.m4a", "aac", RATE),
        ("c.webm", "libopus", 48000),
        ("d.mp4", "aac", RATE),
    ):
        write_media(folder / name, resampled(samples, rate), rate, codec)


DEEP = "/".join("d" * 1 for _ in range(60)) + "/a.wav"
NO_UTF8 = os.fsdecode(b"caf\xe9")
COLLIDING = ("a.flac", "a.wav", "a.wav.wav", "d1/x.wav", "d2/x.wav")
ODD = (
    OddTree("a linked sub-folder", tree("a.wav", other=linked_folder), ("a.wav", "link/b.wav")),
    OddTree("links in a circle", tree("a.wav", other=loops), passed="links to a folder above it"),
    OddTree(
        "two folders that link to each other", tree("a.wav", other=two_loops), passed="above it"
    ),
    OddTree("five dangling links", tree("a.wav", other=dangling), passed="5 links to nothing"),
    OddTree("a pipe", tree("a.wav", other=lambda at, _: os.mkfifo(at / "b.wav")), passed="1 pipe"),
    OddTree("what macOS and storage servers leave", tree("a.wav", other=mac)),
    OddTree("texts beside recordings", tree("a.wav", other=texts)),
    OddTree(
        "an empty file and a text named .wav",
        tree("a.wav", other=unreadable),
        broken=("b.wav", "c.wav"),
    ),
    OddTree(
        "phone recordings and videos",
        tree("a.wav", other=media),
        ("a.wav", "b.m4a", "c.webm", "d.mp4"),
    ),
    OddTree("endings in capitals", tree("A.WAV", "b.Wav"), ("A.WAV", "b.Wav")),
    OddTree("60 folders deep", tree(DEEP), (DEEP,)),
    OddTree("a folder whose name is not UTF-8", tree(f"{NO_UTF8}/a.wav"), (f"{NO_UTF8}/a.wav",)),
    OddTree("a folder named like a recording", tree("x.wav/a.wav"), ("x.wav/a.wav",)),
    OddTree("names that collide without their endings", tree(*COLLIDING), COLLIDING),
    OddTree("names that differ in capitals", tree("A.wav", "a.wav"), ("A.wav", "a.wav")),
    OddTree("nothing", tree(), (), refused="no audio file"),
    OddTree("texts alone", tree(other=texts), (), refused="no audio file"),
    OddTree("hidden files alone", tree(".a.wav"), (), refused="no audio file"),
    OddTree(
        "an empty folder in a folder",
        tree("d/a.wav", other=lambda at, _: (at / "e").mkdir()),
        ("d/a.wav",),
    ),
)

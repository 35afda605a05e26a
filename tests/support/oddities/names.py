"""Names, links and things that are no files."""

import os
import socket
import unicodedata

from tests.support.oddities.headers import wav
from tests.support.oddities.inputs import KEPT, Odd

GROUP = "Names"
NAMES = {
    "a space": "a b.wav",
    "a space at either end": " a .wav",
    "a single quotation mark": "it's.wav",
    "a double quotation mark": 'say "a".wav',
    "a dash first": "-a.wav",
    "two dashes first": "--help.wav",
    "a number sign": "take #1.wav",
    "a percent sign": "50%20off.wav",
    "a dollar sign": "$HOME.wav",
    "a comma": "a,b.wav",
    "a semicolon": "a;b.wav",
    "a colon": "12:30.wav",
    "a question mark": "what?.wav",
    "an asterisk": "*.wav",
    "brackets": "[a](b){c}.wav",
    "a vertical bar": "a|b.wav",
    "an ampersand": "a&b.wav",
    "a backslash": "a\\b.wav",
    "a tilde": "~.wav",
    "a plus sign": "a+b.wav",
    "an equals sign": "wav=a.wav",
    "é as one code point": unicodedata.normalize("NFC", "café.wav"),
    "é as two code points": unicodedata.normalize("NFD", "né.wav"),
    "an emoji": "\N{GRINNING FACE}.wav",
    "Chinese": "\u5f55\u97f3.wav",
    "Arabic": "\u062a\u0633\u062c\u064a\u0644.wav",
    "a byte that is not UTF-8": os.fsdecode(b"caf\xe9.wav"),
    "255 bytes": "x" * 251 + ".wav",
    "a name that Windows reserves": "CON.wav",
    "two dots": "a..wav",
    "an ending twice": "a.wav.wav",
    "a name like an address": "http:a.wav",
    "a zero-width space": "a\u200bb.wav",
    "letters from right to left": "\u202eabc.wav",
}
# no line of a list holds these, and no manifest
BREAKS = {
    "a newline": "a\nb.wav",
    "a carriage return": "a\rb.wav",
}


def plain(path, samples):
    """The plain recording."""
    path.write_bytes(wav(samples))


def linked(path, samples):
    (path.parent / "target").mkdir(exist_ok=True)
    plain(path.parent / "target" / "real.wav", samples)
    path.symlink_to("target/real.wav")


def hard_link(path, samples):
    plain(path.with_name("first.wav"), samples)
    path.hardlink_to(path.with_name("first.wav"))


def below_link(path, samples):
    real = path.parent.with_name("real")
    real.mkdir(exist_ok=True)
    path.parent.rmdir()
    path.parent.symlink_to("real")
    plain(path, samples)


def link_of_links(path, samples):
    plain(path.with_name("end.wav"), samples)
    path.with_name("middle.wav").symlink_to("end.wav")
    path.symlink_to("middle.wav")


def socket_file(path, _):
    # a short relative name, since systems take no more than some hundred bytes
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def names():
    """The plain recording under many names."""
    for name, file in NAMES.items():
        training = "skipped: not UTF-8" if "\udce9" in file else KEPT
        yield Odd(GROUP, name, file, plain, training=training)
    for name, file in (*BREAKS.items(), ("a tab", "a\tb.wav")):
        training = KEPT if "\t" in file else "skipped: a line break"
        yield Odd(GROUP, name, file, plain, training=training)
    yield Odd(GROUP, "a dot first, given by name", ".hidden.wav", plain)


def links():
    """What has the name of a recording, and is a link or something else."""
    group = "Links, and what is no file"
    for name, file, write in (
        ("a link to a recording", "link.wav", linked),
        ("a hard link", "hard.wav", hard_link),
        ("a recording below a linked folder", "linked/a.wav", below_link),
        ("a link to a link", "links.wav", link_of_links),
    ):
        yield Odd(group, name, file, write)
    for name, file, write, error, reason in (
        (
            "a dangling link",
            "gone.wav",
            lambda path, _: path.symlink_to("none.wav"),
            "not there",
            "link",
        ),
        (
            "a link to itself",
            "self.wav",
            lambda path, _: path.symlink_to("self.wav"),
            "too many",
            "",
        ),
        ("a pipe (FIFO)", "pipe.wav", lambda path, _: os.mkfifo(path), "a pipe", "pipe"),
        ("a socket", "socket.wav", socket_file, "a socket", "socket"),
        (
            "an empty folder",
            "folder.wav",
            lambda path, _: path.mkdir(),
            "no audio file",
            "not found",
        ),
        ("nothing", "nothing.wav", lambda path, _: None, "no such file", "not found"),
    ):
        yield Odd(group, name, file, write, f"error: {error}", f"skipped: {reason}", likeness=None)


ODD = (*names(), *links())

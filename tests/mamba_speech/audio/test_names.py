"""Names and texts in lines: a line stays a line, in every encoding."""

import json
import os
import re
import subprocess
import sys

import pytest

from mamba_speech.audio.names import plain
from mamba_speech.cli import COMMANDS, make_parser
from mamba_speech.printing import print_records
from tests.support.recipes import ROOT

PROGRAM = """
import sys
from mamba_speech.audio.names import safe_streams
from mamba_speech.printing import print_records
safe_streams()
sys.exit(print_records(
    [{"path": path, "text": text} for path, text in eval(sys.argv[1])] + [{"path": "b", "error": sys.argv[2]}],
    lambda one: (one["path"], one["text"]), "done", sys.argv[3] == "json"))
"""
PAIRS = [
    ("\xe9.wav", "caf\xe9 \u0436 \U0001f600"),
    ("caf\udce9.wav", "x"),
    ("a\tb.wav", "\x1b[31mred\x9b1m\n"),
]


def run(how, **environment):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, ascii(PAIRS), "d\xe9\t\x1b[0m: no such file", how],
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
    )


ENVIRONMENTS = [
    {"PYTHONIOENCODING": "utf-8"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "cp1252"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "utf-16-le"},
]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda one: "-".join(one.values()))
def test_every_name_and_text_is_printed_on_its_line_on_every_stream(environment):
    encoding = environment.get("PYTHONIOENCODING", "ascii").partition(":")[0]
    done = run("plain", **environment)
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    lines = done.stdout.decode(encoding, "surrogateescape").splitlines()
    assert len(lines) == 3 and all(line.count("\t") == 1 for line in lines)
    assert lines[2] == "a\\tb.wav\t\\x1b[31mred\\x9b1m\\n"
    assert lines[1] in ("caf\udce9.wav\tx", "caf\\udce9.wav\tx", "caf\xe9.wav\tx")
    expected = "".join(PAIRS[0]) if "utf" in encoding else "\\u0436 \\U0001f600"
    assert lines[0].replace("\t", "").endswith(expected)
    assert "\\t\\x1b[0m: no such file" in done.stderr.decode(encoding, "surrogateescape")
    # the same as JSON, which holds no less than the names themselves
    done = run("json", **environment)
    lines = done.stdout.decode(encoding).splitlines()
    records = [json.loads(line) for line in lines]
    assert [(one["path"], one["text"]) for one in records[:3]] == PAIRS
    assert "error" in records[3] and not re.search("[\x00-\x1f\x7f-\x9f]", "".join(lines))


def test_what_is_escaped_can_be_told_from_what_is_written():
    names = [
        "a\tb",
        "a\\tb",
        "a\\\tb",
        "a\nb",
        "a\\nb",
        "\x1b",
        "\\x1b",
        "\x85",
        "\u2028",
        "\udc9b",
        "é",
    ]
    shown = [plain(name) for name in names]
    assert len(set(shown)) == len(names)
    assert all(one.isprintable() for one in shown) and all(
        len(one.splitlines()) == 1 for one in shown
    )
    assert plain("café жук 한국 😀 a b.wav") == "café жук 한국 😀 a b.wav"


def test_a_line_of_columns_has_no_more_tabs_than_columns(capsys):
    records = [{"path": "a\tb\r\n.wav", "text": "one\ttwo"}]
    assert print_records(records, lambda one: one.values(), "done") == 0
    assert capsys.readouterr().out == "a\\tb\\r\\n.wav\tone\\ttwo\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_how_control_characters_are_printed(command, capsys):
    with pytest.raises(SystemExit):
        make_parser([command]).parse_args([command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "a tab is printed as \\t" in shown


@pytest.mark.parametrize("how", ["plain", pytest.param("json", marks=pytest.mark.exhaustive)])
def test_a_reader_that_leaves_ends_a_command_in_silence(how, spotters, audio):
    words = ["spot", spotters / "causal", *4 * [audio], "--threshold", "0"]
    words += ["--json"] * (how == "json")
    command = subprocess.Popen(
        [sys.executable, "-m", "mamba_speech.cli", *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    command.stdout.close()
    errors = command.stderr.read().splitlines()
    # the one line tells that this model takes other speech for its words
    assert command.wait() == 1 and len(errors) == 1 and b"has no class _unknown_" in errors[0]


@pytest.mark.exhaustive
def test_a_command_without_a_stdout_works_on(spotters, audio):
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "mamba_speech.cli"]
        + ["spot", str(spotters / "causal"), str(audio / "1.wav"), "--threshold", "0"],
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )
    assert b"Traceback" not in done.stderr and done.returncode in (0, 1)

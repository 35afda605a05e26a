"""docs/coming_from.md: every command that it gives is taken by its program, and every name is there."""

import ast
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys

import pytest

import mamba_speech
from mamba_speech.cli import make_parser
from tests.support.recipes import ROOT, forget, scripts
from training.options import find_options, read_command_line
from training.resume_path import take_resume

PAGE = (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8")
SAME = ("the same line", "the same function", "the same method")


def rows():
    """Section, recipe's folder, published cell and cell of every row."""
    for section in PAGE.split("\n## ")[1:]:
        name = section.partition("\n")[0]
        folder = re.search(r"[Ff]older: `(recipes/[\w/]+)`", section)[1]
        for published, here in re.findall(r"^\| (.+?) \| (.+) \|$", section, re.MULTILINE):
            if not published.startswith(("---", "published", "key of")):
                yield name, ROOT / folder, published, here


def codes(cell):
    """What stands in a cell as code."""
    return re.findall(r"`([^`]+)`", cell)


def commands():
    """Commands and imports to write here, each with its recipe's folder; the published one where it is the same."""
    for _, folder, published, here in rows():
        given = codes(here) + (codes(published) if here.startswith(SAME[0]) else [])
        for code in given:
            if re.match(r"(python|torchrun|mamba-speech|from) ", code):
                yield folder, code


COMMANDS = list(dict.fromkeys(commands()))


def check_training(folder, words):
    """The options of a training are all taken."""
    script, yaml, *options = words
    path = folder / yaml
    if script == "train_wsj0mix.py":
        path = folder / "hparams" / yaml.rpartition("/")[2]
        script = "train.py"
    assert (folder / script).is_file() and path.is_file()
    rest, _ = take_resume([str(path), *options])
    read_command_line(rest, find_options(folder / script))


@pytest.mark.parametrize("folder, code", COMMANDS, ids=lambda one: str(one)[-60:])
def test_every_command_and_name_of_the_page_is_taken(folder, code, monkeypatch):
    if code.startswith("from "):
        (node,) = ast.parse(code).body
        with scripts(monkeypatch, folder) as load:
            module = load(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
        return
    program, *words = shlex.split(code)
    if program == "mamba-speech":
        assert callable(make_parser(words).parse_args(words).run)
        return
    if program == "torchrun":
        words = words[2:] if words[0] == "--nproc-per-node" else words[1:]
    if words[0] == "-m":
        importlib.import_module(words[1]).parse_arguments(words[2:])
    elif words[0] == "score.py":
        with scripts(monkeypatch, folder) as load:
            load("score").parse_arguments(words[1:])
    elif words[0] == "preprocess_dynamic_mixing.py":
        done = subprocess.run(
            [sys.executable, *words, "--help"], cwd=folder, capture_output=True, check=True
        )
        assert b"--input_folder" in done.stdout
    else:
        check_training(folder, words)


def test_every_row_says_what_to_do_here():
    found = list(rows())
    assert len({name for name, *_ in found}) == 6 and len(found) > 35
    for _, _, published, here in found:
        assert codes(here) or here.startswith((*SAME, "nothing")), published


def test_the_classes_have_the_methods_that_the_page_calls():
    calls = re.findall(r"`(Recognizer|Separator|SpeakerVerifier)\.(\w+)\(", PAGE)
    assert len(calls) >= 4
    for name, method in calls:
        assert callable(getattr(getattr(mamba_speech, name), method))


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "kws_mamba.train", "--config", "configs/mamba_medium.yaml"],
        ["-m", "kws_mamba.benchmark", "--model-path", "checkpoints/best_model.pt"],
    ],
)
def test_the_published_keyword_commands_end_with_the_command_that_does_it(words):
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "modules.kws" in done.stderr and "python train.py hparams/" in done.stderr


def test_a_published_import_says_what_to_import():
    forget({"kws_mamba"})
    spec = importlib.util.spec_from_file_location("kws_mamba", ROOT / "kws_mamba.py")
    with pytest.raises(
        ImportError, match="from modules.kws.mamba import mamba_mel_medium"
    ) as error:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    code = re.search(r"from modules[\w.]+ import \w+", str(error.value))[0]
    (node,) = ast.parse(code).body
    assert hasattr(importlib.import_module(node.module), node.names[0].name)
    command = re.search(r"python (train\.py .+) \(docs", str(error.value))[1]
    folder = re.search(r"recipes/[\w/]+", str(error.value))[0]
    check_training(ROOT / folder, shlex.split(command))

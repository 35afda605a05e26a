"""docs/python.md and the README: examples run in their order, and print what stands below them."""

import re
import shutil

import pytest
import soundfile

from tests.support.keywords import RATE, SPEAKERS, say
from tests.support.recipes import ROOT
from tests.support.recognition import write_noise
from tests.support.separation import write_run
from tests.support.verification import write_voice

PAGE = ROOT / "docs" / "python.md"
# an example, and what it prints, if that stands there
EXAMPLE = re.compile(r"```python\n(.*?)```\n(?:```\n(.*?)```\n)?", re.DOTALL)


@pytest.fixture
def project(trained, spotters, speaker_runs, tmp_path, monkeypatch):
    """A working folder with a run of every task and the recordings that the page names."""
    results = tmp_path / "results"
    shutil.copytree(trained, results / "demo" / "run")
    write_run(results / "separation" / "run", "mambatasnet_debug.yaml")
    shutil.copytree(spotters / "causal", results / "keywords" / "run")
    shutil.copytree(speaker_runs / "run", results / "speakers" / "run")
    write_voice(tmp_path / "ada.wav", 1)
    write_voice(tmp_path / "call.wav", 1, seed=1)
    write_noise(tmp_path / "x.wav", 2.5, 7)
    write_noise(tmp_path / "interview.wav", 1.5, 6)
    write_noise(tmp_path / "mix.wav", 2.0, 8)
    soundfile.write(tmp_path / "yes.wav", say("up", SPEAKERS[0]), RATE)
    write_noise(tmp_path / "long.wav", 4.0, 9)
    (tmp_path / "recordings").mkdir()
    for number in range(3):
        write_noise(tmp_path / "recordings" / f"{number}.wav", 0.5, number)
    monkeypatch.chdir(tmp_path)


def test_the_examples_of_the_page_run_and_print_what_it_shows(project, capsys):
    examples = EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))
    names, shown = {}, 0
    for code, expected in examples:
        exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102
        printed = capsys.readouterr().out
        if expected:
            assert printed == expected
            shown += 1
    assert shown >= 6 and len(examples) > shown


def test_the_first_example_is_short_enough_to_copy():
    code, _ = EXAMPLE.search(PAGE.read_text(encoding="utf-8")).groups()
    assert len(code.splitlines()) <= 6


def test_the_example_of_the_readme_runs(project, capsys):
    ((code, _),) = EXAMPLE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out.count("\n") == 1

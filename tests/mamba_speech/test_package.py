"""The package as a user imports it: what it offers, what an import loads, and packages of the same name."""

import os
import re
import subprocess
import sys

import pytest

import mamba_speech
from tests.support.recipes import ROOT

TASKS = {
    "asr": ("Recognizer", "transcribe"),
    "separation": ("Separator", "separate"),
    "kws": ("KeywordSpotter", "spot"),
}


def python(*arguments, path=(), check=True):
    """Run Python with folders before this tree on its path."""
    path = os.pathsep.join(map(str, (*path, ROOT)))
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        check=check,
        # a folder that is no project's, since Python looks there first
        cwd=sys.prefix,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def test_every_public_name_is_there_and_no_other():
    assert set(mamba_speech.__all__) <= set(dir(mamba_speech))
    for name in mamba_speech.__all__:
        assert getattr(mamba_speech, name).__name__ == name
    assert re.fullmatch(r"\d+\.\d+\.\d+", mamba_speech.__version__)
    with pytest.raises(AttributeError, match="has no attribute 'Speaker'"):
        mamba_speech.Speaker  # noqa: B018


def test_the_package_itself_and_its_help_load_no_torch():
    program = (
        "import sys, mamba_speech, mamba_speech.cli\n"
        "dir(mamba_speech), mamba_speech.__version__\n"
        "try: mamba_speech.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'modules'} & set(sys.modules)"
    )
    python("-c", program)


@pytest.mark.parametrize(
    "task",
    ["separation", *(pytest.param(one, marks=pytest.mark.exhaustive) for one in ("asr", "kws"))],
)
def test_a_task_and_its_command_load_no_other_task(task):
    name, command = TASKS[task]
    program = (
        f"import sys; from mamba_speech import {name}; from mamba_speech.cli import main\n"
        f"try: main(['{command}', '--help'])\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = python("-c", program)
    assert f"mamba-speech {command}" in done.stdout
    loaded = {tuple(one.split(".")[:2]) for one in done.stderr.split()}
    assert ("mamba_speech", task) in loaded
    for other in TASKS.keys() - {task}:
        assert not {("mamba_speech", other), ("modules", other)} & loaded


@pytest.fixture
def foreign(tmp_path):
    """A folder with packages of others that have the names of ours."""
    for name in ("modules", "training", "mamba_speech"):
        package = tmp_path / name / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise SystemExit('it was executed')")
    return tmp_path


@pytest.mark.parametrize("arguments", [("-c", "import training"), ("-m", "mamba_speech.cli")])
def test_another_package_named_modules_is_refused_by_its_path_and_never_executed(
    arguments, foreign
):
    done = python(*arguments, path=[foreign / "modules"], check=False)
    path = foreign / "modules" / "modules" / "__init__.py"
    assert done.returncode != 0 and "it was executed" not in done.stderr
    assert f"another package named 'modules' ({path}) hides {ROOT / 'modules'}" in done.stderr
    assert "remove it from PYTHONPATH" in done.stderr


def test_a_folder_or_a_file_named_modules_is_refused_too(tmp_path):
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "modules.py").write_text("")
    done = python("-c", "import mamba_speech", path=[tmp_path / "file"], check=False)
    assert f"named 'modules' ({tmp_path / 'file' / 'modules.py'})" in done.stderr


def test_another_package_named_training_is_refused_where_a_recipe_runs(foreign):
    recipe = ROOT / "recipes" / "SpeechCommands" / "KWS" / "train.py"
    program = f"import __main__; __main__.__file__ = '{recipe}'; import mamba_speech"
    done = python("-c", program, path=[foreign / "training"], check=False)
    path = foreign / "training" / "training" / "__init__.py"
    assert f"another package named 'training' ({path})" in done.stderr
    # elsewhere it is the user's own affair
    python("-c", "import mamba_speech", path=[foreign / "training"])

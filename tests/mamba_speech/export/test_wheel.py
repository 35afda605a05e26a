"""The wheel: built as a release is, installed outside the repository, and used on exported folders."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import speechbrain
import torch

import mamba_speech
from mamba_speech.export import export_run
from tests.support.recipes import ROOT
from tests.support.run_folders import write_voices

pytestmark = pytest.mark.exhaustive

COMMANDS = {
    "ctc": ["transcribe", "RUN", "ONE"],
    "windows": ["separate", "RUN", "ONE", "--output_folder", "separated"],
    "keywords": ["spot", "RUN", "ONE", "--threshold", "0"],
    "speakers": ["verify", "RUN", "ONE", "TWO"],
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """What `python -m build --wheel` makes of the files that a release has."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source)
    for package in ("data_prep", "mamba_speech", "modules", "training"):
        ignored = shutil.ignore_patterns("*.pyc", "__pycache__")
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    # without isolation it needs no network
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run(command, check=True, cwd=source, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory):
    """The folder of programs of an environment with the wheel; dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*command, "--no-deps", "--no-index", str(wheel)], check=True)
    # a path in such a file does not bring the .pth files that lie there, and so no repository
    (place,) = folder.glob("lib/python*/site-packages")
    found = {str(Path(one.__file__).parent.parent) for one in (speechbrain, torch)}
    (place / "dependencies.pth").write_text("\n".join(found) + "\n")
    return python.parent


@pytest.fixture(scope="module")
def exported(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    for name in COMMANDS:
        export_run(runs[name], folder / name)
    return folder


@pytest.fixture
def foreign(tmp_path):
    """A working directory with somebody else's `modules`."""
    package = tmp_path / "work" / "modules"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('it was executed')")
    return package.parent


def run(program, *arguments, cwd):
    """Run a program of the clean environment; nothing of this repository is on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [program, *map(str, arguments)],
        check=False,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_the_wheel_is_named_by_the_one_version(wheel):
    assert wheel.name.startswith(f"mamba_speech-{mamba_speech.__version__}-py3-none-any")


def test_nothing_of_the_repository_is_used(clean, tmp_path):
    program = "import mamba_speech, modules; print(mamba_speech.__file__, modules.__file__)"
    done = run(clean / "python", "-c", program, cwd=tmp_path)
    assert all(Path(one).is_relative_to(clean.parent) for one in done.stdout.split()), done.stderr
    assert len(done.stdout.split()) == 2
    missing = run(clean / "python", "-c", "import training", cwd=tmp_path)
    assert "No module named 'training'" in missing.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_use_exported_folders_beside_a_foreign_modules(name, clean, exported, foreign):
    one, two = write_voices(foreign)
    words = {"RUN": exported / name, "ONE": one, "TWO": two}
    given = [words.get(word, word) for word in COMMANDS[name]]
    done = run(clean / "mamba-speech", *given, cwd=foreign)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and "it was executed" not in done.stderr


def test_python_m_says_which_foreign_modules_is_in_the_way(clean, exported, foreign):
    one, _ = write_voices(foreign)
    given = ("-m", "mamba_speech", "transcribe", exported / "ctc", one)
    done = run(clean / "python", *given, cwd=foreign)
    path = re.escape(str(foreign / "modules" / "__init__.py"))
    assert done.returncode != 0 and "it was executed" not in done.stderr
    assert re.search(rf"another package named 'modules' \({path}\) hides ", done.stderr)
    assert "or run from another folder" in done.stderr
    # the remedy
    assert run(clean / "python", *given, cwd=foreign.parent).returncode == 0


def test_speechbrain_loads_an_exported_folder_with_the_wheel_alone(clean, exported, tmp_path):
    program = (
        "import sys\n"
        "from speechbrain.inference.classifiers import EncoderClassifier\n"
        "model = EncoderClassifier.from_hparams(sys.argv[1], savedir='loaded')\n"
        "print(*model.classify_file(sys.argv[2])[-1])\n"
    )
    one, _ = write_voices(tmp_path)
    done = run(clean / "python", "-c", program, exported / "keywords", one, cwd=tmp_path)
    assert done.stdout.strip() in ("no", "yes", "_unknown_"), done.stderr

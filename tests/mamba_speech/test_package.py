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
    "speaker": ("SpeakerVerifier", "verify"),
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


# Runs each statement in a process of its own, which begins with what all of them need
EACH_ALONE = """
import os, sys, torch, scipy.stats
for name, statement in statements.items():
    if name != "evaluation":
        import mamba_speech.audio
    if os.fork():
        os.wait()
        continue
    try:
        exec(statement)
    except SystemExit:
        pass
    print("loaded by", name, *sys.modules, flush=True)
    break
"""


@pytest.mark.exhaustive
def test_a_task_loads_no_other_and_scoring_loads_no_network():
    modules = [path.stem for path in (ROOT / "mamba_speech" / "evaluation").glob("*.py")]
    names = ", ".join(f"mamba_speech.evaluation.{name}" for name in modules)
    statements = {"evaluation": f"import {names}"}
    for task, (name, command) in TASKS.items():
        statements[task] = (
            f"from mamba_speech import {name}; from mamba_speech.cli import main; main(['{command}', '--help'])"
        )
    printed = python("-c", f"statements = {statements}\n{EACH_ALONE}").stdout
    loaded = dict(re.findall(r"^loaded by (\w+) (.*)$", printed, re.MULTILINE))
    parts = {
        name: {tuple(one.split(".")[:2]) for one in found.split()} for name, found in loaded.items()
    }
    assert parts.keys() == statements.keys()
    for task, (_, command) in TASKS.items():
        assert f"usage: mamba-speech {command}" in printed
        assert ("mamba_speech", task) in parts[task]
        for other in TASKS.keys() - {task}:
            assert not {("mamba_speech", other), ("modules", other)} & parts[task]
    networks = {
        name for name in loaded["evaluation"].split() if re.match(r"modules\.(?!ssm)", name)
    }
    assert networks == {"modules.separation", "modules.separation.si_snr"}
    assert not re.search(r"speechbrain\.(inference|lobes|nnet)", loaded["evaluation"])


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


def test_another_package_named_training_is_refused_where_our_scripts_run(foreign):
    path = foreign / "training" / "training" / "__init__.py"
    for script in ("recipes/SpeechCommands/KWS/train.py", "examples/demo.py", "benchmarks/scan.py"):
        assert (ROOT / script).is_file()
        program = f"import __main__; __main__.__file__ = '{ROOT / script}'; import mamba_speech"
        done = python("-c", program, path=[foreign / "training"], check=False)
        assert f"another package named 'training' ({path})" in done.stderr
    # elsewhere it is the user's own affair
    python("-c", "import mamba_speech", path=[foreign / "training"])

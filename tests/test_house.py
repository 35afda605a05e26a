"""Checks of the project itself: its metadata, its Makefile, and the order of its packages.

They read the tree and run in seconds. Each guards a promise that no test of a module would notice
being broken.
"""

import ast
import doctest
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mamba_speech

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# tests of tests/conftest.py run pytest within pytest
pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data_prep", "mamba_speech", "modules", "training")
# what a wheel holds of them
WHEEL = ("mamba_speech", "modules")
FOLDERS = (*PACKAGES, "benchmarks", "docs", "examples", "recipes", "tests")

TASKS = ("asr", "separation", "kws", "speaker")
# recipes whose folder has another name than their task
RECIPES = {"speaker": "SV"}
TABLE = re.compile(r"^\| (`[^|]+`) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)


def read_rules() -> dict[str, set[str]]:
    """Return what the files of each folder may import, from the table in CONTRIBUTING.md.

    A rule of a TASK stands for one of each task.
    """
    rules = {}
    for folder, allowed in TABLE.findall((ROOT / "CONTRIBUTING.md").read_text()):
        (folder,), allowed = re.findall(r"`([^`]+)`", folder), re.findall(r"`([^`]+)`", allowed)
        for task in TASKS if "TASK" in folder else ("",):
            rules[folder.replace("TASK", task)] = {
                one.replace("TASK", task) for one in (folder, *allowed)
            }
    return rules


def lies_in(path: str, place: str) -> bool:
    """Whether a file is what a cell of the table names: a file, the files of a folder, or all below it."""
    if place.startswith("recipes/CORPUS/"):
        task = place.rpartition("/")[2]
        return bool(re.match(rf"recipes/\w+/{RECIPES.get(task, task)}/", path, re.IGNORECASE))
    if place.endswith("/*.py"):
        return Path(path).parent.as_posix() == place.removesuffix("/*.py")
    return path == place or path.startswith(f"{place}/")


RULES = read_rules()


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(lines) -> dict[str, Requirement]:
    """Return the requirements in `lines` by their canonical names."""
    lines = (line.partition("#")[0].strip() for line in lines)
    found = (Requirement(line) for line in lines if line)
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def python_files(*folders) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(code: str, package: tuple[str, ...]) -> set[str]:
    """Return the absolute names that code in a package imports, `from X import y` as X.y.

    Relative names are resolved. A name that is imported as a text counts, and so does a public class that is
    taken from `mamba_speech`, which imports it then.
    """
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            names.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "mamba_speech":
            names.add(f"mamba_speech.{node.attr}")
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__"):
                given = [one.value for one in node.args if isinstance(one, ast.Constant)]
                names.update(one for one in given if isinstance(one, str))
    if "mamba_speech.*" in names:
        names.update(f"mamba_speech.{name}" for name in mamba_speech.__all__)
    return names


def run_make(*arguments) -> subprocess.CompletedProcess:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    outer = ("MAKEFLAGS", "MAKELEVEL", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(
        ["make", *arguments],
        check=False,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_requirements_txt_holds_every_dependency_of_pyproject_with_the_same_bounds():
    listed = requirements((ROOT / "requirements.txt").read_text().splitlines())
    extras = project()["optional-dependencies"]
    needed = [*project()["dependencies"], *(line for extra in extras.values() for line in extra)]
    for name, requirement in requirements(needed).items():
        assert name in listed, f"requirements.txt lacks {requirement}"
        assert listed[name].specifier == requirement.specifier, f"bounds of {name} differ"


def test_torch_and_torchaudio_are_pinned_to_one_version():
    listed = requirements((ROOT / "requirements.txt").read_text().splitlines())
    assert str(listed["torch"].specifier).startswith("==")
    assert listed["torch"].specifier == listed["torchaudio"].specifier


def test_make_help_lists_every_target_and_is_what_make_does_by_default():
    declared = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = run_make("help").stdout
    for target in declared[1].split():
        assert re.search(rf"^\s+make {target}\s+\S", shown, re.MULTILINE), target
    assert run_make().stdout == shown


def test_make_setup_with_an_unsuitable_python_says_which_to_install():
    setup = run_make("setup", "PYTHON=/no/such/python", "VENV=no_such_environment")
    assert setup.returncode != 0
    assert "/no/such/python is not a Python from 3.10 to 3.14" in setup.stderr
    assert "make setup PYTHON=" in setup.stderr
    assert not (ROOT / "no_such_environment").exists()


def test_the_console_script_names_a_function_that_can_be_imported():
    module, _, function = project()["scripts"]["mamba-speech"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_version_stands_in_one_place_and_is_the_same_in_the_documents_and_the_installation():
    version = mamba_speech.__version__
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[:1] in ([], [version])
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    written = [path for path in python_files(*PACKAGES) if "\n__version__ = " in path.read_text()]
    assert written == [ROOT / "mamba_speech" / "__init__.py"] and "version" not in project()
    try:
        assert importlib.metadata.version(project()["name"]) == version
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the project is not installed: run make setup")


def build(kind: str, folder: Path) -> list[str]:
    """Build a wheel of the project without a network and return the names of its files."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("*.pyc"))
    program = f"from setuptools.build_meta import *; build_{kind}({str(folder)!r})"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=source, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
        return archive.namelist()


@pytest.mark.exhaustive
def test_a_wheel_holds_what_using_a_trained_model_needs_and_nothing_else(tmp_path):
    names = build("wheel", tmp_path)
    tops = {name.split("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == set(WHEEL)
    for package in WHEEL:
        for path in (ROOT / package).rglob("*"):
            if path.suffix in (".py", ".c", ".h"):
                assert path.relative_to(ROOT).as_posix() in names


@pytest.mark.exhaustive
def test_an_editable_install_makes_the_whole_tree_importable(tmp_path):
    names = build("editable", tmp_path)
    paths = [name for name in names if name.endswith(".pth")]
    assert len(paths) == 1 and not any(name.endswith(".py") for name in names)
    assert (tmp_path / "unpacked" / paths[0]).read_text().strip() == str(tmp_path / "source")


def test_every_folder_of_the_packages_is_a_package():
    for path in python_files(*PACKAGES):
        assert (path.parent / "__init__.py").exists(), f"{path.parent} has no __init__.py"


def test_only_the_one_reader_calls_soundfile_to_read():
    for path in python_files(*(folder for folder in FOLDERS if folder != "tests")):
        if path.parent == ROOT / "mamba_speech" / "audio":
            continue
        # these run where this project is not installed
        if path.name.startswith("onnx_") and path.parent == ROOT / "examples":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if getattr(node.func.value, "id", None) not in ("soundfile", "audio_io"):
                continue
            modes = {getattr(one, "value", None) for one in (*node.args, *node.keywords)}
            writes = node.func.attr in ("write", "available_formats") or "w" in modes
            assert writes, f"{path}:{node.lineno} reads without mamba_speech.audio.open_audio"


def test_no_code_edits_the_import_path():
    edits = re.compile(r"\bsys\.path\b|\baddsitedir\b|^ *from sys import .*\bpath\b", re.MULTILINE)
    for path in python_files(*FOLDERS):
        assert not edits.search(path.read_text()), path


def file_of(name: str) -> str | None:
    """Return the project's file that an imported name leads to, or None for other people's."""
    if name.rpartition(".")[0] == "mamba_speech":
        name = mamba_speech._HOMES.get(name.rpartition(".")[2], name)
    parts = name.split(".")
    if parts[0] not in FOLDERS:
        return None
    for end in range(len(parts), 0, -1):
        place = "/".join(parts[:end])
        for file in (f"{place}.py", f"{place}/__init__.py"):
            if (ROOT / file).is_file():
                return file
    return f"{parts[0]}/__init__.py"


def refused(path: str, names) -> list[str]:
    """Return the files of the project that a file names, or the files beside it do, and should not."""
    rules = [allowed for place, allowed in RULES.items() if lies_in(path, place)]
    assert len(rules) == 1, f"{path} has {len(rules)} rows of the table in CONTRIBUTING.md"
    files = {file_of(name) for name in names} - {None}
    return sorted(file for file in files if not any(lies_in(file, place) for place in rules[0]))


def wrong_imports(path: str, code: str) -> list[str]:
    """Return the files of the project that code of a file imports and should not."""
    return refused(path, imported_names(code, Path(path).parent.parts))


@pytest.mark.parametrize("folder", [one for one in FOLDERS if one != "tests"])
def test_imports_are_those_that_the_table_in_contributing_allows(folder):
    for path in python_files(folder):
        relative = path.relative_to(ROOT).as_posix()
        assert wrong_imports(relative, path.read_text()) == [], path


def test_the_yaml_files_name_what_their_recipes_may_import():
    for path in sorted((ROOT / "hparams").rglob("*.yaml")):
        names = re.findall(r"!(?:new|name|apply|module):([\w.]+)", path.read_text())
        recipe = "/".join(("recipes", *path.relative_to(ROOT / "hparams").parts[:2], path.name))
        assert names and refused(recipe, names) == [], path


def test_no_test_imports_another_test_file():
    for path in python_files("tests"):
        names = imported_names(path.read_text(), path.relative_to(ROOT).parent.parts)
        ours = {".".join(name.split(".")[:2]) for name in names if name.startswith("tests.")}
        assert ours <= {"tests.support"}, path


def test_the_table_has_the_tasks_and_the_packages_that_there_are():
    for package in ("mamba_speech", "modules"):
        folders = {
            path.name for path in (ROOT / package).iterdir() if (path / "__init__.py").exists()
        }
        shared = {"audio", "commands", "evaluation", "export", "lists", "serving", "ssm"}
        assert folders - shared == set(TASKS)
    for place in {place for rule in RULES.values() for place in rule}:
        if "CORPUS" not in place:
            assert (ROOT / place.removesuffix("/*.py")).exists(), place


@pytest.mark.parametrize(
    "file, code",
    [
        ("modules/ssm/masking.py", "from .. import lengths"),
        ("modules/lengths.py", "from .asr.ctc import CTCRecognizer"),
        ("modules/lengths.py", "def late(): import mamba_speech.files"),
        ("modules/kws/features.py", "import modules.asr.ctc as ctc"),
        ("mamba_speech/run.py", "from mamba_speech import Recognizer"),
        ("mamba_speech/run.py", "from mamba_speech import *"),
        ("mamba_speech/cli.py", "from mamba_speech.kws import spot"),
        ("mamba_speech/separation/separate.py", "import mamba_speech; mamba_speech.Recognizer"),
        ("mamba_speech/separation/separate.py", "importlib.import_module('modules.asr.ctc')"),
        ("mamba_speech/separation/separate.py", "import training.brain"),
        ("mamba_speech/evaluation/wer.py", "from modules.asr import ctc"),
        ("data_prep/manifest.py", "from mamba_speech import run"),
        ("data_prep/manifest.py", "from training import options"),
        ("training/brain.py", "from mamba_speech.asr.decoders import CTCDecoder"),
        ("training/brain.py", "import data_prep.manifest"),
        ("recipes/LibriSpeech/ASR/train_CTC.py", "from modules.kws import features"),
        ("recipes/LibriSpeech/ASR/train_CTC.py", "from examples import demo"),
        ("benchmarks/scan.py", "from recipes.LibriSpeech.ASR import train_CTC"),
        ("benchmarks/scan.py", "from tests.support import golden"),
        ("examples/demo.py", "from benchmarks import scan"),
        ("docs/figures/architecture.py", "import examples.demo"),
        ("examples/demo.py", "import docs.figures.architecture"),
    ],
)
def test_the_rules_refuse_what_they_should(file, code):
    assert (ROOT / file).exists()
    assert wrong_imports(file, code) != []


def test_every_hyperparameter_file_is_reached_through_a_recipe():
    links = [path for path in (ROOT / "recipes").rglob("hparams") if path.is_symlink()]
    for link in links:
        assert link.is_dir(), f"{link} points nowhere"
    reached = {path.resolve() for link in links for path in link.resolve().rglob("*.yaml")}
    for path in (ROOT / "hparams").rglob("*.yaml"):
        assert path.resolve() in reached, f"no recipe links to {path}"


@pytest.mark.parametrize("name", [module_name(path) for path in python_files(*PACKAGES)])
def test_the_examples_in_docstrings_give_what_they_show(name):
    if name.endswith("__main__"):
        module_file = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        assert ">>>" not in module_file.read_text(), "a script cannot hold examples"
        return
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    outcome = doctest.testmod(importlib.import_module(name), optionflags=options)
    assert outcome.failed == 0, f"{outcome.failed} examples of {name} fail, shown above"


DATA_TESTS = """
import pytest

@pytest.mark.data("corpus")
def test_marked():
    pass

def test_fixture(data):
    assert data("corpus").is_dir()

@pytest.mark.data("corpus")
@pytest.mark.skipif(True, reason="switched off")
def test_skipped():
    pass
"""


@pytest.fixture
def run_data_tests(pytester, monkeypatch):
    """A function that runs `DATA_TESTS` under the project's conftest.py; it gives what pytest printed."""
    pytester.makepyfile(test_data=DATA_TESTS)
    pytester.makeini("[pytest]\nmarkers =\n    data(*names)\n    gpu\n    exhaustive\n")
    shutil.copy(ROOT / "tests" / "conftest.py", pytester.path)

    def run(speech: Path | None) -> str:
        monkeypatch.setenv("SPEECH_DATA", str(speech or ""))
        return pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider").stdout.str()

    return run


def test_without_real_speech_its_tests_skip_and_the_reasons_are_counted(run_data_tests):
    printed = run_data_tests(None)
    assert "3 skipped" in printed and "failed" not in printed
    assert re.search(r"^ +2  corpus: SPEECH_DATA is not set$", printed, re.MULTILINE)
    assert re.search(r"^ +1  switched off$", printed, re.MULTILINE)


def test_where_real_speech_is_a_skipped_test_of_it_fails(run_data_tests, tmp_path):
    speech = tmp_path / "speech"
    speech.mkdir()
    # pytest calls a failure before the body of a test an error.
    assert "1 failed, 2 errors" in run_data_tests(speech)
    (speech / "corpus").mkdir()
    printed = run_data_tests(speech)
    assert "2 passed, 1 error" in printed
    assert "test_skipped was skipped although" in printed

"""The project's documents: no dead link, no picture or option that is not there, no gap, no code that fails."""

import ast
import functools
import importlib
import re
import runpy
from pathlib import Path

import pytest

from tests.support.options import script_options
from training.aliases import ALIASES, PARTS
from training.options import RUN_OPTIONS, read_keys

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {".venv", ".git", ".pytest_cache", "results", "build"}
DOCUMENTS = sorted(
    path for path in ROOT.rglob("*.md") if not SKIPPED & set(path.relative_to(ROOT).parts)
)
# pages whose code needs no trained run
RUNNABLE = ("docs/scan.md", "docs/separation.md")
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_local_link_leads_somewhere(document):
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_placeholder_is_left(document):
    assert not re.search(r"\b[A-Z]+_(OUTPUT|MINUTES|HERE)\b", document.read_text(encoding="utf-8"))


OPTION = re.compile(r"(?<![\w-])--([A-Za-z][\w-]*)")
# a training: its script, the YAML, and the rest of the command
TRAINING = re.compile(r"(train\w*\.py) (hparams/[\w/]+\.yaml)([^`\n]*)")
# options of other programs that documents show
PIP = {"force-reinstall", "index-url", "no-build-isolation", "no-cache-dir", "no-deps"}
# of the published commands that docs/coming_from.md translates
PUBLISHED = {"config", "dataset_path", "model-path", "nproc_per_node"}
FOREIGN = (
    PIP
    | PUBLISHED
    | {"build", "build-arg", "nproc-per-node", "master-port", "standalone", "shm-size", "help"}
)
# in `--key value`, which stands for any
ANY = {"key"}


def yaml_options(path):
    """Options of a YAML: its keys, their published names, and SpeechBrain's run options."""
    keys = read_keys(path).keys()
    aliases = ALIASES | {part: alias for part, (alias, _) in PARTS.items()}
    # --resume is no key of a YAML
    others = RUN_OPTIONS | {"resume"}
    return keys | {one for one, alias in aliases.items() if alias.option in keys} | others


@functools.cache
def known_options():
    """Every option of the project: of its YAML files, SpeechBrain's, and of its own parsers."""
    yamls = (ROOT / "hparams").rglob("*.yaml")
    return set().union(*map(yaml_options, yamls)) | script_options()


# the change log tells of options that were
CURRENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]


@pytest.mark.parametrize("document", CURRENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_that_a_document_names_exists(document):
    named = set(OPTION.findall(document.read_text(encoding="utf-8")))
    assert named - known_options() - FOREIGN - ANY == set()


@pytest.mark.parametrize("document", CURRENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_training_that_a_document_shows_has_its_yaml_and_its_options(document):
    text = re.sub(r"\\\n\s*", " ", document.read_text(encoding="utf-8"))
    for script, yaml, rest in TRAINING.findall(text):
        # a command is for the recipe's folder, or for the project's
        folders = [ROOT, *(path.parent for path in (ROOT / "recipes").rglob(script))]
        found = [folder / yaml for folder in folders if (folder / yaml).is_file()]
        assert found or script == "train_wsj0mix.py", f"{script} {yaml}"
        for path in found:
            assert set(OPTION.findall(rest)) <= yaml_options(path) | FOREIGN, f"{yaml}{rest}"


@pytest.mark.parametrize("page", RUNNABLE)
def test_the_documented_code_of_the_networks_runs(page, tmp_path):
    blocks = PYTHON.findall((ROOT / page).read_text(encoding="utf-8"))
    assert blocks
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    runpy.run_path(str(script))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documented_code_imports_names_that_exist(document):
    for block in PYTHON.findall(document.read_text(encoding="utf-8")):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}.{alias.name}"

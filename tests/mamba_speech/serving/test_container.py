"""The files of the container say what is there: paths, commands and settings."""

import json
import re

import yaml

from mamba_speech.cli import COMMANDS
from mamba_speech.serving.settings import Settings
from tests.support.recipes import ROOT

KNOWN = ("FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE")
KNOWN += ("HEALTHCHECK", "CMD")


def instructions():
    """Pairs of an instruction of the Dockerfile and its arguments, on one line."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [line.split(None, 1) for line in lines if line.strip()]


def test_the_dockerfile_copies_what_is_there_and_runs_the_service_as_nobody_special():
    found = instructions()
    assert {name for name, _ in found} <= set(KNOWN) and found[0][0] == "FROM"
    for name, rest in found:
        if name == "COPY":
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources)
    assert [rest for name, rest in found if name == "USER"] == ["service"]
    name, rest = found[-1]
    program, command, *_ = json.loads(rest)
    assert name == "CMD" and program == "mamba-speech" and command in COMMANDS
    (check,) = (rest for name, rest in found if name == "HEALTHCHECK")
    assert json.loads(check.partition("CMD")[2])[:2] == ["python", "-c"]


def test_the_dockerfile_installs_the_torch_that_the_project_wants():
    (line,) = (rest for _, rest in instructions() if "torchaudio" in rest)
    pins = re.findall(r"torch(?:audio)?==[\d.]+", line)
    project = (ROOT / "pyproject.toml").read_text()
    assert len(pins) == 2 and all(f'"{pin}"' in project for pin in pins)


def test_compose_mounts_what_is_there_and_sets_what_the_service_knows():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    ours, prometheus = services["mamba-speech"], services["prometheus"]
    names = {name.removeprefix("MAMBA_SPEECH_").lower() for name in ours["environment"]}
    assert names <= Settings.model_fields.keys()
    (mount,) = prometheus["volumes"]
    file = ROOT / mount.split(":")[0]
    job = yaml.safe_load(file.read_text())["scrape_configs"][0]
    assert job["static_configs"][0]["targets"] == ["mamba-speech:8000"]

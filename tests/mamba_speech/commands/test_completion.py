"""The command completion: scripts that shells run, with every command and option."""

import shutil
import subprocess

import pytest

from mamba_speech.cli import COMMANDS
from mamba_speech.commands.completion import SHELLS, completion_script


@pytest.fixture(scope="module", params=SHELLS)
def script(request):
    return request.param, completion_script(request.param)


def test_every_command_and_its_options_are_in_the_script(script):
    _, text = script
    assert all(name in text for name in COMMANDS)
    assert all(option in text for option in ("--device", "--decoding", "--window_seconds"))


def test_the_shell_takes_the_script(script, tmp_path):
    shell, text = script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(text, encoding="utf-8")
    subprocess.run([shell, "-n", tmp_path / "script"], check=True)


def test_bash_completes_a_command_and_an_option(tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    (tmp_path / "script").write_text(completion_script("bash"), encoding="utf-8")
    asked = (
        f"source {tmp_path}/script; "
        'ask() { COMP_WORDS=(mamba-speech "$@"); COMP_CWORD=$#; COMPREPLY=(); '
        "$(complete -p mamba-speech | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo \"${COMPREPLY[@]}\"; }; "
        "ask transc; ask transcribe run --devi"
    )
    done = subprocess.run(["bash", "-c", asked], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["transcribe", "--device"]

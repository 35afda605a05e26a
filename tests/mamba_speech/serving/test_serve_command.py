"""The command `mamba-speech serve` as a process: ready, asked over a socket, ended by a signal."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.support.run_folders import call
from tests.support.serving import wav


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return json.load(answer)


def post(port, path, content):
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../x"\r\n\r\n'
    body += content + b"\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.exhaustive
def test_the_process_answers_and_ends_cleanly_at_a_signal(folders, samples, tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "mamba_speech", "serve", folders["ctc"], "--port", str(port)]
    environment = os.environ | {"MAMBA_SPEECH_API_KEYS": "", "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stderr=log, env=environment)
        try:
            for _ in range(600):
                try:
                    assert get(port, "/ready") == {"status": "ok"}
                    break
                except (urllib.error.URLError, ConnectionError):
                    assert process.poll() is None
                    time.sleep(0.2)
            found = post(port, "/transcribe", wav(samples))
            assert found["model"] == "ctc" and found["text"]
            status, _, error = call(["serve", folders["ctc"], "--port", port])
            assert (
                status == 2 and f"cannot listen at 127.0.0.1:{port}: give another --port" in error
            )
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) in (0, -signal.SIGTERM, 143)
        finally:
            process.kill()
    text = (tmp_path / "log").read_text()
    assert '"path": "/transcribe", "status": 200' in text and found["text"] not in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve"], "there is no model to serve: give run folders"),
        (["serve", "nowhere"], "nowhere: holds no model that can be served"),
        (["serve", "a/run", "b/run"], "have one name: give them names in a file"),
        (["serve", "--config", "gone.yaml"], "gone.yaml: No such file"),
        (["serve", "--port", "99999"], "must be"),
    ],
)
def test_what_cannot_be_served_gets_one_sentence(arguments, said, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, _, error = call(arguments)
    assert status == 2 and said in error and "Traceback" not in error

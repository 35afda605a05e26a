"""Pushing to a hub: a server on this machine that speaks as much of the Hugging Face Hub's language as it needs."""

import base64
import hashlib
import json
import re
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
from speechbrain.inference.classifiers import EncoderClassifier

from mamba_speech.export import export_run, hub
from tests.support.run_folders import call

COMMIT = "0" * 40


class Hub(BaseHTTPRequestHandler):
    """Keeps what is pushed in ``server.repositories``, and gives it back."""

    def log_message(self, *_):
        pass

    def answer(self, value, status=200, **headers):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        if self.path.startswith("/api/whoami"):
            good = self.headers["Authorization"] == "Bearer hf_good"
            return self.answer({"name": "ada"}, 200 if good else 401)
        found = re.fullmatch(r"/(\w+/\w+)/resolve/\w+/([^?]+)(\?.*)?", self.path)
        content = self.server.repositories.get(found[1], {}).get(found[2]) if found else None
        if content is None:
            return self.answer({"error": "no such file"}, 404, **{"X-Error-Code": "EntryNotFound"})
        tag = f'"{hashlib.sha1(content).hexdigest()}"'
        return self.answer(content, 200, **{"ETag": tag, "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.server.asked = asked
            repo = f"{asked['organization']}/{asked['name']}"
            self.server.repositories.setdefault(repo, {})
            return self.answer({"url": f"http://127.0.0.1:{self.server.server_port}/{repo}"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        repo = re.match(r"/api/models/(\w+/\w+)/", self.path)[1]
        if "/preupload/" in self.path:
            if self.server.fails:
                return self.answer({"error": "the hub is on fire"}, 400)
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.server.repositories[repo][line["value"]["path"]] = content
        url = f"http://127.0.0.1:{self.server.server_port}/{repo}/commit/{COMMIT}"
        return self.answer({"commitUrl": url, "commitOid": COMMIT})


@contextmanager
def served(server):
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """The tests are offline otherwise, and so are these but for this machine."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def server(monkeypatch):
    with served(ThreadingHTTPServer(("127.0.0.1", 0), Hub)) as one:
        one.repositories, one.fails = {}, False
        endpoint = f"http://127.0.0.1:{one.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        monkeypatch.setenv("HF_TOKEN", "hf_good")
        yield one


def test_a_pushed_folder_is_the_one_on_disk_and_loads_from_the_hub(
    server, runs, tmp_path, monkeypatch
):
    folder = tmp_path / "exported"
    arguments = ["export", runs["keywords"], folder, "--push_to_hub", "ada/words", "--private"]
    status, out, err = call(arguments)
    assert status == 0, err
    assert out.splitlines()[1].endswith("/ada/words") and server.asked["visibility"] == "private"
    pushed = server.repositories["ada/words"]
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name: one for name, one in pushed.items() if name != ".gitattributes"} == written
    # it loads without the folder
    folder.rename(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    template = f"{huggingface_hub.constants.ENDPOINT}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    loaded = EncoderClassifier.from_hparams("ada/words", savedir=str(tmp_path / "loaded"))
    assert loaded.hparams.label_encoder.expect_len(3) is None


@pytest.mark.parametrize("repo", ["a/b/c", "with space", "ada/../x"])
def test_what_is_no_name_of_a_repository_is_refused(repo, server, runs, tmp_path):
    status, _, err = call(["export", runs["keywords"], tmp_path / "new", "--push_to_hub", repo])
    assert status == 2 and repo in err and not (tmp_path / "new").exists()


def test_a_hub_that_refuses_or_lacks_the_token_gives_one_sentence(
    server, runs, tmp_path, monkeypatch
):
    arguments = ["export", runs["keywords"], tmp_path / "new", "--push_to_hub", "ada/words"]
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    status, _, err = call(arguments)
    assert status == 2 and err.count("\n") == 1
    assert f"ada/words: {huggingface_hub.constants.ENDPOINT} refuses the token" in err
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    status, _, err = call(arguments)
    assert status == 2 and "there is no token of the Hugging Face Hub: run `hf auth login`" in err
    assert not any(tmp_path.iterdir())


def test_a_hub_that_does_not_answer_gives_one_sentence_and_nothing_is_written(
    runs, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    monkeypatch.setattr(hub, "PATIENCE", 0.2)
    # one port refuses connections, the other takes them and is silent
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            ports = [closed.getsockname()[1]]
        for port in (*ports, silent.getsockname()[1]):
            endpoint = f"http://127.0.0.1:{port}"
            monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
            arguments = ["export", runs["keywords"], tmp_path / "new", "--push_to_hub", "a/b"]
            status, _, err = call(arguments)
            assert status == 2 and err.count("\n") == 1
            assert f"a/b: {endpoint} does not answer" in err
    assert not any(tmp_path.iterdir())


def test_a_hub_that_fails_late_leaves_the_folder_and_says_how_to_push_it(server, runs, tmp_path):
    server.fails = True
    with pytest.raises(OSError, match="hf upload ada/words") as error:
        export_run(runs["keywords"], tmp_path / "new", push_to_hub="ada/words")
    assert "\n" not in str(error.value)
    assert (tmp_path / "new" / "model.safetensors").is_file()

"""Where results come from: the hash of a list, the commit of the code."""

import hashlib
import json
import subprocess

import pytest

from mamba_speech.asr.tokenizer import Tokenizer
from training.provenance import find_commit, git_environment, hash_list


def test_a_list_is_known_by_what_it_says_and_not_by_where_it_lies(tmp_path):
    def manifest(name, wav, text="yes"):
        path = tmp_path / name
        path.write_text(f"ID,mix_wav,wav,wrd\n1,{wav}/1.wav,{wav}/1.wav,{text}\n")
        return hash_list(path)

    assert (
        manifest("a.csv", "here") == manifest("b.csv", "there") != manifest("c.csv", "here", "no")
    )
    rows = [{"ID": "1", "mix_wav": "", "wav": "", "wrd": "yes"}]
    assert manifest("d.csv", "") == hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    texts = ["one two three four", "five six seven"]
    models = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        models.append(tmp_path / name / "tokenizer.model")
        Tokenizer.train(texts, models[-1], "char", 40)
    assert models[0].read_bytes() != models[1].read_bytes()
    assert hash_list(models[0]) == hash_list(models[1])
    Tokenizer.train([*texts, "eight"], models[0], "char", 40)
    assert hash_list(models[0]) != hash_list(models[1])


def test_the_commit_is_told_with_whether_tracked_files_differ_and_never_an_error(
    tmp_path, monkeypatch
):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *identity, *arguments]
        options = {"cwd": tmp_path, "env": git_environment(), "capture_output": True}
        return subprocess.run(command, check=True, text=True, **options)

    find = find_commit.__wrapped__
    assert find(tmp_path) is None
    git("init", "-q")
    assert find(tmp_path) is None
    (tmp_path / "code.py").write_text("1")
    git("add", "code.py"), git("commit", "-qm", "first")
    (tmp_path / "untracked").write_text("1")
    sha = git("rev-parse", "HEAD").stdout.strip()
    assert find(tmp_path) == (sha, False)
    (tmp_path / "code.py").write_text("2")
    assert find(tmp_path) == (sha, True)
    # as a hook of another repository would set it
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))
    assert find(tmp_path) == (sha, True)
    monkeypatch.setenv("PATH", "")
    assert find(tmp_path) is None
    monkeypatch.setattr(subprocess, "run", lambda *a, **o: pytest.fail("a process was started"))
    assert find(tmp_path / "nowhere") is None

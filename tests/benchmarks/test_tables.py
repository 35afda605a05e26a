"""README tables come from committed JSON."""

import json

import pytest

from tests.support.benchmarks import run


def test_every_table_of_the_project_is_what_its_json_says():
    done = run("readme_tables.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_table_is_named_and_then_written(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"model": "x", "parameters": 12345}]))
    document = tmp_path / "README.md"
    document.write_text("before\n<!-- table: a.json -->\nold\n<!-- end of table -->\nafter\n")
    stale = run("readme_tables.py", "--check", "--root", tmp_path)
    assert stale.returncode == 1 and "README.md" in stale.stdout
    assert run("readme_tables.py", "--root", tmp_path).returncode == 0
    assert "| x | 12,345 |" in document.read_text() and "after" in document.read_text()
    assert run("readme_tables.py", "--check", "--root", tmp_path).returncode == 0


@pytest.mark.parametrize("content", ["[]", '[{}, {"a": 1}]', "not json"])
def test_a_broken_json_is_named(content, tmp_path):
    (tmp_path / "a.json").write_text(content)
    (tmp_path / "README.md").write_text("<!-- table: a.json -->\n<!-- end of table -->\n")
    done = run("readme_tables.py", "--root", tmp_path)
    assert done.returncode != 0 and "a.json" in done.stderr

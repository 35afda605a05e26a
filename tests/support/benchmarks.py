"""Benchmark scripts run as a user runs them, and their tables in a document."""

import os
import subprocess
import sys

from tests.support.recipes import ROOT

FOLDER = ROOT / "benchmarks"


def run(script, *arguments):
    """Run a script in a process of its own, as a user does; gives the finished process."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, timeout=900
    )


def fill_readme(folder, names):
    """A document in the folder with the tables of these names, filled by readme_tables.py."""
    document = folder / "README.md"
    document.write_text(
        "".join(f"<!-- table: {name}.json -->\n<!-- end of table -->\n" for name in names)
    )
    done = run("readme_tables.py", "--root", folder)
    assert done.returncode == 0, done.stderr
    return document.read_text()

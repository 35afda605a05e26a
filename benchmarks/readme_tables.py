#!/usr/bin/env python3
"""Write the tables of the READMEs from committed JSON files, or check that they are up to date.

    python benchmarks/readme_tables.py [--check]

A table stands between the lines ``<!-- table: FILE.json -->`` and ``<!-- end of table -->``; the path is relative
to the document. The JSON holds a list of rows, each an object whose keys are the columns.
"""

import argparse
import os
import re
import sys
from pathlib import Path

from mamba_speech.evaluation.tables import as_markdown
from mamba_speech.files import read_json, write_text

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- table: (?P<path>\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def rewrite(document):
    """The text of a Markdown file with its tables made anew."""

    def table(match):
        path = document.parent / match["path"]
        try:
            return f"{match[1]}{as_markdown(read_json(path))}\n{match[3]}"
        except (OSError, ValueError) as error:
            raise SystemExit(f"{document}: table {match['path']}: {error}") from error

    return BLOCK.sub(table, document.read_text(encoding="utf-8"))


def documents(root):
    """Every Markdown file of the project, its environment and build folders aside."""
    skipped = {".venv", ".git", "results", "node_modules", "build"}
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in skipped]
        yield from (Path(folder) / name for name in sorted(files) if name.endswith(".md"))


def main(arguments=None):
    """Rewrite, or with ``--check`` name the documents that would change and fail."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail if a table is out of date"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="folder whose documents are read")
    options = parser.parse_args(arguments)
    stale = []
    for document in documents(options.root):
        text = rewrite(document)
        if text != document.read_text(encoding="utf-8"):
            stale.append(document)
            if not options.check:
                write_text(document, text)
    if options.check and stale:
        print(
            "out of date:",
            ", ".join(str(path) for path in stale),
            "- run python benchmarks/readme_tables.py",
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

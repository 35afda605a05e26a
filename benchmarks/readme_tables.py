#!/usr/bin/env python3
"""Write the tables of the READMEs from committed JSON files, or check that they are up to date.

    python benchmarks/readme_tables.py [--check]

A table stands between the lines ``<!-- table: FILE.json -->`` and ``<!-- end of table -->``; the path is relative
to the document. The JSON holds a list of rows, each an object whose keys are the columns.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- table: (?P<path>\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def render(rows):
    """A Markdown table of a list of rows with the same keys.

    Raises
    ------
    ValueError
        If a row has other columns than the first.
    """
    columns = list(rows[0])
    for row in rows:
        if list(row) != columns:
            raise ValueError(f"columns {list(row)} differ from the first row's, {columns}")
    lines = [columns, ["---"] * len(columns), *([_cell(row[c]) for c in columns] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cell(value):
    return f"{value:,}" if isinstance(value, int) else str(value)


def rewrite(document):
    """The text of a Markdown file with its tables made anew."""

    def table(match):
        path = document.parent / match["path"]
        try:
            return match[1] + render(json.loads(path.read_text(encoding="utf-8"))) + match[3]
        except (OSError, ValueError, IndexError) as error:
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
                document.write_text(text, encoding="utf-8")
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

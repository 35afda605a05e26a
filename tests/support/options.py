"""Options of the project's own parsers, read from the code that adds them."""

import ast
import functools
import re

from tests.support.recipes import ROOT

SPLITS = ("train", "valid", "test")


@functools.cache
def script_options():
    """Options that the project's parsers take, read from the calls that add them."""
    options = set()
    for folder in ("mamba_speech", "data_prep", "training", "recipes", "benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            source = path.read_text(encoding="utf-8")
            if "add_argument" in source:
                options |= parser_options(ast.parse(source))
    return options


def parser_options(tree):
    """Options of the parsers in a file: its texts that are --name, and f"--{split}_name" for each split."""
    options = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            options |= set(re.findall(r"^--([A-Za-z][\w-]*)$", str(node.value)))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            name = ast.unparse(node.args[0]).removeprefix("f").strip("'\"")
            if name.startswith("--"):
                options |= {name[2:].replace("{split}", split) for split in SPLITS}
                if "BooleanOptionalAction" in ast.unparse(node):
                    options.add(f"no-{name[2:]}")
    return options

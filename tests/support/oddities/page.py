"""The tables of `docs/inputs.md`, from what the tests declare: `python -m tests.support.oddities.page` writes them.

A table stands between the lines ``<!-- inputs: GROUP -->`` and ``<!-- end of inputs -->``.
"""

import re
from pathlib import Path

from tests.support.oddities import formats, lists, structured_lists, trees
from tests.support.oddities.folder import ODD
from tests.support.oddities.inputs import COMMANDS, EXACT, KEPT, READ, SAME, TRAINING, parts_of

PAGE = Path(__file__).parents[3] / "docs" / "inputs.md"
BLOCK = re.compile(r"(<!-- inputs: (?P<group>[^\n]+) -->\n).*?(<!-- end of inputs -->)", re.DOTALL)
LISTS = (*lists.ODD, *structured_lists.ODD)
PLAIN = {SAME: "the same result", READ: "a result", KEPT: "kept"}


def new_page(text):
    """The page with its tables as they are declared.

    Raises
    ------
    ValueError
        If a group has no table, or a table no group.
    """
    made = tables()
    found = [match["group"] for match in BLOCK.finditer(text)]
    if sorted(found) != sorted(made):
        raise ValueError(
            f"tables without a group, or groups without a table: {set(found) ^ set(made)}"
        )
    return BLOCK.sub(lambda match: f"{match[1]}{made[match['group']]}{match[3]}", text)


def tables():
    """Text of each group's table."""
    made = {"Formats": format_table()}
    written = {f"{form} files" for form in (*formats.SOUND_FILES, "WVE")}
    for group in dict.fromkeys(odd.group for odd in ODD):
        if group not in written:
            made[group] = recordings_table(odd for odd in ODD if odd.group == group)
    for group in dict.fromkeys(odd.group for odd in LISTS):
        made[group] = lists_table(odd for odd in LISTS if odd.group == group)
    made[trees.GROUP] = trees_table()
    return made


def format_table():
    """Each format of libsndfile: what keeps all samples, and what loses some."""
    rows = []
    for form, (ending, subtypes) in formats.SOUND_FILES.items():
        exact = [one for one in subtypes.split() if form not in formats.RATE_LOST]
        exact = [one for one in exact if formats.LIKENESS.get(one, EXACT) == EXACT]
        lossy = [one for one in subtypes.split() if one not in exact]
        rows.append((form, f"`.{ending}`", ", ".join(exact), ", ".join(lossy)))
    rows.append(("WVE", "`.wve`", "", "ALAW"))
    return _table(("format", "ending", "the same samples", "nearly the same"), rows)


def recordings_table(group):
    """What becomes of recordings, one row an outcome."""
    merged = {}
    for odd in group:
        merged.setdefault((_commands(odd), _said(odd.outcome(TRAINING))), []).append(odd.name)
    rows = [("; ".join(map(_cell, names)), *outcome) for outcome, names in merged.items()]
    return _table(("input", "commands", "preparation and training"), rows)


def lists_table(group):
    """What becomes of lists, one row an outcome."""
    merged = {}
    for odd in group:
        if odd.refused:
            # a command needs no texts
            also = f"; commands give {odd.results} results" if odd.results else ""
            outcome = f"refused: “... {odd.refused} ...”{also}"
        elif odd.faults:
            outcome = f"the row is left out: “... {'; '.join(odd.faults)} ...”"
        else:
            outcome = "read"
        merged.setdefault(outcome, []).append(odd.name)
    rows = [("; ".join(map(_cell, names)), _cell(outcome)) for outcome, names in merged.items()]
    return _table(("list", "what happens"), rows)


def trees_table():
    """What is found in folders."""
    rows = []
    for odd in trees.ODD:
        said = f"{len(odd.found)} read"
        said = f"error: “... {odd.refused} ...”" if odd.refused else said
        said += f", {len(odd.broken)} errors" if odd.broken else ""
        said += f"; one warning: “passed over: {odd.passed} ...”" if odd.passed else ""
        rows.append((odd.name, said))
    return _table(("folder", "recordings"), rows)


def _commands(odd):
    usual = _said(odd.commands)
    others = [(name, odd.outcome(name)) for name in COMMANDS if odd.outcome(name) != odd.commands]
    return "; ".join([usual, *(f"`{name}`: {_said(outcome)}" for name, outcome in others)])


def _said(outcome):
    kind, words, warnings = parts_of(outcome)
    if kind == "error":
        return f"error: “... {words} ...”" if words else "error"
    if kind == "skipped":
        return f"left out: “... {words} ...”" if words else "left out"
    warned = "".join(f", warning `{one}`" for one in sorted(warnings))
    return f"{PLAIN[kind]}{warned}"


def _cell(text):
    return re.sub(r"([|\\*_<>$\[\]])", r"\\\1", text)


def _table(names, rows):
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(new_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

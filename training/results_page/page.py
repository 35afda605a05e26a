"""RESULTS.md from the rows of ``docs/measured``: a section a recipe, a table of its rows, and the commands of each."""

import re
import shlex

from mamba_speech.evaluation.tables import as_markdown
from mamba_speech.files import read_json
from training.results_page.entries import FOLDER, PAGE, ROOT, STAGES, repeat_interval
from training.results_page.published import published_table

WIDTH = 100
STAGE_TITLES = {"data": "data", "train": "training", "test": "test"}
# in other documents
BLOCK = re.compile(
    r"(<!-- results: (?P<rows>[a-z0-9 -]+) -->\n).*?(<!-- end of results -->)", re.DOTALL
)


def make_page(entries, folder=FOLDER, root=ROOT):
    """The text of RESULTS.md.

    Arguments
    ---------
    entries : dict of str: Entry
    folder : Path
        Holds ``page.json``, the texts of the page.
    root : Path

    Returns
    -------
    str

    Raises
    ------
    OSError or ValueError
        If a text or a file that it names is missing, or an entry is of no section.
    """
    page = read_json(folder / PAGE)
    known = [section["id"] for section in page["sections"]]
    for entry in entries.values():
        if entry.section not in known:
            raise ValueError(
                f"{folder / entry.name}.json: section is {entry.section!r}, and must be one of "
                f"{', '.join(known)}"
            )
    parts = ["# Results", *page["introduction"]]
    for section in page["sections"]:
        own = sorted(
            (one for one in entries.values() if one.section == section["id"]), key=_best_first
        )
        if own or "published" in section:
            parts += _section(section, own, root)
    return "\n\n".join(parts) + "\n"


def _best_first(entry):
    """Rows that can be compared stand together, the best foremost."""
    figure = entry.figure if entry.better == "lower" else -entry.figure
    return entry.metric, entry.tested_on, entry.trained_on, figure, entry.name


def _section(section, own, root):
    parts = [f"## {section['title']}", section["text"]]
    if own:
        parts.append(as_markdown([row_of(entry) for entry in own]))
        parts += [_details(entry) for entry in own]
    if "published" in section:
        places = [root / place for place in section["published"]]
        parts += [section["published_text"], as_markdown(published_table(*places))]
        parts += [section["published_note"]]
    return parts


def row_of(entry):
    """A row of a section's table."""
    return {
        "row": f"[{entry.name}](#{entry.name})",
        "model": entry.model,
        "parameters": "" if entry.parameters is None else entry.parameters,
        "trained on": entry.trained_on,
        "tested on": entry.tested_on,
        f"{entry.metric}": figure_of(entry),
        "a repeat gives": _repeat_cell(entry),
        "seeds": ", ".join(map(str, entry.seeds)),
        "hardware": entry.hardware or "not recorded",
        "date": entry.date or "",
        "commit": short_commit(entry),
    }


def figure_of(entry):
    """A figure with its unit and its interval over test items."""
    if entry.interval is None:
        return entry.measured
    low, high = map(entry.shown, entry.interval)
    return f"{entry.measured} ({low} to {high})"


def _repeat_cell(entry):
    interval = repeat_interval(entry) if entry.minutes is not None else None
    if interval is None:
        return ""
    return f"{entry.shown(interval[0])} to {entry.shown(interval[1])}"


def _details(entry):
    """The commands of a row, and what else is known about it."""
    lines = [f"### {entry.name}", ""]
    lines += [f"- {fact}" for fact in _facts(entry)]
    if entry.lines:
        lines += ["", "```bash"]
        for stage in STAGES:
            own = entry.commands.get(stage, ())
            if own:
                lines += [f"# {STAGE_TITLES[stage]}", *map(wrapped, own)]
        lines += ["```"]
    return "\n".join(lines)


def _facts(entry):
    facts = []
    if entry.by_seed and len(entry.by_seed) > 1:
        seeds = (f"{value:.2f}" for value in entry.by_seed)
        facts.append(f"{entry.metric} of each seed: {', '.join(seeds)}.")
    elif entry.deviation is not None:
        facts.append(f"Standard deviation of the seeds: {entry.deviation:.2f}.")
    if entry.interval is not None:
        facts.append(f"The interval in brackets is over {entry.drawn}.")
    if entry.others:
        others = (f"{name} {_short(value)}" for name, value in entry.others.items())
        facts.append(f"Also measured: {', '.join(others)}.")
    facts.append(_origin(entry))
    if entry.minutes is not None:
        interval = repeat_interval(entry)
        origin = "the seeds" if interval[2] == "seeds" else "the test items"
        facts.append(
            f"`make results {entry.name}` repeats it in about {minutes_of(entry.minutes)}. Its interval comes from "
            f"{origin}."
        )
    if entry.needs:
        facts.append(f"Needs {', '.join(f'`{one}`' for one in entry.needs)}.")
    if entry.note:
        facts.append(entry.note)
    return list(filter(None, facts))


def _origin(entry):
    took = entry.training_minutes
    parts = [f"Training took {minutes_of(took)}"] if took else []
    parts += [f"fidelity `{entry.fidelity}`"] if entry.fidelity else []
    text = "; ".join(parts) + "."
    return text[:1].upper() + text[1:] if parts else ""


def short_commit(entry):
    """A commit's first digits, and what is said of it; a star where it is not the run's own."""
    commit = (entry.commit or "not recorded").replace(", which brought the figure in", " *")
    return re.sub(r"\b([0-9a-f]{9})[0-9a-f]{31}\b", r"`\1`", commit)


def _short(value):
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def minutes_of(minutes):
    """A time in words.

    Example
    -------
    >>> minutes_of(0.5), minutes_of(18.6), minutes_of(135)
    ('30 s', '19 min', '2.2 h')
    """
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def wrapped(line, width=WIDTH):
    """A command of several lines, each short enough; a shell reads it as one.

    Example
    -------
    >>> print(wrapped("python train.py a.yaml --data_folder D --seed 1", width=34))
    python train.py a.yaml \\
        --data_folder D --seed 1
    """
    words = _words(line)
    lines, current = [], ""
    for word in words:
        if current and len(current) + 1 + len(word) > width - 2:
            lines.append(current)
            current = f"    {word}"
        else:
            current = f"{current} {word}".strip() if not lines else f"{current} {word}"
    return " \\\n".join([*lines, current])


def _words(line):
    """Pieces of a command that stay on one line: an option with its value, a quoted text."""
    lexer = shlex.shlex(line, posix=False, punctuation_chars="&|;<>")
    lexer.whitespace_split, lexer.commenters = True, ""
    pieces = []
    for word in lexer:
        follows = pieces and pieces[-1].startswith("-") and " " not in pieces[-1]
        if follows and not word.startswith("-"):
            pieces[-1] = f"{pieces[-1]} {word}"
        else:
            pieces.append(word)
    return pieces


def rewrite(text, entries, folder=FOLDER):
    """A document with its blocks ``<!-- results: NAMES -->`` made anew.

    Arguments
    ---------
    text : str
    entries : dict of str: Entry
    folder : Path

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If a block names no row.
    """
    headline = read_json(folder / PAGE)["headline"]

    def block(match):
        names = match["rows"].split()
        names = headline if names == ["headline"] else names
        for name in names:
            if name not in entries:
                raise ValueError(f"results: {name}: there is no such row in {folder}")
        rows = [_headline_row(entries[name]) for name in names]
        return f"{match[1]}{as_markdown(rows)}\n{match[3]}"

    return BLOCK.sub(block, text)


def _headline_row(entry):
    return {
        "model": entry.model,
        "trained on": entry.trained_on,
        "tested on": entry.tested_on,
        "result": f"{entry.metric} {figure_of(entry)}",
        "repeat": f"`make results {entry.name}`" if entry.minutes is not None else "",
    }

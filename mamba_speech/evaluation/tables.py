"""Tables of figures: aligned text for the terminal, and Markdown.

Whole numbers are written with a comma every three digits.
"""


def as_text(table):
    """Rows as text with aligned columns, the names of the columns first; columns of numbers stand to the right.

    Arguments
    ---------
    table : list of dict
        At least one row; all have the same keys.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there is no row, or one with other keys than the first.

    Example
    -------
    >>> print(as_text([{"system": "small", "WER %": 9.5}, {"system": "large", "WER %": 10}]))
    system  WER %
    small     9.5
    large      10
    """
    columns = []
    for name, *cells in zip(*_lines(table), strict=True):
        width = max(len(name), *map(len, cells))
        # a word, or nothing, for a figure that is missing
        numbers = all(cell[:1] in "0123456789+-." for cell in cells)
        columns.append(
            [cell.rjust(width) if numbers else cell.ljust(width) for cell in (name, *cells)]
        )
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def as_markdown(table):
    """Rows as a table of Markdown; arguments and errors as :func:`as_text` has them.

    Example
    -------
    >>> print(as_markdown([{"system": "small", "parameters": 12345}]))
    | system | parameters |
    | --- | --- |
    | small | 12,345 |
    """
    names, *rows = ([cell.replace("|", "\\|") for cell in line] for line in _lines(table))
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _lines(table):
    """Names of the columns, then the cells of every row, as text."""
    if not table:
        raise ValueError("a table needs at least one row")
    names = list(table[0])
    for row in table:
        if list(row) != names:
            raise ValueError(f"columns {list(row)} differ from the first row's, {names}")
    return [names, *([_cell(value) for value in row.values()] for row in table)]


def _cell(value):
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)

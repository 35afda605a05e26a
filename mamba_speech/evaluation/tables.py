"""Tables of figures: aligned text for the terminal, and Markdown."""


def as_text(table):
    """Rows as text with aligned columns, the names of the columns first.

    Arguments
    ---------
    table : list of dict
        At least one row; all have the same keys.

    Returns
    -------
    str

    Example
    -------
    >>> print(as_text([{"system": "small", "WER %": 9.5}, {"system": "large", "WER %": 10}]))
    system  WER %
    small   9.5
    large   10
    """
    lines = [list(table[0]), *([str(value) for value in row.values()] for row in table)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def as_markdown(table):
    """Rows as a table of markdown.

    Arguments
    ---------
    table : list of dict
        At least one row; all have the same keys.

    Returns
    -------
    str

    Example
    -------
    >>> print(as_markdown([{"system": "small", "WER %": 9.5}]))
    | system | WER % |
    | --- | --- |
    | small | 9.5 |
    """
    lines = [list(table[0]), ["---"] * len(table[0])]
    lines += [[str(value).replace("|", "\\|") for value in row.values()] for row in table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

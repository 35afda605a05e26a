"""Reading the tables that a test writes with one row an item: an utterance, a clip or a mixture."""

from pathlib import Path

from mamba_speech.files import read_csv


def read_items(path, columns, parse, item, not_items=()):
    """Read a CSV table with one row an item.

    Arguments
    ---------
    path : str or Path
    columns : sequence of str
        Columns that the table must have. The first holds the item's name.
    parse : callable
        From a row, a dict of str by column, to the item. It raises ``ValueError`` where the row is none.
    item : str
        An item's kind, for messages.
    not_items : sequence of str
        Names of rows that are no items, such as a mean.

    Returns
    -------
    dict of str: object
        What ``parse`` gives, by the item's name, in the order of the rows.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not such a table, is empty, or names an item twice.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; the test of the training script writes it")
    found = {}
    heading, rows = read_csv(path)
    if not set(columns) <= set(heading):
        raise ValueError(f"{path}: the first line must be {','.join(columns)}")
    for line, row in rows:
        try:
            name = row[columns[0]]
            if name in not_items:
                continue
            value = parse(row)
        except ValueError as error:
            cells = ",".join(row.values())
            raise ValueError(f"{path}, line {line}: is no {item}: {cells}") from error
        if name in found:
            raise ValueError(f"{path}: {name} stands there twice")
        found[name] = value
    if not found:
        raise ValueError(f"{path}: holds no {item}")
    return found

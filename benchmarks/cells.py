"""What stands in the cells of the benchmarks' tables: figures with their unit's digits, and whether a goal is met."""


def number(value, digits=2):
    """A figure with so many digits behind the point, ``-`` for a missing one."""
    return "-" if value is None else f"{value:.{digits}f}"


def milliseconds(seconds):
    """Seconds as milliseconds."""
    return "-" if seconds is None else f"{1e3 * seconds:.1f}"


def megabytes(size):
    """Bytes as millions of bytes."""
    return "-" if size is None else f"{size / 1e6:.0f}"


def ratio(values, over, under):
    """The ratio of two measurements by name, ``None`` where one was not made."""
    if values.get(over) is None or not values.get(under):
        return None
    return values[over] / values[under]


def verdict(value, limit, way):
    """A goal, and whether a figure meets it.

    Arguments
    ---------
    value : float or None
        None if it was not measured.
    limit : float or None
        None if there is no goal.
    way : str
        ``at least`` or ``at most``.

    Example
    -------
    >>> verdict(4.2, 5, "at least")
    'at least 5: missed'
    """
    if limit is None:
        return "-"
    goal = f"{way} {limit:g}"
    if value is None:
        return goal
    reached = value >= limit if way == "at least" else value <= limit
    return f"{goal}: {'met' if reached else 'missed'}"


def yes_or_no(reached):
    """Whether a goal of the table's own column is met."""
    return "yes" if reached else "no"


def conditions_table(result):
    """The machine and what else kept it busy, in one row."""
    run = result["machine"]
    return [
        {
            "processor": run["processor"],
            "cores": run["cores"],
            "threads": run["threads"],
            "cores used by others": str(result["cores_used_by_others_during"]),
            "torch": run["torch"],
            "date": run["date"],
            "command": f"`{run['command']}`",
        }
    ]

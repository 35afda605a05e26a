"""Published figures of LibriSpeech 960 h beside a reproduction by others. Nothing in it was measured here."""

from mamba_speech.files import read_json


def published_table(published, independent):
    """Rows of the table.

    Arguments
    ---------
    published : Path
        ``rows`` of the published table: ``name``, ``model``, ``decoder``, ``parameters_millions``, and the pairs
        ``no_lm`` and ``with_lm`` of test-clean and test-other.
    independent : Path
        ``rows`` of the reproduction: ``model``, which is a name of the published rows, ``no_lm`` and ``with_lm``.

    Returns
    -------
    list of dict

    Raises
    ------
    OSError or ValueError
        If a file is missing, or the reproduction names an unknown model.
    """
    theirs = {row["model"]: row for row in read_json(independent)["rows"]}
    rows = read_json(published)["rows"]
    unknown = theirs.keys() - {row["name"] for row in rows}
    if unknown:
        raise ValueError(f"{independent}: {min(unknown)} is not in {published}")
    return [_row(row, theirs.get(row["name"], {})) for row in rows]


def _row(row, other):
    return {
        "model": row["model"],
        "decoder": row["decoder"] or "",
        "parameters": f"{row['parameters_millions']} M",
        "published": _pair(row["no_lm"]),
        "reproduced": _pair(other.get("no_lm")),
        "published, with TransformerLM": _pair(row["with_lm"]),
        "reproduced, with TransformerLM": _pair(other.get("with_lm")),
    }


def _pair(pair):
    return "" if pair is None else " / ".join(map(str, pair))

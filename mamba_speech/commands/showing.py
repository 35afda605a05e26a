"""Facts as people read them: a name and a value a line, or one JSON object."""

from mamba_speech.audio.names import plain
from mamba_speech.printing import json_line

# letters of a list or dict on one line
LONGEST = 100


def show(facts, as_json):
    """Print facts by their names.

    Arguments
    ---------
    facts : dict
        Texts, numbers, and lists and dicts of these.
    as_json : bool

    Example
    -------
    >>> show({"task": "keywords", "parameters": 12345, "words": ["yes", "no"]}, False)
    task        keywords
    parameters  12,345
    words       yes, no
    >>> show({"cite": ["Gu and Dao: Mamba"], "tests": {"test": {"WER": 9.5}}}, False)
    cite   Gu and Dao: Mamba
    tests
      test  WER 9.5
    >>> show({"task": "keywords"}, True)
    {"task": "keywords"}
    """
    if as_json:
        print(json_line(facts))
        return
    print("\n".join(fact_lines(facts)))


def fact_lines(facts, indent=""):
    """The lines of :func:`show`, each with an indent."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        text = _text(value)
        nested = isinstance(value, dict) and any(
            isinstance(one, dict | list) for one in value.values()
        )
        if not nested and (len(text) <= LONGEST or not isinstance(value, dict | list)):
            yield f"{indent}{name:{width}}  {text}".rstrip()
            continue
        yield f"{indent}{name}"
        if isinstance(value, dict):
            yield from fact_lines(value, f"{indent}  ")
        else:
            yield from (f"{indent}  {_text(one)}" for one in value)


def _text(value):
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return plain(str(value), backslashes=False)

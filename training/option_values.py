"""Values of options as they are typed: each text is read as the type of its option wants it.

A path or a name is taken as it stands. YAML would read ``2024-01-01`` as a date, ``010`` as 8, ``yes`` as true, and
would drop everything behind `` #``.
"""

import re
import types
import typing
from typing import Annotated, Literal, get_args, get_origin

import yaml

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
# length of a value in an error
LONGEST_SHOWN = 80


def shown_value(value):
    """A value for an error: on one line, and not too long."""
    text = value if isinstance(value, str) else repr(value)
    if not text.isprintable():
        text = repr(text)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def branches(kind):
    """The types of a union, each as the bare type and its constraints.

    Example
    -------
    >>> [bare.__name__ for bare, marks in branches(int | None)]
    ['int', 'NoneType']
    """
    if get_origin(kind) is Annotated:
        inner, *own = get_args(kind)
        marks = [mark for one in own for mark in getattr(one, "metadata", None) or [one]]
        return [(bare, [*before, *marks]) for bare, before in branches(inner)]
    if get_origin(kind) in (typing.Union, types.UnionType):
        return [pair for one in get_args(kind) for pair in branches(one)]
    return [(kind, [])]


def read_text(kinds, text, fits):
    """The first reading of a text that is a value of one of several types.

    Arguments
    ---------
    kinds : list of (type, list)
        Types and their constraints; see :func:`branches`.
    text : str
    fits : callable
        Function of a type and a value that says whether the value is of the type.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If the text is no value of any of the types.
    """
    # a file may be called null: with a path or a text among the types, only an empty value is none at all
    nothing = ("",) if any(bare is str for bare, _ in kinds) else ("", "null", "None")
    for bare, marks in sorted(kinds, key=lambda pair: _priority(pair[0])):
        try:
            value = _read_nothing(text, nothing) if bare is type(None) else _read(bare, text, fits)
        except ValueError:
            continue
        if fits(Annotated[(bare, *marks)] if marks else bare, value):
            return value
    raise ValueError(text)


def _priority(bare):
    """Named values win over numbers, numbers over lists, and lists over free texts."""
    if get_origin(bare) is Literal:
        return 0
    order = (type(None), bool, int, float, list, dict)
    plain = get_origin(bare) or bare
    return 1 + order.index(plain) if plain in order else 1 + len(order)


def _read(bare, text, fits):
    if get_origin(bare) is Literal:
        return _read_named(text, get_args(bare))
    if get_origin(bare) is list:
        kinds = branches(get_args(bare)[0])
        return [read_text(kinds, one, fits) for one in split_items(text)]
    readers = {bool: read_switch, int: _read_whole, float: _read_number, str: str}
    return readers.get(bare, _read_yaml)(text)


def _read_nothing(text, words):
    if text not in words:
        raise ValueError(text)


def _read_named(text, values):
    for value in values:
        if str(value) == text:
            return value
    raise ValueError(text)


def is_switch_word(text):
    """Whether a text is one of the words that turn a switch on or off."""
    return text.lower() in TRUE + FALSE


def read_switch(text):
    """True or False, by any of the usual words.

    Raises
    ------
    ValueError
        If the text is none of these words.

    Example
    -------
    >>> read_switch("no"), read_switch("On")
    (False, True)
    """
    if not is_switch_word(text):
        raise ValueError(f"must be true or false; got {shown_value(text)}")
    return text.lower() in TRUE


def _read_whole(text):
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ValueError(text)
    return int(text)


def _read_number(text):
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        raise ValueError(text)
    return float(text)


def _read_yaml(text):
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(text) from error


def split_items(text):
    """The items of ``[a, b]`` as texts; a text without brackets is the only item.

    An item that holds a comma stands in quotes.

    Raises
    ------
    ValueError
        If a bracket or a quotation mark is not closed, or a comma is missing.

    Example
    -------
    >>> split_items("[test-clean, 2024-01-01, 'a, b #1']"), split_items("010")
    (['test-clean', '2024-01-01', 'a, b #1'], ['010'])
    """
    if not text.startswith("["):
        return [text]
    if not text.endswith("]"):
        raise ValueError(f"{text}: the bracket is not closed")
    left, items = text[1:-1].strip(), []
    while left:
        item, left = _first_item(left)
        items.append(item)
        if left and not left.startswith(","):
            raise ValueError(f"{text}: a comma is missing")
        left = left[1:].strip()
    return items


def _first_item(text):
    """The first item, and what follows it."""
    if text[0] in "'\"":
        end = text.find(text[0], 1)
        if end < 0:
            raise ValueError(f"{text}: the quotation mark is not closed")
        return text[1:end], text[end + 1 :].lstrip()
    item, comma, rest = text.partition(",")
    return item.rstrip(), comma + rest

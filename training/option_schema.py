"""Declared options: the type, the range and one line of help for each option of a training script.

A script's options are the fields of a pydantic model (``recipes/*/*/options.py``). One field serves the check of the
command line, the check of the YAML, and ``--help``. It also says what a resumed run may change.
"""

import os
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from training.option_values import branches, read_text, shown_value

# bytes of a path's part, and of a whole path, on Linux
LONGEST_PART, LONGEST_PATH = 255, 4095
# what a resumed run does with a new value: it refuses the value, or goes on with it
FIXED, FREE = "fixed", "free"
NUMERALS = {1: "one", 2: "two", 3: "three"}


class PathMark:
    """Mark of a text that is a path: the command line takes it literally, ``null`` included."""


class Words:
    """Mark with words that describe a type better than its constraints do."""

    def __init__(self, words):
        self.words = words


Path = Annotated[str, PathMark()]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
# sizes and depths of networks: a typing error must not take all the memory of a machine
Size = Annotated[int, Field(ge=1, le=65536)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Percentage = Annotated[float, Field(ge=0, le=100)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


def option(help_text, *, resume=FREE, **constraints):
    """Declare an option.

    Arguments
    ---------
    help_text : str
        One line that begins with a noun phrase.
    resume : str
        ``fixed``, if a trained run depends on the value: a resumed run refuses another one. ``free`` otherwise.
    **constraints
        Constraints of :func:`pydantic.Field`, such as ``ge=0``.
    """
    extra = {"resume": resume}
    return Field(None, description=help_text, json_schema_extra=extra, **constraints)


class Options(BaseModel):
    """Base of all models of options.

    A field that a YAML lacks stays None and is not checked. Keys of a YAML that no field declares are its author's
    own.

    Example
    -------
    >>> class Toy(Options):
    ...     layers: Count = option("Layers of the network.", resume="fixed")
    >>> Toy.read_option("layers", "3"), Toy.describe("layers")
    (3, 'a whole number, 1 or more')
    >>> Toy.read_option("layers", "1.5")
    Traceback (most recent call last):
    ...
    ValueError: must be a whole number, 1 or more; got 1.5
    """

    # objects of a YAML that may be null, for none at all
    optional_objects: ClassVar[frozenset] = frozenset({"fea_augment", "speed_perturb"})

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    @classmethod
    def type_of(cls, name):
        """The type of an option, with its constraints."""
        field = cls.model_fields[name]
        return (
            Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        )

    @classmethod
    def describe(cls, name):
        """The type and the range of an option, as words."""
        return describe_type(cls.type_of(name))

    @classmethod
    def read_option(cls, name, text):
        """The value that a text of the command line means.

        Arguments
        ---------
        name : str
            Name of a field.
        text : str

        Raises
        ------
        ValueError
            If the text is no value of the option; the message goes behind the option's name.
        """
        kind = cls.type_of(name)
        try:
            return read_text(branches(kind), text, fits)
        except ValueError as error:
            raise ValueError(f"must be {describe_type(kind)}; got {shown_value(text)}") from error

    @classmethod
    def problem_of(cls, name, value):
        """The fault of a plain value, as words behind the option's name; empty for a right value."""
        kind = cls.type_of(name)
        if fits(kind, value):
            return ""
        return f"must be {describe_type(kind)}; got {shown_value(value)}"

    @classmethod
    def conflicts(cls, values):
        """What is wrong between options that are right by themselves.

        Arguments
        ---------
        values : dict
            Plain values of all options.

        Yields
        ------
        str
            A sentence that names the options.
        """
        for low in values:
            high = f"{low.removesuffix('_low')}_high"
            pair = values[low], values.get(high)
            if low.endswith("_low") and None not in pair and pair[0] > pair[1]:
                yield f"--{low} {pair[0]} must not be over --{high} {pair[1]}"

    @classmethod
    def is_switch(cls, name):
        """Whether an option is true or false, so that it needs no value on the command line."""
        return name in cls.model_fields and cls.type_of(name) is bool

    @classmethod
    def takes_many(cls, name):
        """Whether an option may have several values."""
        kinds = branches(cls.type_of(name)) if name in cls.model_fields else ()
        return any(get_origin(bare) is list for bare, _ in kinds)

    @classmethod
    def is_fixed(cls, name):
        """Whether a trained run depends on an option."""
        field = cls.model_fields.get(name)
        return field is not None and field.json_schema_extra["resume"] == FIXED


def is_path(marks):
    """Whether constraints mark a path."""
    return any(isinstance(mark, PathMark) for mark in marks)


def fits(kind, value):
    """Whether a value is of a type, and within its range; texts must be usable as paths where they are paths."""
    try:
        TypeAdapter(kind, config=Options.model_config).validate_python(value)
    except ValidationError:
        return False
    return _usable(kind, value)


def _usable(kind, value):
    if isinstance(value, list):
        items = [get_args(bare)[0] for bare, _ in branches(kind) if get_origin(bare) is list]
        return all(any(_usable(item, one) for item in items) for one in value)
    if not isinstance(value, str):
        return True
    if "\0" in value or not value.strip():
        return False
    if any(is_path(marks) for _, marks in branches(kind)):
        parts = [os.fsencode(part) for part in value.split("/")]
        return max(map(len, parts)) <= LONGEST_PART and sum(map(len, parts)) <= LONGEST_PATH
    return True


def describe_type(kind):
    """A type and its range, as words for help and errors.

    Example
    -------
    >>> describe_type(Fraction), describe_type(Literal["best", "last"]), describe_type(list[Count] | None)
    ('a number from 0 to 1', 'one of best, last', 'a list of whole numbers, each 1 or more, or null')
    """
    words = [_describe_one(bare, marks) for bare, marks in branches(kind)]
    if len(words) > 1 and words[-1] == "null":
        # an empty value unsets a path or a text, which may be null itself
        null = "empty" if any(bare is str for bare, _ in branches(kind)) else "null"
        return f"{', '.join(words[:-1])}, or {null}"
    return " or ".join(words)


def _describe_one(bare, marks):
    if get_origin(bare) is Literal:
        values = [str(value) for value in get_args(bare)]
        return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    if get_origin(bare) is list:
        return f"a list of {_size(marks)}{_items(get_args(bare)[0])}"
    if is_path(marks):
        return "a path"
    own = next((mark.words for mark in marks if isinstance(mark, Words)), None)
    if own:
        return own
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        dict: "a mapping such as {name: value}",
        type(None): "null",
        Any: "any value",
    }
    return names[get_origin(bare) or bare] + _range(marks)


def _size(marks):
    least = next((mark.min_length for mark in marks if isinstance(mark, MinLen)), None)
    most = next((mark.max_length for mark in marks if isinstance(mark, MaxLen)), None)
    if least is None:
        return ""
    return f"{NUMERALS.get(least, least)} " + ("" if least == most else "or more ")


def _items(kind):
    """Items of a list, with what each must be."""
    kinds = branches(kind)
    (bare, marks), *others = kinds
    if others or get_origin(bare) is Literal:
        return f"values, each {describe_type(kind)}"
    if is_path(marks):
        return "paths"
    span = _range(marks).lstrip(", ")
    return {int: "whole numbers", float: "numbers", str: "texts"}[bare] + (
        f", each {span}" if span else ""
    )


def _range(marks):
    """The range of a number, as words behind its type."""
    bounds = {}
    for mark in marks:
        for kind, name in ((Ge, "ge"), (Gt, "gt"), (Le, "le"), (Lt, "lt")):
            if isinstance(mark, kind):
                bounds[name] = f"{getattr(mark, name):.10g}"
    low, high = bounds.get("ge"), bounds.get("le")
    if low and high:
        return f" from {low} to {high}"
    if low:
        words = f", {low} or more"
    else:
        words = f" above {bounds['gt']}" if "gt" in bounds else ""
    if high:
        return f"{words}, {high} at most"
    if "lt" in bounds:
        return f"{words}{' and' if words else ''} below {bounds['lt']}"
    return words

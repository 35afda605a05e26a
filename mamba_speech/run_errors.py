"""Errors of loading a run, whatever they are, as one sentence that names the run."""

import functools
from contextlib import contextmanager

from mamba_speech.audio import lacks_memory
from mamba_speech.files import error_text
from mamba_speech.plain_yaml import cut

# what code raises that is given values of other types, or of absurd sizes, than it was written for
_OF_VALUES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    TypeError,
)


@contextmanager
def errors_name_run(folder):
    """Turn what loading a run raises into errors that name the run; a context manager.

    A run may come from anyone. Types of options are checked; sizes show their faults only when networks are built.

    Arguments
    ---------
    folder : str or Path

    Raises
    ------
    OSError, RuntimeError, ValueError
        As they came, with the folder's name before their text where the text does not tell it. Anything else is a
        ValueError.

    Example
    -------
    >>> with errors_name_run("results/1"):
    ...     None.to("cpu")
    Traceback (most recent call last):
        ...
    ValueError: results/1: holds no model that can be used (AttributeError: 'NoneType' object has no attribute 'to')
    """
    try:
        yield
    except _OF_VALUES as error:
        if lacks_memory(error):
            raise OSError(f"{folder}: its model does not fit into memory") from error
        reason = cut(f"{type(error).__name__}: {error}", 300)
        raise ValueError(f"{folder}: holds no model that can be used ({reason})") from error
    except (OSError, RuntimeError, ValueError) as error:
        if lacks_memory(error):
            raise OSError(f"{folder}: its model does not fit into memory") from error
        text = error_text(error)
        if str(folder) in text:
            raise
        kinds = (FileNotFoundError, OSError, ValueError)
        kind = next((one for one in kinds if isinstance(error, one)), RuntimeError)
        raise kind(f"{folder}: {text}") from error


def names_run(load):
    """Decorator of a class's method ``load(cls, run, ...)``, whose errors name the run then."""

    @functools.wraps(load)
    def named(cls, run, *arguments, **options):
        with errors_name_run(run):
            return load(cls, run, *arguments, **options)

    return named

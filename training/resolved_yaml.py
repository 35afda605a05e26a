"""A recipe's YAML with overrides in place and references resolved, each value literally the one that was given.

HyperPyYAML writes the resolved file by the rules of YAML 1.2 and reads it by those of YAML 1.1. Texts are therefore
quoted, so that a folder named ``yes`` stays one.
"""

import re
from pathlib import Path

import ruamel.yaml
import yaml
from hyperpyyaml.core import resolve_references
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

# PyYAML's parser in C reads a recipe's YAML ten times as fast as its parser in Python
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# stands for < while references are resolved: a folder's name may hold it
_BRACKET = "\ue03clt\ue03c"


class Reference(str):
    """A value that refers to other options, such as ``!ref <d_model> * 4``."""


def key_nodes(file):
    """Top-level keys of a HyperPyYAML file, and their nodes.

    Arguments
    ---------
    file : str or Path

    Returns
    -------
    dict of str: yaml.Node

    Raises
    ------
    ValueError
        If the file is no YAML, or has no keys.
    """
    try:
        node = yaml.compose(Path(file).read_text(encoding="utf-8"), Loader=SAFE_LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file}: cannot be read as YAML: {' '.join(str(error).split())}"
        ) from error
    if type(node) is not yaml.MappingNode:
        raise ValueError(f"{file}: has no top-level keys, so it is no YAML of a recipe")
    return {key.value: value for key, value in node.value}


def is_object(node):
    """Whether a node is an object or a function rather than plain data or a reference."""
    return node is not None and node.tag.startswith(("!new", "!name", "!apply", "!module"))


def read_free_value(node, text):
    """The value of an option that no recipe declares, as YAML reads it.

    Arguments
    ---------
    node : yaml.Node
        What the file has there.
    text : str

    Raises
    ------
    ValueError
        If the text is no YAML, or is plain where the file has an object.
    """
    try:
        value = ruamel.yaml.YAML().load(text)
    except ruamel.yaml.error.YAMLError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"cannot be read: {text} ({reason})") from error
    if is_object(node) and value is not None and not text.startswith(node.tag.partition(":")[0]):
        raise ValueError(f"must be null, or an object such as {node.tag}; got {text}")
    if isinstance(node, yaml.MappingNode) and not is_object(node) and not isinstance(value, dict):
        raise ValueError(f"must be a mapping such as {{name: value}}; got {text or 'nothing'}")
    # what follows " #" would be a comment
    return text if isinstance(value, str) and not text.startswith(("!", "'", '"')) else value


def resolve(file, overrides):
    """The text of a YAML with its references resolved and overrides in place.

    Arguments
    ---------
    file : str or Path
    overrides : dict
        Plain values, and :class:`Reference`.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If a reference names nothing.
    """
    prepared = {name: _prepared(value) for name, value in overrides.items()}
    try:
        with open(file, encoding="utf-8") as stream:
            text = resolve_references(stream, prepared).getvalue()
    except (ValueError, RecursionError, ZeroDivisionError, AttributeError) as error:
        reason = error.args[0] if error.args else "a reference cannot be resolved"
        raise ValueError(f"{reason}") from error
    return text.replace(_BRACKET, "<")


def _prepared(value):
    """A value as HyperPyYAML must get it to give it back."""
    if isinstance(value, Reference):
        return ruamel.yaml.YAML().load(value)
    if isinstance(value, str):
        return DoubleQuotedScalarString(value.replace("<", _BRACKET))
    if isinstance(value, list) and type(value) is list:
        return [_prepared(one) for one in value]
    if type(value) is dict:
        return {name: _prepared(one) for name, one in value.items()}
    return value


def plain_values(text):
    """Top-level keys of a resolved YAML with their plain values; objects are None.

    Arguments
    ---------
    text : str

    Returns
    -------
    dict
    """
    return yaml.load(text, Loader=_PlainValues)


class _PlainValues(SAFE_LOADER):
    """YAML's plain values, with numbers such as 1e-5, as HyperPyYAML reads them; objects are None."""


_PlainValues.add_multi_constructor("!", lambda loader, tag, node: None)
# PyYAML takes 1e-05, which is how Python writes it, for a text
_PlainValues.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[+-]?[0-9]+[eE][+-]?[0-9]+$"), list("+-0123456789")
)

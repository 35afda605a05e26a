"""A recipe's YAML with overrides in place and references resolved, each value literally the one that was given.

HyperPyYAML writes and reads the resolved file by the rules of YAML 1.2. Other readers of a run's options may follow
YAML 1.1. Texts are therefore quoted, so that a folder named ``yes`` stays one.
"""

from pathlib import Path

import ruamel.yaml
import yaml
from hyperpyyaml import load_hyperpyyaml
from hyperpyyaml.core import resolve_references
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

# PyYAML's parser in C reads a recipe's YAML ten times as fast as its parser in Python
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_OBJECTS = (ruamel.yaml.comments.TaggedScalar, ruamel.yaml.comments.CommentedMap)
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
    if isinstance(value, dict) and _holds_objects(node):
        plain = [name for name, one in value.items() if not isinstance(one, _OBJECTS)]
        if plain:
            raise ValueError(f"must give every name an object, such as !ref <model>; got {text}")
    # what follows " #" would be a comment
    return text if isinstance(value, str) and not text.startswith(("!", "'", '"')) else value


def _holds_objects(node):
    """Whether a mapping of the YAML, such as ``modules``, holds objects alone."""
    if not isinstance(node, yaml.MappingNode) or is_object(node) or not node.value:
        return False
    return all(one.tag.startswith("!") for _, one in node.value)


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


def build(text):
    """The objects of a resolved YAML.

    :func:`hyperpyyaml.load_hyperpyyaml` does the same, but first resolves the references again, which takes longer
    than to build a small network.

    Arguments
    ---------
    text : str

    Returns
    -------
    dict
        Without keys that begin with ``__``.

    Raises
    ------
    Exception
        Whatever an object raises.
    """
    # HyperPyYAML teaches its tags to the loader that it is given
    load_hyperpyyaml("nothing: null", loader=_Objects)
    values = yaml.load(text, Loader=_Objects)
    return {key: value for key, value in values.items() if not key.startswith("__")}


class _PlainValues(SAFE_LOADER):
    """Plain values as HyperPyYAML reads them; objects are None."""


class _Objects(getattr(yaml, "CFullLoader", yaml.FullLoader)):
    """Plain values and HyperPyYAML's objects."""

    def construct_object(self, node, deep=True):
        """A node's value, with whatever is inside it: an object gets no arguments that are yet to be filled."""
        return super().construct_object(node, deep=deep)


def _whole_number(loader, node):
    """A whole number as YAML 1.2 has it: 010 is ten."""
    text = node.value.replace("_", "").lower()
    return int(text, 0 if text.lstrip("+-")[:2] in ("0b", "0o", "0x") else 10)


_PlainValues.add_multi_constructor("!", lambda loader, tag, node: None)
for _loader in (_PlainValues, _Objects):
    # PyYAML knows YAML 1.1, by which 1e-05 is a text and yes is true
    _loader.yaml_implicit_resolvers = {}
    for _versions, _tag, _pattern, _first in ruamel.yaml.resolver.implicit_resolvers:
        if (1, 2) in _versions:
            _loader.add_implicit_resolver(_tag, _pattern, _first)
    _loader.add_constructor("tag:yaml.org,2002:int", _whole_number)

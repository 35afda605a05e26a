"""Plain values of a HyperPyYAML file that came with somebody's weights: nothing in it is built or executed."""

import re

import yaml

_REFERENCE = re.compile(r"<([^<>.\[\]]+)>")


def read_scalars(file):
    """The plain values of a YAML, also of a HyperPyYAML one: no tag is obeyed, nothing is built.

    Arguments
    ---------
    file : Path or None

    Returns
    -------
    scalars : dict
        By key; those of the top level come before those within, which come in the order of the file. A reference
        to one of the top level (``!ref <key>``) counts as its value. The top-level keys of everything else have the
        value ``None``.

    Raises
    ------
    ValueError
        If the file is no YAML.
    """
    if file is None:
        return {}
    loader, root = _compose(file)
    scalars = {}
    mappings = [root] if isinstance(root, yaml.MappingNode) else []
    for mapping in mappings:
        for key, node in mapping.value:
            value = _plain(node, loader, scalars)
            if value is not None or mapping is root:
                scalars.setdefault(key.value, value)
            if isinstance(node, yaml.MappingNode) and mapping is root:
                mappings.append(node)
    return scalars


def read_tag(file, key):
    """The tag of a top-level key's value, such as `!new:torch.nn.ModuleList`; None if the key is not there.

    Raises
    ------
    ValueError
        If the file is no YAML.
    """
    return next((node.tag for name, node in _top_level(_compose(file)[1]) if name == key), None)


def read_within(file, key=None):
    """The plain values within the mapping of one top-level key, or of the top level itself.

    Empty if there is no such mapping. References are no plain values here.

    Raises
    ------
    ValueError
        If the file is no YAML.
    """
    loader, root = _compose(file)
    if key is not None:
        root = next((node for name, node in _top_level(root) if name == key), None)
    values = {name: _plain(node, loader, {}) for name, node in _top_level(root)}
    return {name: value for name, value in values.items() if value is not None}


def _compose(file):
    """A loader and the root of a file's nodes."""
    try:
        loader = yaml.SafeLoader(file.read_text(encoding="utf-8"))
        return loader, loader.get_single_node()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file}: can not be read as YAML ({reason})") from error


def _top_level(root):
    """Keys and nodes of a mapping; nothing of any other node."""
    return (
        [(key.value, node) for key, node in root.value]
        if isinstance(root, yaml.MappingNode)
        else []
    )


def _plain(node, loader, scalars):
    """The value of a YAML node, if it is a plain one or a reference to one of ``scalars``; else ``None``."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    if node.tag == "!ref":
        reference = _REFERENCE.fullmatch(node.value.strip())
        return scalars.get(reference[1]) if reference else None
    plain = node.tag.startswith("tag:yaml.org,2002:")
    return loader.construct_object(node) if plain else None

"""Plain values of a HyperPyYAML file that came with somebody's weights: nothing in it is built or executed."""

import contextlib
import re
import reprlib

import yaml

# `<key>`, and within it `<key[inner]>`, at any depth
_REFERENCE = re.compile(r"<([^<>.\[\]]+)((?:\[[^<>\[\]]+\])*)>")
_REFERENCE_TAGS = ("!ref", "!copy")
_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("null", "bool", "int", "float", "str", "seq", "map", "timestamp", "merge")
}


def read_scalars(file):
    """The plain values of a YAML, also of a HyperPyYAML one: no tag is obeyed, nothing is built.

    Arguments
    ---------
    file : Path or None

    Returns
    -------
    scalars : dict
        Values by key. The top level comes first, then the levels within, the outer before the inner ones. The first
        value of a key counts. A reference to a plain value (``!ref <key>``, ``!ref <key[inner]>``) counts as that
        value. A top-level key of anything else has the value ``None``.

    Raises
    ------
    ValueError
        If the file is no YAML, or a plain value is none of its type; the message names the file.
    """
    if file is None:
        return {}
    with errors_name(file):
        loader, root = _compose(file)
        scalars = {}
        for mapping in _mappings(root):
            for key, node in _pairs(mapping):
                value = _plain(node, loader, root)
                if value is not None or mapping is root:
                    scalars.setdefault(key, value)
        return scalars


def left_out(file, name, beside):
    """Whether a network's arguments tell ``beside`` and leave ``name`` out, so that the class's default holds.

    It does not hold for sure if the file tells ``name`` anywhere, or merges keys (``<<``) into those arguments.

    Arguments
    ---------
    file : Path or None
    name, beside : str

    Raises
    ------
    ValueError
        If the file is no YAML.
    """
    if file is None:
        return False
    with errors_name(file):
        mappings = _mappings(_compose(file)[1])
        keys = [(one.tag.startswith("!new:"), {key for key, _ in _pairs(one)}) for one in mappings]
    return not any(name in found for _, found in keys) and any(
        is_network and beside in found and "<<" not in found for is_network, found in keys
    )


def shorten(value):
    """A value for a message: at most 80 characters, however large it is.

    Example
    -------
    >>> shorten([[1, 2], [3]])
    '[[...], [...]]'
    """
    return cut(_SHORT.repr(value), 80)


def cut(text, length):
    """One line of at most so many characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= length else f"{line[: length - 3]}..."


class _Short(reprlib.Repr):
    """Writes nothing but plain values out: what anything else holds may be endless."""

    def repr_instance(self, x, level):
        plain = x is None or isinstance(x, bool | float)
        return repr(x) if plain else f"a {type(x).__name__}"


_SHORT = _Short()
_SHORT.maxlevel, _SHORT.maxstring = 1, 70


def read_tag(file, key):
    """The tag of a top-level key's value, such as `!new:torch.nn.ModuleList`; None if the key is not there.

    Raises
    ------
    ValueError
        If the file is no YAML.
    """
    with errors_name(file):
        pairs = _pairs(_compose(file)[1])
    return next((node.tag for name, node in pairs if name == key), None)


def read_tags(file):
    """The tags of all nodes of a YAML but for those of plain values, as a set.

    Raises
    ------
    ValueError
        If the file is no YAML.
    """
    with errors_name(file):
        nodes, tags = [_compose(file)[1]], {}
        while nodes:
            node = nodes.pop()
            # aliases may lead in circles
            if node is None or id(node) in tags:
                continue
            tags[id(node)] = node.tag
            if isinstance(node, yaml.MappingNode):
                nodes += [one for pair in node.value for one in pair]
            elif isinstance(node, yaml.SequenceNode):
                nodes += node.value
    return {tag for tag in tags.values() if tag not in _PLAIN_TAGS}


def read_within(file, key=None):
    """The plain values within the mapping of one top-level key, or of the top level itself.

    Empty if there is no such mapping. References are no plain values here.

    Raises
    ------
    ValueError
        If the file is no YAML, or a plain value is none of its type; the message names the file.
    """
    with errors_name(file):
        loader, root = _compose(file)
        if key is not None:
            root = next((node for name, node in _pairs(root) if name == key), None)
        values = {name: _plain(node, loader) for name, node in _pairs(root)}
    return {name: value for name, value in values.items() if value is not None}


@contextlib.contextmanager
def errors_name(file):
    """Whatever a foreign YAML makes the reader raise is one ValueError that names the file."""
    try:
        yield
    except RecursionError as error:
        raise ValueError(f"{file}: cannot be read as YAML (it is nested too deeply)") from error
    # a value that is none of its tag, such as `!!bool perhaps`, raises whatever its conversion does
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = cut((str(error).splitlines() or [type(error).__name__])[0], 200)
        problem = getattr(error, "problem", None)
        reason = cut(problem, 200) if problem else reason
        raise ValueError(f"{file}: cannot be read as YAML ({reason})") from error


def _compose(file):
    """A loader and the root of a file's nodes."""
    loader = yaml.SafeLoader(file.read_text(encoding="utf-8"))
    return loader, loader.get_single_node()


def _mappings(root):
    """The mappings of a file, each once, the outer before the inner ones; aliases may lead in circles."""
    level, seen = [root], set()
    while level:
        inner = []
        for node in level:
            if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, yaml.MappingNode):
                yield node
                inner += [value for _, value in node.value]
            else:
                inner += node.value
        level = inner


def _pairs(node):
    """Keys and nodes of a mapping, but for keys that are no scalars; nothing of any other node."""
    if not isinstance(node, yaml.MappingNode):
        return []
    return [(key.value, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]


def _plain(node, loader, root=None):
    """The value of a YAML node, if it is a plain one, or a reference to one within ``root``; else ``None``."""
    followed = set()
    while isinstance(node, yaml.ScalarNode) and node.tag in _REFERENCE_TAGS:
        if id(node) in followed:
            return None
        followed.add(id(node))
        node = _follow(node.value, root)
    if not isinstance(node, yaml.ScalarNode):
        return None
    plain = node.tag.startswith("tag:yaml.org,2002:")
    return loader.construct_object(node) if plain else None


def _follow(text, root):
    """The node that a reference names; None if it is an expression, or nothing of that name is there."""
    reference = _REFERENCE.fullmatch(text.strip())
    if not reference:
        return None
    node = root
    for key in [reference[1], *re.findall(r"\[([^\[\]]+)\]", reference[2])]:
        node = next((value for name, value in _pairs(node) if name == key), None)
    return node

"""Networks and plain values of a run's hyperparams.yaml, which may come from anyone: nothing else is built.

HyperPyYAML's own reader calls any function that the file names; this one builds networks of known packages.
"""

import functools
import importlib
import re

import ruamel.yaml
import torch

from mamba_speech.plain_yaml import cut, shorten

# A class is built only if it is a network and both its name in the YAML and the module that defines
# it begin like this. Much of SpeechBrain would be too much: it holds networks that download code.
ALLOWED = (
    "modules.",
    "speechbrain.lobes.features.",
    "speechbrain.lobes.models.ECAPA_TDNN.",
    "speechbrain.lobes.models.convolution.",
    "speechbrain.lobes.models.dual_path.",
    "speechbrain.lobes.models.transformer.",
    "speechbrain.nnet.",
    "speechbrain.processing.",
    "torch.nn.",
)
# arguments that count layers, and the largest numbers that arguments may be
_COUNTS_LAYERS = re.compile(r"layers|blocks|n_mamba|n_dp|num_spks|n_spk")
MOST_LAYERS, MOST_OF_ANYTHING = 10_000, 2**40
# what values raise that are none of their tag, and networks of arguments that they cannot take
_OF_VALUES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


def read_keys(file, keys, loader_class=None):
    """The values of some top-level keys; nodes outside them are never constructed.

    Arguments
    ---------
    file : Path
    keys : set of str
    loader_class : type, optional
        :class:`OptionsLoader`, or a class made of it.

    Raises
    ------
    ValueError
        If the file is no YAML, or names what may not be built; the message names the file.
    """
    try:
        loader = (loader_class or OptionsLoader)(file.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if not isinstance(root, ruamel.yaml.MappingNode):
            return {}
        scalars = (pair for pair in root.value if isinstance(pair[0], ruamel.yaml.ScalarNode))
        root.value = [(key, value) for key, value in scalars if key.value in keys]
        # building a network draws random weights: the caller's random state stays as it was
        with torch.random.fork_rng(devices=[]):
            return loader.construct_document(root)
    except ruamel.yaml.error.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{file}: {where}{cut(problem or error, 1000)}") from error
    except RecursionError as error:
        raise ValueError(f"{file}: cannot be read as YAML (it is nested too deeply)") from error
    except _OF_VALUES as error:
        reason = cut(error, 1000) or type(error).__name__
        raise ValueError(f"{file}: {reason}") from error


class OptionsLoader(ruamel.yaml.SafeLoader):
    """YAML's plain values, and `!new:`, `!name:` and tuples as HyperPyYAML has them.

    HyperPyYAML itself reads with a loader that calls any function by name.
    """


def _find_network(tag, target):
    """The class that a tag names.

    Raises
    ------
    ValueError
        If it is not a network of an allowed package.
    """
    module, _, name = target.rpartition(".")
    found = None
    if target.startswith(ALLOWED) and all(part.isidentifier() for part in target.split(".")):
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError as error:
            raise ValueError(f"{tag}{target} cannot be imported here ({error})") from error
    # where a class is defined counts too: a.b.c may lead out of a, through what b imported
    if not (
        isinstance(found, type)
        and issubclass(found, torch.nn.Module)
        and f"{found.__module__}.".startswith(ALLOWED)
    ):
        _refuse(f"{tag}{target}")
    return found


def _refuse(tag):
    raise ValueError(
        f"{tag} is refused: loading a run builds networks and nothing else, of classes in "
        f"{', '.join(prefix.rstrip('.') for prefix in ALLOWED)}; was the run made by this project?"
    )


def arguments_of(loader, node):
    """Positional and named arguments of a node with a class."""
    if isinstance(node, ruamel.yaml.MappingNode):
        return [], loader.construct_mapping(node, deep=True)
    if isinstance(node, ruamel.yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True), {}
    return [], {}


def _check_sizes(target, options):
    """Refuse numbers that no network has: so many layers would be built until no memory is left."""
    for name, value in options.items():
        most = MOST_LAYERS if _COUNTS_LAYERS.search(str(name)) else MOST_OF_ANYTHING
        if isinstance(value, int) and abs(value) > most:
            raise ValueError(
                f"!new:{target}: {name} is {shorten(value)}, and may be {most:,} at most"
            )


def construct_network(loader, target, node):
    """Build the network that a `!new:` names."""
    network = _find_network("!new:", target)
    arguments, options = arguments_of(loader, node)
    _check_sizes(target, options)
    try:
        return network(*arguments, **options)
    except (SystemError, TypeError) as error:
        # torch's C functions raise the first for some arguments of wrong types
        raise ValueError(
            f"!new:{target} does not take these arguments; the run is of another version ({error})"
        ) from error


def _construct_name(loader, target, node):
    network = _find_network("!name:", target)
    arguments, options = arguments_of(loader, node)
    return functools.partial(network, *arguments, **options) if arguments or options else network


def _construct_tuple(loader, node):
    inner = OptionsLoader(f"[{loader.construct_scalar(node)[1:-1]}]")
    return tuple(inner.get_single_data())


def _construct_unknown(loader, node):
    _refuse(node.tag)


OptionsLoader.add_multi_constructor("!new:", construct_network)
OptionsLoader.add_multi_constructor("!name:", _construct_name)
OptionsLoader.add_implicit_resolver("!tuple", re.compile(r"^\(.*\)$"), ["("])
OptionsLoader.add_constructor("!tuple", _construct_tuple)
OptionsLoader.add_constructor(None, _construct_unknown)

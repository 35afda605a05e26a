"""What a task contributes to a folder for SpeechBrain: its options, its networks, and files beside them."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mamba_speech.run import OPTIONS_FILE


@dataclass
class Content:
    """The parts of an exported model.

    Attributes
    ----------
    interface : str
        SpeechBrain's class that loads the folder.
    options : str
        YAML with the keys that this project and SpeechBrain read.
    networks : dict of str to torch.nn.Module
        Networks with trained weights, by their keys in the YAML.
    loadables : dict of str to str
        Names of other files that SpeechBrain loads, by the keys of what it loads them into.
    writers : dict of str to callable
        Functions that write a file, by its name: ``write(path)``.
    limits : list of str
        Sentences for the model card on what SpeechBrain's class does otherwise than this project.
    """

    interface: str
    options: str
    networks: dict
    loadables: dict = field(default_factory=dict)
    writers: dict = field(default_factory=dict)
    limits: list = field(default_factory=list)


def nodes_of(run_folder, keys):
    """Some top-level keys of a run's YAML with their values, networks as the run describes them; nothing is built.

    Arguments
    ---------
    run_folder : str or Path
    keys : dict of str to str, or collection of str
        Keys, or the names that keys get. Those that are not there are left out.

    Returns
    -------
    list of (yaml.Node, yaml.Node)
    """
    text = (Path(run_folder) / OPTIONS_FILE).read_text(encoding="utf-8")
    found = yaml.compose(text, Loader=yaml.SafeLoader).value
    names = keys if isinstance(keys, dict) else dict(zip(keys, keys, strict=True))
    pairs = [(key, value) for key, value in found if key.value in names]
    for key, _ in pairs:
        key.value = names[key.value]
    return pairs


def write_nodes(pairs):
    """Keys and values of :func:`nodes_of` as YAML, maybe of several runs."""
    if not pairs:
        return ""
    return yaml.serialize(yaml.MappingNode("tag:yaml.org,2002:map", pairs), width=120)


def copy_keys(run_folder, keys):
    """Some top-level keys of a run's YAML, see :func:`nodes_of`, as YAML."""
    return write_nodes(nodes_of(run_folder, keys))


def dump(values):
    """Plain values as YAML, in their order; nothing of none."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True) if values else ""

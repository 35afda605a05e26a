"""The help of a training script: every option with its value, its meaning, its type and its range."""

import re
import sys
from pathlib import Path

import yaml

from training.aliases import ALIASES, PARTS
from training.option_schema import Options
from training.resolved_yaml import is_object, key_nodes
from training.run_options import SpeechBrainOptions


def describe_options(file, model=Options):
    """The help of a training script: its usage, the options of a YAML, and SpeechBrain's.

    Arguments
    ---------
    file : str or Path
        The YAML. If there is no such file, the help says how to list the options of one.
    model : type
        Declared options; see :func:`training.options.find_options`.

    Returns
    -------
    str
    """
    script = Path(sys.argv[0]).name
    parts, nodes = [f"usage: {script} YAML [--option value ...]"], {}
    if not Path(file).is_file():
        parts.append(
            f"Every top-level key of the YAML is an option: {script} YAML --help lists them."
        )
    else:
        nodes = key_nodes(file)
        parts.append(f"Options, with their values in {file}:")
        parts.append(_own_options(file, nodes, model))
        others = [f"  --{a}: --{one.option}" for a, one in ALIASES.items() if one.option in nodes]
        others += [
            f"  --{part}: {key} of --{one.option}"
            for part, (one, key) in PARTS.items()
            if one.option in nodes
        ]
        if others:
            parts.append("\n".join(["Published names, which mean these options:", *others]))
    parts.append(
        "A run that is started again resumes by itself. --resume CHECKPOINT starts a new run from another run's "
        "checkpoint."
    )
    runs = [
        f"  --{name}: {field.description} ({SpeechBrainOptions.describe(name)})"
        for name, field in sorted(SpeechBrainOptions.model_fields.items())
        if name not in nodes
    ]
    parts.append("\n".join(["SpeechBrain's run options:", *runs]))
    parts.append(
        "A switch needs no value: --skip_train is --skip_train True. A path or a text is taken as it stands; an empty "
        "value, --option=, is none at all."
    )
    return "\n\n".join(parts)


def _own_options(file, nodes, model):
    """The options of a YAML under its headings."""
    shown = []
    text = Path(file).read_text(encoding="utf-8").partition("# --- objects")[0]
    for line in text.splitlines():
        key = re.match(r"([A-Za-z]\w*):", line)
        if line.startswith("# --- "):
            shown += ["", line]
        elif key and not is_object(nodes[key[1]]):
            shown.append(_option_line(key[1], nodes[key[1]], line, model))
    return "\n".join(shown).strip("\n")


def _option_line(name, node, line, model):
    value = "" if isinstance(node, yaml.MappingNode) else _value_of(node)
    field = model.model_fields.get(name)
    if field is None:
        comment = line.partition(" # ")[2]
        return f"  --{name} {value}" + (f"  {comment}" if comment else "")
    return f"  --{name} {value}  {field.description} ({model.describe(name)})"


def _value_of(node):
    if node.tag == "!ref":
        return node.value
    if node.tag == "!PLACEHOLDER":
        return "VALUE"
    return yaml.serialize(node, width=1000, Dumper=yaml.SafeDumper).split("\n...")[0].strip()

"""The options of a training: the command line is read, and checked against the YAML.

Every top-level key of the YAML is an option. SpeechBrain's run options, such as ``--device``, work too. One thing has
one name in all recipes, and :mod:`training.aliases` holds the names that published recipes give it.
"""

import dataclasses
import difflib
import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

import speechbrain as sb
import yaml
from hyperpyyaml.core import resolve_references
from speechbrain.utils.run_opts import HELP_TEXTS, RunOptions

from training.aliases import ALIASES, name_here

# SpeechBrain's run options; a switch takes no value
RUN_OPTIONS = frozenset({*HELP_TEXTS, "jit_module_keys", "compile_module_keys"})
_SWITCHES = frozenset(name for name in RUN_OPTIONS if getattr(RunOptions(), name) is False)
_LISTS = frozenset({"jit_module_keys", "compile_module_keys"})


class CommandLine(NamedTuple):
    """A training's command line.

    Attributes
    ----------
    yaml : str
        Path of the YAML.
    run_opts : speechbrain.utils.run_opts.RunOptions
    overrides : str
        YAML text with the values that replace those of the file.
    given : dict of str: str
        Every option of the command line by its name here.
    aliases : dict of str: str
        Names here of the other names that were used.
    """

    yaml: str
    run_opts: RunOptions
    overrides: str
    given: dict
    aliases: dict


def read_command_line(arguments):
    """Read ``hparams.yaml --key value ...``.

    A run option may also be a key of the YAML, as ``--precision`` is. Then it changes both: whatever refers to the key
    follows, and ``hyperparams.yaml`` holds the value of the run.

    Arguments
    ---------
    arguments : list of str
        Words after the script's name.

    Returns
    -------
    CommandLine

    Raises
    ------
    SystemExit
        With one message, if the YAML does not exist or cannot be read, or an option is unknown, given twice, without
        its value or missing. After ``--help``, which is printed.
    """
    file, arguments = _take_file(arguments)
    if {"-h", "--help"} & {file, *arguments}:
        print(describe_options(file))
        raise SystemExit(0)
    if not Path(file).is_file():
        problem = f"{file}: no such file" if file else "no YAML file is given"
        raise SystemExit(f"{problem}; the first argument is a YAML file, such as one in hparams/")
    try:
        known = read_keys(file)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    translated, aliases = translate(arguments, known)
    options = _split(translated)
    _check_names(file, options, known, {option: alias for alias, option in aliases.items()})
    overrides = {}
    for name, values in options:
        if name in known:
            overrides[name] = "True" if name in _SWITCHES else _as_yaml(" ".join(values))
    text = "\n".join(f"{name}: {value}" for name, value in overrides.items())
    _check_values(file, text, known, overrides)
    _, run_opts, _ = sb.parse_arguments([file, *_of_speechbrain(options)])
    limit = run_opts.optimizer_step_limit
    if limit is not None:
        # SpeechBrain 1.1 hands this one over as text
        if not limit.isdecimal():
            raise SystemExit(f"--optimizer_step_limit must be a whole number; got {limit}")
        run_opts = dataclasses.replace(run_opts, optimizer_step_limit=int(limit))
    return CommandLine(file, run_opts, text, given_options(translated), aliases)


def _as_yaml(value):
    """A value as YAML: a path such as ``speech #2`` in quotes, since `` #`` would begin a comment there."""
    try:
        node = yaml.compose(value, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return value
    plain = type(node) is yaml.ScalarNode and node.style is None
    return json.dumps(value, ensure_ascii=False) if plain and " #" in value else value


def translate(arguments, known):
    """A command line with every option under its name here.

    Arguments
    ---------
    arguments : list of str
        Options and values: ``--name value`` or ``--name=value``.
    known : collection of str
        Keys of the YAML.

    Returns
    -------
    (list of str, dict of str: str)
        The arguments, and the names here of the other names that were used.

    Raises
    ------
    SystemExit
        If an option is given under two names.

    Example
    -------
    >>> translate(["--N_epochs", "3", "--lr_adam=0.1"], {"number_of_epochs", "lr"})
    (['--number_of_epochs', '3', '--lr=0.1'], {'N_epochs': 'number_of_epochs', 'lr_adam': 'lr'})
    """
    translated, aliases, spelt = [], {}, {}
    for part in arguments:
        if part.startswith("--"):
            name, equals, value = part[2:].partition("=")
            option = name_here(name, known)
            if option != name:
                aliases[name] = option
            if spelt.setdefault(option, name) != name:
                raise SystemExit(
                    f"--{spelt[option]} and --{name} are two names of one option: give --{option} alone"
                )
            part = f"--{option}{equals}{value}"
        translated.append(part)
    return translated, aliases


def given_options(arguments):
    """The options of a command line as text by name; a switch is ``True``.

    Arguments
    ---------
    arguments : list of str
        Words after the script and the YAML.

    Returns
    -------
    dict of str: str

    Example
    -------
    >>> given_options(["--seed", "3", "--test_only", "--lr=0.1"])
    {'seed': '3', 'test_only': 'True', 'lr': '0.1'}
    """
    return {name: " ".join(values) or "True" for name, values in _split(arguments) if name}


def read_keys(file):
    """Top-level keys of a HyperPyYAML file, each with whether a value must be given for it.

    Arguments
    ---------
    file : str or Path

    Returns
    -------
    dict of str: bool

    Raises
    ------
    ValueError
        If the file is no YAML, or has no keys.
    """
    try:
        node = yaml.compose(Path(file).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file}: cannot be read as YAML: {' '.join(str(error).split())}"
        ) from error
    if type(node) is not yaml.MappingNode:
        raise ValueError(f"{file}: has no top-level keys, so it is no YAML of a recipe")
    return {key.value: value.tag == "!PLACEHOLDER" for key, value in node.value}


def name_options(message, file):
    """An object's error, followed by the options that set the arguments which it names.

    Arguments
    ---------
    message : str
    file : str or Path
        The YAML. There, ``n_mamba: !ref <num_layers>`` tells that ``--num_layers`` sets ``n_mamba``.

    Returns
    -------
    str
    """
    text = Path(file).read_text(encoding="utf-8")
    options = dict(re.findall(r"^ +(\w+): !ref <(\w+)>$", text, re.MULTILINE))
    # a word that is an option itself needs no other name
    words = set(re.findall(r"\w+", message)) & options.keys() - read_keys(file).keys()
    own = [f"{word} is --{options[word]}" for word in sorted(words)]
    return f"{message} ({', '.join(own)})" if own else message


def _take_file(arguments):
    """The YAML, which options may precede, and the other arguments."""
    value_next = False
    for index, part in enumerate(arguments):
        if not part.startswith("--") and not value_next:
            return part, [*arguments[:index], *arguments[index + 1 :]]
        value_next = part.startswith("--") and "=" not in part and part[2:] not in _SWITCHES
    return "", arguments


def _split(arguments):
    """Options with their lists of values, in order; values before the first option have the name ''."""
    options = []
    for part in arguments:
        if part.startswith("--"):
            name, equals, value = part[2:].partition("=")
            options.append((name, [value] if equals else []))
        elif options:
            options[-1][1].append(part)
        else:
            options.append(("", [part]))
    return options


def _check_names(file, options, known, spelt):
    """Stop on an option that does not exist, is given twice, or has no value or too many.

    ``spelt`` holds the published names that were used, by the names here: an error names what was typed.
    """
    names = [name for name, _ in options]
    for name, values in options:
        typed = spelt.get(name, name)
        if names.count(name) > 1:
            raise SystemExit(f"--{typed} is given twice")
        stray = name == "" or (name in _SWITCHES and values)
        if stray or (name in RUN_OPTIONS - _LISTS and len(values) > 1):
            raise SystemExit(_unreadable(" ".join([f"--{name}"] * bool(name) + values)))
        if name in RUN_OPTIONS:
            continue
        if name not in known:
            raise SystemExit(f"--{name}: {file} has no such option{hint(name, known)}")
        if not values:
            raise SystemExit(
                f"--{typed} has no value: write --{typed} VALUE; nothing at all is null"
            )


def hint(name, known):
    """The nearest name, and where the names are."""
    aliases = {alias for alias in ALIASES if ALIASES[alias].option in known}
    names = {one.lower(): one for one in (*aliases, *RUN_OPTIONS, *known)}
    close = difflib.get_close_matches(name.lower(), names, n=1)
    meant = [name_here(names[one], known) for one in close]
    nearest = f"; did you mean --{meant[0]}?" if meant else ""
    return f"{nearest} (its top-level keys are the options; --help lists them)"


def _check_values(file, text, known, given):
    """Stop on a value that cannot be read, and on one that the YAML wants and did not get."""
    try:
        yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise SystemExit(_unreadable(f"{text}: {str(error).splitlines()[-1].strip()}")) from error
    with open(file, encoding="utf-8") as lines:
        try:
            resolve_references(lines, text)
        except ValueError as error:
            if "PLACEHOLDER" not in str(error):
                raise
            missing = [f"--{name}" for name in known if known[name] and name not in given]
            raise SystemExit(f"{file}: give a value for {', '.join(missing)}") from error


def _unreadable(what):
    return (
        "the options on the command line cannot be read: write --key value, lists as --key '[a, b]', and switches "
        f"such as --test_only without a value (in: {what})"
    )


def _of_speechbrain(options):
    """The run options among them, as arguments."""
    for name, values in options:
        if name in _LISTS | _SWITCHES:
            yield from (f"--{name}", *values)
        elif name in RUN_OPTIONS:
            # in one word, since a value may begin with a dash
            yield "=".join([f"--{name}", *values])


def describe_options(file):
    """The help of a training script: its usage, the options of a YAML, and SpeechBrain's.

    Arguments
    ---------
    file : str
        The YAML. If there is no such file, the help says how to list the options of one.

    Returns
    -------
    str
    """
    script = Path(sys.argv[0]).name
    parts, known = [f"usage: {script} YAML [--option value ...]"], {}
    if not Path(file).is_file():
        parts.append(
            f"Every top-level key of the YAML is an option: {script} YAML --help lists them."
        )
    else:
        known = read_keys(file)
        parts.append(f"Options, with their values in {file}:")
        parts.append(_option_lines(Path(file).read_text(encoding="utf-8")))
        others = [f"  --{a}: --{one.option}" for a, one in ALIASES.items() if one.option in known]
        parts.append("\n".join(["Published names, which mean these options:", *others]))
    runs = [f"  --{name}: {HELP_TEXTS[name]}" for name in sorted(HELP_TEXTS.keys() - known)]
    parts.append("\n".join(["SpeechBrain's run options:", *runs]))
    return "\n\n".join(parts)


def _option_lines(text):
    """The headings and comments of a YAML, and its keys with plain values."""
    shown = []
    for line in text.partition("# --- objects")[0].splitlines():
        key = re.match(r"([A-Za-z]\w*): (?!!(?:new|name|apply))(.+)", line)
        if key:
            shown.append(f"  --{key[1]} {key[2]}")
        elif line.startswith("# "):
            shown.append(line if line.startswith("# ---") else f"  {line}")
        elif not line:
            shown.append("")
    return "\n".join(shown).strip("\n")

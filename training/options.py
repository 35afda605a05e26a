"""The options of a training: the command line is read, and checked with the YAML before anything is written.

Every top-level key of the YAML is an option. SpeechBrain's run options, such as ``--device``, work too. A recipe's
``options.py`` declares its options: type, range, one line of help. One thing has one name in all recipes, and
:mod:`training.aliases` holds the names that published recipes give it.
"""

import difflib
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

import yaml
from speechbrain.utils.run_opts import RunOptions

from training.aliases import ALIASES, PARTS, name_here, value_here
from training.option_schema import Options
from training.option_values import is_switch_word, read_switch, shown_value
from training.resolved_yaml import (
    Reference,
    is_object,
    key_nodes,
    plain_values,
    read_free_value,
    resolve,
)
from training.run_options import RUN_OPTIONS, SpeechBrainOptions, make_run_options


class CommandLine(NamedTuple):
    """A training's command line.

    Attributes
    ----------
    yaml : str
        Path of the YAML.
    run_opts : speechbrain.utils.run_opts.RunOptions
    overrides : dict
        Values that replace the file's own.
    values : dict
        Plain values of all top-level keys; objects are None.
    resolved : str
        The YAML with its references resolved and the overrides in place.
    given : dict of str: str
        Every option of the command line by its name here.
    aliases : dict of str: str
        Names here of the other names that were used.
    """

    yaml: str
    run_opts: RunOptions
    overrides: dict
    values: dict
    resolved: str
    given: dict
    aliases: dict


def find_options(script):
    """The declared options of a training script.

    Arguments
    ---------
    script : str or Path
        Its folder holds ``options.py``, where ``OPTIONS`` maps names of scripts to models.

    Returns
    -------
    type
        A subclass of :class:`training.option_schema.Options`; that class itself, where nothing is declared.
    """
    script = Path(script).resolve()
    file = script.with_name("options.py")
    if not file.is_file():
        return Options
    name = f"options_of_{file.parent.parent.name}_{file.parent.name}"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.OPTIONS.get(script.name, Options)


def read_command_line(arguments, model=Options):
    """Read ``hparams.yaml --key value ...``, and check all options together.

    A run option may also be a key of the YAML, as ``--precision`` is. Then it changes both: whatever refers to the key
    follows, and ``hyperparams.yaml`` holds the value of the run.

    Arguments
    ---------
    arguments : list of str
        Words after the script's name.
    model : type
        Declared options; see :func:`find_options`.

    Returns
    -------
    CommandLine

    Raises
    ------
    SystemExit
        With one sentence for each problem: a YAML that cannot be read, an option that is unknown, given twice, without
        its value or missing, and a value of a wrong type or beyond its range. After ``--help``, which is printed.
    """
    file, arguments = _take_file(arguments, model)
    if {"-h", "--help"} & {file, *arguments}:
        # here, since it is seldom wanted
        from training.option_help import describe_options

        print(describe_options(file, model))
        raise SystemExit(0)
    if not file or not Path(file).is_file():
        problem = f"{file}: no such file" if file else "no YAML file is given"
        raise SystemExit(f"{problem}; the first argument is a YAML file, such as one in hparams/")
    try:
        nodes = key_nodes(file)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    translated, aliases = translate(arguments, nodes)
    options = _Reader(file, nodes, model, {here: alias for alias, here in aliases.items()})
    for name, words in _split(translated):
        options.take(name, words)
    options.stop_on_problems()
    resolved, values = options.check_all()
    run_opts = make_run_options(file, options.runs)
    return CommandLine(
        file, run_opts, options.overrides, values, resolved, given_options(translated), aliases
    )


class _Reader:
    """Reads the options of a command line one after the other, and keeps what is wrong with them.

    Arguments
    ---------
    file : str
        The YAML.
    nodes : dict
        Its keys, and their nodes.
    model : type
        Declared options.
    spelt : dict of str: str
        Published names that were used, by the names here: an error names what was typed.
    """

    def __init__(self, file, nodes, model, spelt):
        self.file, self.nodes, self.model, self.spelt = file, nodes, model, spelt
        self.overrides, self.runs, self.problems, self.seen = {}, {}, [], set()

    def take(self, name, words):
        """Read an option and its words."""
        typed = self.spelt.get(name, name)
        if name == "":
            self.problems.append(f"{' '.join(words)}: stands before any option: write --key value")
        elif name in self.seen:
            self.problems.append(f"--{typed} is given twice")
        elif name not in self.nodes and name not in RUN_OPTIONS:
            self.problems.append(
                f"--{typed}: {self.file} has no such option{hint(name, self.nodes)}"
            )
        else:
            try:
                self._keep(name, self._read(name, words))
            except ValueError as error:
                self.problems.append(f"--{typed} {error}")
        self.seen.add(name)

    def _keep(self, name, value):
        if name in self.nodes:
            self.overrides[name] = value
        if name in RUN_OPTIONS:
            problem = SpeechBrainOptions.problem_of(name, value)
            if problem and not isinstance(value, Reference):
                raise ValueError(problem)
            self.runs[name] = value

    def _read(self, name, words):
        # an object of the YAML is declared for the YAMLs that have null in its place
        declared = name in self.model.model_fields and not is_object(self.nodes.get(name))
        model = self.model if declared else SpeechBrainOptions
        if not words:
            if model.is_switch(name) or isinstance(self._default(name), bool):
                return True
            raise ValueError(f"has no value: write --{name} VALUE")
        if len(words) > 1:
            return self._read_many(name, words, model)
        (text,) = words
        if "\0" in text:
            raise ValueError(f"holds a NUL: {shown_value(text)}")
        if text.startswith("!ref ") and name in self.nodes:
            return Reference(text)
        if declared or name in RUN_OPTIONS:
            return model.read_option(name, text)
        if isinstance(self._default(name), bool):
            return read_switch(text)
        value = read_free_value(self.nodes[name], text)
        if (
            value is None
            and is_object(self.nodes[name])
            and name not in self.model.optional_objects
        ):
            raise ValueError("cannot be null: the recipe needs it")
        return value

    def _read_many(self, name, words, model):
        if model.takes_many(name):
            return model.read_option(name, f"[{', '.join(words)}]")
        others = [word for word in words[1:] if word in self.nodes]
        meant = f"; did you mean --{others[0]}?" if others else ""
        raise ValueError(f"takes one value; got {shown_value(' '.join(words))}{meant}")

    def _default(self, name):
        node = self.nodes.get(name)
        plain = isinstance(node, yaml.ScalarNode) and node.tag.startswith("tag:yaml.org")
        return yaml.safe_load(yaml.serialize(node)) if plain else None

    def _told(self, name, problem):
        """A problem of a value, with the option or the line of the YAML that gave it."""
        if name in self.overrides:
            return f"--{name} {problem}"
        node = self.nodes[name]
        origin = f" (by {name}: {node.value})" if node.tag == "!ref" else ""
        return f"{self.file}: {name} {problem}{origin}"

    def stop_on_problems(self):
        """Raise all that is wrong as one SystemExit."""
        if self.problems:
            raise SystemExit("\n".join(self.problems))

    def check_all(self):
        """The resolved YAML, and plain values of all its options, if nothing is wrong with any of them."""
        missing = [
            f"--{name}"
            for name, node in self.nodes.items()
            if node.tag == "!PLACEHOLDER" and name not in self.overrides
        ]
        if missing:
            raise SystemExit(f"{self.file}: give a value for {', '.join(missing)}")
        try:
            resolved = resolve(self.file, self.overrides)
            values = plain_values(resolved)
        except ValueError as error:
            given = [
                f"--{name}" for name, one in self.overrides.items() if isinstance(one, Reference)
            ]
            raise SystemExit(f"{', '.join(given) or self.file}: {error}") from error
        for name, value in values.items():
            if name in self.model.model_fields and not is_object(self.nodes.get(name)):
                problem = self.model.problem_of(name, value)
                self.problems += [self._told(name, problem)] if problem else []
        if not self.problems:
            self.problems += self.model.conflicts(values)
        self.stop_on_problems()
        return resolved, values


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
    name = option = ""
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
            part = f"--{option}{equals}{value_here(name, option, value) if equals else ''}"
        elif name:
            part = value_here(name, option, part)
        translated.append(part)
    return translated, aliases


def given_options(arguments):
    """The options of a command line as text by name; a bare switch is ``True``.

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
    split = _split(arguments)
    return {name: " ".join(words) if words else "True" for name, words in split if name}


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
    return {name: node.tag == "!PLACEHOLDER" for name, node in key_nodes(file).items()}


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


def _take_file(arguments, model):
    """The YAML, which options may precede, and the other arguments."""
    value_next = switch = False
    for index, part in enumerate(arguments):
        # a switch may have a value, but no file is called yes
        value = value_next and not (switch and not is_switch_word(part))
        if not part.startswith("--") and not value:
            return part, [*arguments[:index], *arguments[index + 1 :]]
        name = part[2:]
        switch = model.is_switch(name) or SpeechBrainOptions.is_switch(name)
        value_next = part.startswith("--") and "=" not in part
    return "", arguments


def _split(arguments):
    """Options with their lists of words, in order; words before the first option have the name ''."""
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


def hint(name, known):
    """The nearest name, and where the names are."""
    aliases = {alias for alias, one in ALIASES.items() if one.option in known}
    aliases |= {part for part, (one, _) in PARTS.items() if one.option in known}
    names = {one.lower(): one for one in (*aliases, *RUN_OPTIONS, *known)}
    close = difflib.get_close_matches(name.lower(), names, n=1)
    meant = [name_here(names[one], known) for one in close]
    nearest = f"; did you mean --{meant[0]}?" if meant else ""
    return f"{nearest} (its top-level keys are the options; --help lists them)"

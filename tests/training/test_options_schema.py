"""Every option of every script: an absurd value gets one sentence that names the option, never a traceback."""

import functools
import itertools

import pytest

from tests.support.recipes import ROOT, load_options
from training.option_schema import Options, branches, describe_type
from training.options import _Reader, find_options, read_command_line
from training.resolved_yaml import is_object, key_nodes

# folders of YAMLs, and the scripts that take them
SCRIPTS = {
    "LibriSpeech/ASR/CTC": "LibriSpeech/ASR/train_CTC.py",
    "LibriSpeech/ASR/S2S": "LibriSpeech/ASR/train_S2S.py",
    "LibriSpeech/ASR/LM": "LibriSpeech/ASR/train_LM.py",
    "SpeechCommands/KWS": "SpeechCommands/KWS/train.py",
    "WSJ0Mix/separation": "WSJ0Mix/separation/train.py",
    "VoxCeleb/SV": "VoxCeleb/SV/train.py",
    "VoxCeleb/SV/distill": "VoxCeleb/SV/distill.py",
}
YAMLS = {
    folder: sorted(
        (ROOT / "hparams" / folder).glob("*.yaml"), key=lambda one: "debug" not in one.stem
    )
    for folder in SCRIPTS
}
# of no kind of option
NONSENSE = ("", " ", "\0", "a\0b", "[1, ", "[,]", "{a", "!ref <nothing>", "'", "\n")
# by type: what is not of it, or beyond every range
WRONG = {
    bool: ("maybe", "2", "1.0", "nan", "null", "[true]", "tru"),
    int: (
        "abc",
        "1.5",
        "nan",
        "inf",
        "1e3",
        "0x10",
        "1_000",
        "[1]",
        "true",
        "-" + "9" * 30,
        "9" * 40,
    ),
    float: ("abc", "nan", "inf", "-inf", "1e400", "1,5", "[1]", "true", "1e", "--1"),
    str: ("x" * 300 + "/\0", "a" * 5000),
    list: ("[1, nan, a b", "[']", "\0"),
    dict: ("3", "[1]", "abc", "true", "{a: "),
}


@functools.cache
def schema(folder):
    """The declared options of the YAMLs in a folder."""
    return find_options(ROOT / "recipes" / SCRIPTS[folder])


@functools.cache
def nodes(path):
    """The keys of a YAML."""
    return key_nodes(path)


def options_of(folder):
    """Each declared option, with the first YAML that has it."""
    found = {}
    for path in YAMLS[folder]:
        for name in nodes(path):
            if name in schema(folder).model_fields:
                found.setdefault(name, path)
    return found


CASES = [(folder, name, path) for folder in SCRIPTS for name, path in options_of(folder).items()]


def read(path, model, name, text):
    """The value of an option's text, as a command line reads it."""
    reader = _Reader(str(path), nodes(path), model, {})
    reader.take(name, [text])
    reader.stop_on_problems()
    return reader.overrides[name]


def absurd(model, name):
    """Texts that are no value of an option."""
    kinds = branches(model.type_of(name))
    wrong = {
        text
        for bare, _ in kinds
        for kind, texts in WRONG.items()
        if _is(bare, kind)
        for text in texts
    }
    bounds = [mark for _, marks in kinds for mark in marks]
    numbers = [
        value
        for mark in bounds
        for value in vars_of(mark).values()
        if isinstance(value, int | float)
    ]
    return [
        *NONSENSE,
        *sorted(wrong),
        *(str(value - 1) for value in numbers),
        *(str(value + 1) for value in numbers),
    ]


def vars_of(mark):
    """Fields of a constraint."""
    return {name: getattr(mark, name) for name in ("ge", "gt", "le", "lt") if hasattr(mark, name)}


def _is(bare, kind):
    origin = getattr(bare, "__origin__", bare)
    return origin is kind


@pytest.mark.parametrize("folder", SCRIPTS)
def test_every_plain_key_of_every_yaml_is_declared_and_its_value_is_right(folder):
    model = schema(folder)
    assert model is not Options
    for path in YAMLS[folder]:
        plain = {name for name, node in nodes(path).items() if not is_object(node)}
        structure = {"__set_seed", "modules", "lr_plateau", "lr_annealing"}
        assert plain - structure <= model.model_fields.keys(), path.name
        line = read_command_line([str(path)], model)
        assert line.values.keys() == nodes(path).keys()


@pytest.mark.parametrize("folder", SCRIPTS)
def test_every_option_has_a_type_a_range_and_one_line_of_help(folder):
    model = schema(folder)
    for name, field in model.model_fields.items():
        help_text = field.description
        assert help_text and help_text[0].isupper() and help_text.endswith("."), name
        assert "\n" not in help_text and len(help_text) <= 100, name
        assert describe_type(model.type_of(name)) and field.json_schema_extra["resume"] in (
            "fixed",
            "free",
        )


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "folder, name, path", CASES, ids=lambda value: str(value).split("hparams/")[-1]
)
def test_an_absurd_value_gets_one_sentence_that_names_its_option(folder, name, path):
    model, refused = schema(folder), 0
    for text in absurd(model, name):
        try:
            value = read(path, model, name, text)
        except SystemExit as error:
            refused += 1
            message = str(error)
            assert message.startswith(f"--{name} ") and "\n" not in message, (text, message)
            assert len(message) < 400 and message.isprintable(), (text, message)
        else:
            # then it means something: a text, or null
            problem = model.problem_of(name, value) if not str(text).startswith("!ref") else ""
            assert not problem, (text, value)
    assert refused >= 6, (name, refused)


@pytest.mark.exhaustive
@pytest.mark.parametrize("folder", SCRIPTS)
def test_sizes_that_are_right_alone_and_fit_no_network_get_one_sentence(folder, tmp_path):
    path, model = YAMLS[folder][0], schema(folder)
    sizes = [name for name in nodes(path) if model.is_fixed(name) and _is_number(model, name)]
    assert len(sizes) >= 3
    for name, text in itertools.product(sizes, ("1", "3")):
        arguments = [str(path), f"--output_folder={tmp_path / 'run'}", f"--{name}={text}"]
        try:
            load_options(arguments, model)
        except SystemExit as error:
            message = str(error)
            assert message and "\n" not in message and name in message, (name, text, message)


def _is_number(model, name):
    return any(bare in (int, float) for bare, _ in branches(model.type_of(name)))

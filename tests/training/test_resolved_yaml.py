"""A recipe's YAML, resolved once and built without being resolved again."""

from functools import partial

import pytest
from hyperpyyaml import load_hyperpyyaml

from tests.support.recipes import ROOT
from training.resolved_yaml import build, key_nodes, plain_values, resolve

YAML = """
__seed: !apply:builtins.abs [-3]
rate: 1e-05
step: 0.5
sizes: (3, 4)
names: [a, "yes", '010', null]
date: "2024-01-01"
folder: !ref <rate>/x
counter: !new:collections.Counter
    lines: [1, 1]
shared: !new:collections.OrderedDict
    inner: &inner !new:collections.Counter
    same: *inner
    counted: !ref <counter>
call: !name:builtins.sorted
    reverse: True
plain: !name:builtins.len
module: !module:json
"""


def test_objects_are_those_that_hyperpyyaml_builds(tmp_path):
    (tmp_path / "a.yaml").write_text(YAML)
    resolved = resolve(tmp_path / "a.yaml", {"step": 2e-7})
    built, expected = build(resolved), load_hyperpyyaml(resolved)
    for objects in (built, expected):
        assert objects["shared"]["inner"] is objects["shared"]["same"]
        call = objects.pop("call")
        assert type(call) is partial and (call.func, call.keywords) == (sorted, {"reverse": True})
    assert built == expected and list(built) == list(expected)
    assert [type(one) for one in built.values()] == [type(one) for one in expected.values()]
    assert (built["rate"], built["sizes"], built["counter"]["lines"]) == (1e-5, (3, 4), [1, 1])


NUMBERS = [
    "010",
    "0o10",
    "0x1F",
    "0b11",
    "1_000",
    "+3",
    "-7",
    "1e5",
    "1e-05",
    "1.5e3",
    "1.",
    ".5",
    "-.inf",
]
TEXTS = ["yes", "no", "on", "off", "y", "1:30", "0o9", "'010'", "null_", "12e", "true ish"]
OTHERS = ["true", "False", "null", "~", "2024-01-01", "[1, yes]", "{a: 010}"]


@pytest.mark.parametrize("text", NUMBERS + TEXTS + OTHERS)
def test_a_value_is_checked_and_built_as_hyperpyyaml_reads_it(text):
    value = load_hyperpyyaml(f"a: {text}")["a"]
    for read in (build, plain_values):
        got = read(f"a: {text}")["a"]
        assert got == value and type(got) is type(value)


def test_a_recipes_network_is_the_one_that_hyperpyyaml_builds():
    file = ROOT / "hparams" / "LibriSpeech" / "ASR" / "CTC" / "conmamba_debug.yaml"
    folders = {name: "x" for name, node in key_nodes(file).items() if node.tag == "!PLACEHOLDER"}
    resolved = resolve(file, folders)
    # the YAML sets the seed
    built, expected = build(resolved), load_hyperpyyaml(resolved)
    assert built.keys() == expected.keys()
    plain = [name for name, one in expected.items() if isinstance(one, (int, float, str, list))]
    assert len(plain) > 20 and all(built[name] == expected[name] for name in plain)
    state = expected["model"].state_dict()
    assert built["model"].state_dict().keys() == state.keys()
    assert all(one.equal(state[name]) for name, one in built["model"].state_dict().items())

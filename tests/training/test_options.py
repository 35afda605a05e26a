"""The command line of a training: one name for one thing, published names beside it, wrong options one sentence."""

import re

import pytest
from hyperpyyaml import load_hyperpyyaml

from tests.support.recipes import ROOT, load_options, plain_options
from training.aliases import ALIASES, PARTS
from training.common_options import RunOptions, ScheduleOptions
from training.experiment import load_experiment
from training.option_help import describe_options
from training.option_schema import Count, Natural, NonNegative, Options, Path, Text, option
from training.options import (
    RUN_OPTIONS,
    given_options,
    name_options,
    read_command_line,
    read_keys,
)

YAML = """
fidelity: corrected
output_folder: !PLACEHOLDER
d_model: 8
grad_accumulation_factor: 2
n_warmup_steps: !ref 60 // <grad_accumulation_factor>
number_of_epochs: 2
skip_train: False
max_grad_norm: 5.0
"""


class Toy(Options):
    """Options of that YAML, but for d_model."""

    output_folder: Path = option("Folder of the run.")
    number_of_epochs: Count = option("Epochs.")
    skip_train: bool = option("Whether nothing is trained.")
    names: list[Text] | None = option("Names.")
    rate_low: NonNegative = option("Lowest rate.")
    rate_high: NonNegative = option("Highest rate.")


class Derived(Options):
    """The option that the YAML derives from another."""

    n_warmup_steps: Natural = option("Steps.")


@pytest.fixture
def yaml(tmp_path):
    """A small YAML."""
    path = tmp_path / "hparams.yaml"
    path.write_text(YAML)
    return path


@pytest.fixture(scope="module")
def keys_by_yaml():
    """Top-level keys of every YAML of the project."""
    return {path: read_keys(path) for path in sorted((ROOT / "hparams").rglob("*.yaml"))}


@pytest.mark.parametrize("alias", ALIASES)
def test_a_published_name_does_what_the_name_here_does(alias, keys_by_yaml):
    option = ALIASES[alias].option
    path = next(path for path, keys in keys_by_yaml.items() if option in keys)
    value = "True" if option == "skip_train" else "3"
    own = read_command_line([str(path), f"--{option}", value, "--test_only"])
    typed = True if option == "skip_train" else 3
    assert (own.overrides, own.aliases) == ({option: typed}, {})
    assert own.given == {option: value, "test_only": "True"}
    assert option not in RUN_OPTIONS or own.run_opts[option] == float(value)
    for words in ([f"--{alias}", value], [f"--{alias}={value}"]):
        published = read_command_line([str(path), *words, "--test_only"])
        assert published.aliases == {alias: option} and published[:-1] == own[:-1]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("value", ["X", "a b", "yes", "2024-01-01", 'run "1": {#2}'])
def test_a_published_name_of_a_part_keeps_the_other_parts(part, value, keys_by_yaml):
    (option, _), key = PARTS[part]
    path = next(path for path, keys in keys_by_yaml.items() if option in keys)
    whole = read_command_line([str(path), "--test_only"], RunOptions).values[option]
    for words in ([f"--{part}", value], [f"--{part}={value}"]):
        line = read_command_line([str(path), *words, "--test_only"], RunOptions)
        assert line.values[option] == whole | {key: value} and line.aliases == {part: option}
    with pytest.raises(SystemExit, match=f"--{part} has no value"):
        read_command_line([str(path), f"--{part}"], RunOptions)


def test_every_published_name_means_an_option_and_no_yaml_uses_it(keys_by_yaml):
    keys = {key for keys in keys_by_yaml.values() for key in keys}
    assert {alias.option for alias in ALIASES.values()} <= keys
    assert not ALIASES.keys() & keys and not ALIASES.keys() & RUN_OPTIONS
    assert all(alias.source for alias in ALIASES.values())


def test_a_key_of_the_yaml_is_never_taken_for_another_name(yaml):
    yaml.write_text(YAML + "N_epochs: 7\n")
    line = read_command_line([str(yaml), "--output_folder=x", "--N_epochs", "3"])
    assert line.given["N_epochs"] == "3" and line.aliases == {}


def test_a_run_keeps_its_options_under_the_names_here_and_its_log_tells_them(yaml, tmp_path):
    folder = tmp_path / "run"
    arguments = ["--output_folder", str(folder), "--N_epochs", "7", "--clip_grad_norm=3"]
    hparams, run_opts = load_options([str(yaml), *arguments])
    hparams["write_hyperparams"]()
    kept = (folder / "hyperparams.yaml").read_text()
    assert "number_of_epochs: 7\n" in kept and "max_grad_norm: 3.0\n" in kept
    assert "N_epochs" not in kept and "clip_grad_norm" not in kept
    assert hparams["invocation"]["overrides"] == {
        "output_folder": str(folder),
        "number_of_epochs": "7",
        "max_grad_norm": "3",
    }
    assert (hparams["number_of_epochs"], run_opts.max_grad_norm) == (7, 3.0)
    log = (folder / "log.txt").read_text()
    assert log.count("--N_epochs is --number_of_epochs here") == 1
    assert log.count("--clip_grad_norm is --max_grad_norm here") == 1


def test_a_run_option_that_the_yaml_has_too_changes_what_refers_to_it(yaml, tmp_path):
    arguments = ["--output_folder", str(tmp_path / "run"), "--grad_accumulation_factor", "4"]
    hparams, run_opts = load_options([str(yaml), *arguments])
    assert (hparams["n_warmup_steps"], run_opts.grad_accumulation_factor) == (15, 4)


def test_options_may_precede_the_yaml_and_values_may_hold_any_sign(yaml):
    line = read_command_line(
        ["--device", "cpu", "--debug", str(yaml), "--output_folder", "a=b", "--d_model", "-1"]
    )
    assert line.yaml == str(yaml) and line.run_opts.debug and line.run_opts.device == "cpu"
    assert line.overrides == {"output_folder": "a=b", "d_model": -1}


@pytest.mark.parametrize("name", ["dpmamba_XS", "conmamba_large", "retnet", "mamba_small"])
def test_help_lists_every_option_with_its_value_and_its_other_names(name, capsys):
    (path, *_) = (ROOT / "hparams").rglob(f"{name}.yaml")
    with pytest.raises(SystemExit) as end:
        read_command_line([str(path), "--help"])
    assert not end.value.code
    printed = capsys.readouterr().out
    for key in plain_options(path).keys() - {"lr_annealing", "lr_plateau"}:
        assert f"\n  --{key} " in printed
    for alias, (here, _) in ALIASES.items():
        assert (f"\n  --{alias}: --{here}\n" in printed) == (here in read_keys(path))
    # a run option that the YAML has too stands there once
    assert all(f"\n  --{run}: " in printed for run in ("device", "test_only"))
    assert printed.count("\n  --precision") == 1


def test_help_without_a_yaml_says_how_to_list_its_options(capsys):
    for arguments in (["--help"], ["-h"], ["--help", "none.yaml"]):
        with pytest.raises(SystemExit):
            read_command_line(arguments)
        assert "YAML --help lists them" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "no YAML file is given; the first argument is a YAML file"),
        (["nothing.yaml"], "nothing.yaml: no such file"),
        (["{yaml}"], "give a value for --output_folder"),
        (["{yaml}", "--output_folder", "x", "--d_modl", "4"], "did you mean --d_model"),
        (["{yaml}", "--output_folder", "x", "--N_epoch", "4"], "did you mean --number_of_epochs"),
        (["{yaml}", "--output_folder", "x", "--devic", "cpu"], "did you mean --device"),
        (["{yaml}", "--output_folder", "x", "--D_Model", "4"], "did you mean --d_model"),
        (["{yaml}", "--output_folder", "x", "--zebra", "4"], "has no such option"),
        # neither argparse nor SpeechBrain would say that it takes no notice of a beginning
        (["{yaml}", "--output_folder", "x", "--max_grad", "4"], "did you mean --max_grad_norm"),
        (["{yaml}", "--output_folder", "x", "--ssm_dim", "4"], "has no such option"),
        (["{yaml}", "--output_folder", "x", "--d_model", "1", "--d_model", "2"], "given twice"),
        (["{yaml}", "--output_folder", "x", "--N_epochs=1", "--number_of_epochs=1"], "two names"),
        (["{yaml}", "--output_folder", "x", "--epochs=1", "--N_epochs=1"], "give --number_of_epo"),
        (["{yaml}", "--output_folder", "x", "--N_epochs=1", "--N_epochs=2"], "--N_epochs is given"),
        (["{yaml}", "--output_folder", "x", "--N_epochs"], "--N_epochs has no value"),
        (["{yaml}", "--output_folder", "x", "--test_only", "maybe"], "must be true or false"),
        (["{yaml}", "--output_folder", "x", "--skip_train", "maybe"], "must be true or false"),
        (["{yaml}", "another.yaml", "--output_folder", "x"], "another.yaml: stands before any"),
        (["{yaml}", "--output_folder", "q1", "d_model", "5"], "did you mean --d_model"),
        (["{yaml}", "--output_folder="], "--output_folder must be a path"),
        (
            ["{yaml}", "--output_folder", "x", "--d_model", "!ref <nothing>"],
            '"nothing" is not valid',
        ),
        (["{yaml}", "--output_folder", "x", "--d_model", "[1,"], "cannot be read"),
        (
            ["{yaml}", "--output_folder=x", "--optimizer_step_limit=few"],
            "a whole number, 1 or more; got few",
        ),
        (["{yaml}", "--output_folder", "x", "--fidelity", "upsteam"], "corrected, upstream"),
        (["{yaml}", "--output_folder=x", "--device", "foo"], "a device such as cpu"),
        (["{yaml}", "--output_folder=x", "--device", "cuda:77"], "there"),
        (["{yaml}", "--output_folder=x", "--device=cpu", "--precision", "fp16"], "needs a GPU"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_command_line_gets_one_sentence_and_writes_nothing(
    arguments, message, yaml, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        load_experiment([part.format(yaml=yaml) for part in arguments], Toy)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hparams.yaml"]


def test_options_are_told_as_they_were_given():
    words = [
        "--seed",
        "3",
        "--test_only",
        "--lr=-0.1",
        "--jit_module_keys",
        "a",
        "b",
        "--shift",
        "-5",
    ]
    wanted = {"seed": "3", "test_only": "True", "lr": "-0.1", "jit_module_keys": "a b"}
    assert given_options(words) == wanted | {"shift": "-5"}


def test_the_document_has_the_options_of_every_recipe_and_every_published_name(keys_by_yaml):
    text = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    common, published = text.split("## Options of every recipe")[1].split("## Published names")
    listed = (describe_options(path) for path in keys_by_yaml)
    shared = set.intersection(
        *(set(re.findall(r"^  --(\w+) ", one, re.MULTILINE)) for one in listed)
    )
    assert set(re.findall(r"^\| `(\w+)` \|", common, re.MULTILINE)) == shared
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.+) \|$", published, re.MULTILINE)
    assert {name: (option, source) for name, option, source in rows} == ALIASES


def test_the_sections_of_every_yaml_have_one_order(keys_by_yaml):
    order = ("where", "data", "mixtures", "texts", "tokenizer", "training", "batches")
    order += ("augmentation", "features", "model", "decoding", "test", "logs", "objects")
    for path in keys_by_yaml:
        found = re.findall(r"^# --- (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert found == [name for name in order if name in found], path


@pytest.mark.parametrize(
    "content, message",
    [
        (b"a: [1", "cannot be read as YAML"),
        (b"\xff\xfe", "cannot be read as YAML"),
        (b"", "no top-level keys"),
        (b"- 1", "no top-level keys"),
    ],
)
def test_a_file_that_is_no_yaml_of_a_recipe_gets_one_sentence(content, message, tmp_path):
    path = tmp_path / "hparams.yaml"
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=f"hparams.yaml: .*{message}"):
        read_command_line([str(path), "--lr", "1"])


def test_an_error_of_an_object_names_the_options_of_its_arguments(yaml):
    yaml.write_text(
        "layers: 2\nrate: 1\nmodel: !new:x\n    n: !ref <layers>\n    rate: !ref <seed>\n"
    )
    assert name_options("n must be 1 or more", yaml) == "n must be 1 or more (n is --layers)"
    assert name_options("rate must be 1 or more", yaml) == "rate must be 1 or more"


def test_names_of_objects_get_objects_alone(yaml):
    yaml.write_text(YAML + "names: []\nmodules:\n    model: !ref <names>\n")
    line = [str(yaml), "--output_folder=x"]
    with pytest.raises(SystemExit, match="--modules must give every name an object"):
        read_command_line([*line, "--modules", "{a: 1}"], Toy)
    read_command_line([*line, "--modules", "{a: !ref <names>}"], Toy)


@pytest.mark.parametrize("text", ["abc", "0", "[]", "{a: 1}"])
def test_null_in_place_of_a_schedule_stays_null_and_a_schedule_stays_one(text, yaml):
    for schedule, wanted in (("null", "must be null; got"), ("!new:x", "must be null, or an obj")):
        yaml.write_text(f"{YAML}lr_plateau: {schedule}\n")
        with pytest.raises(SystemExit, match=f"--lr_plateau {wanted}"):
            read_command_line(
                [str(yaml), "--output_folder=x", "--lr_plateau", text], ScheduleOptions
            )


def test_the_error_of_a_derived_value_tells_its_formula(yaml):
    yaml.write_text(YAML.replace("60 // <grad_accumulation_factor>", "<d_model> - 9"))
    arguments = [str(yaml), "--output_folder=x"]
    with pytest.raises(SystemExit, match="0 or more; got -1 .by n_warmup_steps: <d_model> - 9"):
        read_command_line(arguments, Derived)


# what YAML would take for something else, or what references or comments are written with
LITERAL = (
    "run #1",
    "2024-01-01",
    "010",
    "1e5",
    "null",
    "yes",
    "a <d_model> b",
    "!new:x",
    "[a",
    "{a: 1}",
    "é: 1",
)
LITERAL += (
    "'a'",
    "~",
    "*a",
    "&a",
    "% b",
    "- c",
    "0x10",
    "1_000",
    "(1)",
    "<<",
    "@x",
    "a\tb",
    "=b",
    "--c",
)


@pytest.mark.parametrize("text", LITERAL)
def test_a_path_is_taken_literally_wherever_it_goes(text, yaml, tmp_path):
    yaml.write_text(
        YAML + "save_folder: !ref <output_folder>/save\nwhole: !ref <output_folder>\nnames: []\n"
    )
    folder = f"{tmp_path}/{text}"
    hparams, _ = load_options(
        [str(yaml), f"--output_folder={folder}", f"--names=[{text!r}, b]"], Toy
    )
    assert hparams["output_folder"] == hparams["whole"] == folder
    assert hparams["save_folder"] == f"{folder}/save" and (tmp_path / text / "log.txt").is_file()
    hparams["write_hyperparams"]()
    with open(f"{folder}/hyperparams.yaml", encoding="utf-8") as file:
        assert load_hyperpyyaml(file)["whole"] == folder
    line = read_command_line([str(yaml), f"--output_folder={text}"], Toy)
    assert line.overrides == {"output_folder": text} and line.values["whole"] == text


@pytest.mark.parametrize(
    "words, wanted",
    [
        (["--skip_train"], True),
        (["--skip_train", "no"], False),
        (["--skip_train=OFF"], False),
        (["--skip_train", "0"], False),
        (["--skip_train", "Yes"], True),
        ([], False),
    ],
)
@pytest.mark.parametrize("model", [Toy, Options])
def test_a_bare_switch_is_on_and_the_usual_words_turn_it_off(words, wanted, model, yaml):
    line = read_command_line([str(yaml), "--output_folder", "x", *words], model)
    assert line.values["skip_train"] is wanted
    run = [word.replace("skip_train", "test_only") for word in words]
    assert (
        read_command_line([str(yaml), *run, "--output_folder", "x"], model).run_opts.test_only
        is wanted
    )
    # the file may follow a bare switch
    assert read_command_line([*words, str(yaml), "--output_folder", "x"], Toy).yaml == str(yaml)


def test_all_that_is_wrong_is_told_together_and_the_yaml_is_checked_too(yaml):
    yaml.write_text(
        YAML.replace("number_of_epochs: 2", "number_of_epochs: two") + "rate_low: 2\nrate_high: 1\n"
    )
    arguments = [
        str(yaml),
        "--output_folder=x",
        "--d_modl=3",
        "--skip_train=maybe",
        "--device=foo",
        "--rate_low=-1",
    ]
    with pytest.raises(SystemExit) as end:
        read_command_line(arguments, Toy)
    lines = str(end.value).splitlines()
    assert [line.split()[0].strip(":") for line in lines] == [
        "--d_modl",
        "--skip_train",
        "--device",
        "--rate_low",
    ]
    with pytest.raises(
        SystemExit,
        match="hparams.yaml: number_of_epochs must be a whole number, 1 or more; got two",
    ):
        read_command_line(arguments[:2], Toy)
    with pytest.raises(SystemExit, match="--rate_low 2.0 must not be over --rate_high 1"):
        read_command_line([*arguments[:2], "--number_of_epochs=1", "--rate_low=2"], Toy)


def test_lists_may_be_words_and_nothing_at_all_is_an_empty_value(yaml):
    yaml.write_text(YAML + "names: [a]\n")
    for words, wanted in (
        (["a", "010"], ["a", "010"]),
        (["[a, 'b, #c']"], ["a", "b, #c"]),
        ([""], None),
    ):
        line = read_command_line([str(yaml), "--output_folder=x", "--names", *words], Toy)
        assert line.values["names"] == wanted


@pytest.mark.parametrize("text", ["1e-05", "1e-5", "0.00001", "+1e-05"])
def test_a_small_number_is_one_however_it_is_written(text, yaml, tmp_path):
    arguments = ["--output_folder", str(tmp_path / "run"), "--rate_low", text]
    yaml.write_text(YAML + "rate_low: 0\n")
    hparams, _ = load_options([str(yaml), *arguments], Toy)
    assert hparams["rate_low"] == 1e-5

"""Running a recipe's script within the test's own process, and reading what a run has written.

What is of one recipe alone, such as a small corpus in its layout, stands with that recipe's tests.
"""

import contextlib
import csv
import importlib
import multiprocessing
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import torch
import yaml
from speechbrain.utils.run_opts import RunOptions

from training.experiment import load_experiment
from training.option_schema import Options, fits
from training.option_values import branches
from training.resolved_yaml import key_nodes
from training.results import read_results, read_rows

ROOT = Path(__file__).parents[2]
# starts a script in two processes
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0")
TORCHRUN += ("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0")

# forking is quick; a fork server's first worker and every spawned one import torch
START_METHODS = [
    "fork",
    pytest.param("forkserver", marks=pytest.mark.exhaustive),
    pytest.param("spawn", marks=pytest.mark.exhaustive),
]


@contextlib.contextmanager
def workers_started_by(method):
    """Let a loader's workers start by fork, forkserver or spawn, as on another system or Python."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)


@contextlib.contextmanager
def one_thread():
    """Let torch compute on one thread, as in a loader's worker: other numbers of threads round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# All that a training says, each line by the logger's name and its text; progress bars end in a carriage return.
WORTH_SAYING = (
    r"speechbrain\.core - Experiment folder: .+",
    r"speechbrain\.core - Using (training|evaluation) precision: .+",
    r"speechbrain\.utils\.epoch_loop - Going into epoch \d+",
    r"speechbrain\.utils\.train_logger - (epoch|test set): .+",
    r"speechbrain\.utils\.checkpoints - (Saved an end-of-epoch checkpoint in|Loading a checkpoint from) .+",
    r"data_prep\.[\w.]+ - \S+: \d+ (utterances|clips|mixtures|speakers), .+",
    r"data_prep\.speakers\.held_out - .+: \d+ trials of \d+ recordings, \d+ of them target trials",
    r"data_prep\.speakers\.held_out - \d+ speakers of the trial lists, .+",
    r"data_prep\.speakers\.manifests - \S+: \d+ (target and \d+ impostor trials|recordings are shorter .+)",
    r"looking through .+",
    r"\w+ - \d+ words to train on",
    r"\w+ - for listening to a stream: the model has no class .+",
    r"hard_negatives - \d+ hard negatives in .+",
    r"training\.brain - \d+ (utterances|sentences|clips|mixtures|recordings) to train on, \d+ to validate",
    r"training\.brain - ([\d,]+ parameters|evaluating the average of \d+ checkpoint\(s\), epochs .+)",
    r"training\.experiment - (fidelity: corrected \(.+\)|what to do with it now, for example:)",
    r"modules\.ssm\.backends - [a-z ]+ on \w+: backend \w+",
    r"modules\.ssm\.cpu\.build - .+",
    r".*\d+%\|.*",
    r"",
)


def next_command(output):
    """The command that a training's output ends with, as words."""
    return shlex.split(output.splitlines()[-1])


def run_pasted(output, folder):
    """Run the command that a training's output ends with, as a shell does; gives the finished process."""
    return subprocess.run(
        output.splitlines()[-1],
        shell=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def check_output(output, folder):
    """What a whole run has said is worth saying, on the terminal, in ``log.txt`` and in ``train_log.txt``."""
    *lines, command = re.split(r"[\r\n]+", output.rstrip("\n"))
    assert [line for line in lines if not _worth_saying(line.strip())] == []
    *logged, last = (folder / "log.txt").read_text(encoding="utf-8").splitlines()
    assert last == command
    stamp = r"[\d-]+ [\d:,]+ - (\S+) - \w+ - (.*)"
    logged = [re.fullmatch(stamp, line).expand(r"\1 - \2") for line in logged]
    assert [line for line in logged if not _worth_saying(line)] == []
    figures = (folder / "train_log.txt").read_text(encoding="utf-8")
    rates = re.findall(r", lr: (\S+),", figures)
    assert rates and all(re.fullmatch(r"\d\.\d\de-\d\d", rate) for rate in rates)
    without_rates = re.sub(r", lr: \S+,", "", figures)
    assert not re.search(r"\de[+-]?\d", without_rates)


def _worth_saying(line):
    return any(re.fullmatch(pattern, line) for pattern in WORTH_SAYING)


def plain_options(path):
    """Top-level keys of a YAML that hold a number, a text, a switch or a list, with their values."""
    return {
        key: yaml.safe_load(yaml.serialize(value))
        for key, value in key_nodes(path).items()
        if value.tag.startswith("tag:") and not isinstance(value, yaml.MappingNode)
    }


def without_environment_description(monkeypatch):
    """Leave out SpeechBrain's list of all installed packages, for which it starts pip and git in every run.

    It takes longer than such a run.
    """
    monkeypatch.setattr("speechbrain.utils.logger.get_environment_description", lambda: "")


@contextlib.contextmanager
def scripts(monkeypatch, folder):
    """Gives the scripts of a recipe's folder as modules by name, the folder being where Python looks first."""
    without_environment_description(monkeypatch)
    monkeypatch.syspath_prepend(str(folder))
    names = {path.stem for path in Path(folder).glob("*.py")}
    forget(names)
    try:
        yield importlib.import_module
    finally:
        forget(names)


def load_options(arguments, options=Options):
    """Hyperparameters and run options of a command line, without SpeechBrain's list of all installed packages."""
    with pytest.MonkeyPatch.context() as patch:
        without_environment_description(patch)
        return load_experiment(arguments, options)


def as_arguments(options):
    """``--key value`` for each option."""
    return [part for key, value in options.items() for part in (f"--{key}", str(value))]


def run_script(folder, script, *arguments, launcher=(sys.executable,), check=True, wait=True):
    """Run a script in its folder; gives the process, its output in ``output`` if it has finished."""
    process = subprocess.Popen(
        [*launcher, script, *map(str, arguments)],
        cwd=folder,
        # the scripts import the installed packages; here, those of this tree. An earlier training in this process
        # leaves its level of the log in the environment
        env=os.environ | {"PYTHONPATH": str(ROOT), "SB_LOG_LEVEL": "INFO"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if wait:
        process.output, _ = process.communicate(timeout=300)
        assert not check or process.returncode == 0, process.output[-3000:]
    return process


def call_main(folder, script, *arguments):
    """Run a script's main() in this process, which spares it the seconds of importing everything."""
    with pytest.MonkeyPatch.context() as monkeypatch, scripts(monkeypatch, folder) as load:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        load(script).main()


def forget(names):
    """Forget scripts, since another recipe's have the same names."""
    for name in names:
        sys.modules.pop(name, None)


def command_line(path, *flags, small=(), **options):
    """Arguments of train.py; of ``small``, sizes of any network, those that the YAML does not know are left out."""
    known = plain_options(path) | RunOptions.__dataclass_fields__
    arguments = [str(path), "--noprogressbar", *flags]
    for key, value in options.items():
        if key in known or key not in small:
            arguments += [f"--{key}", str(value)]
    return arguments


def another(value, name=None, model=Options):
    """A value other than ``value``, of the same kind; lists are taken for speeds or names.

    An option that ``model`` declares gets another of its names, or another number of its range.
    """
    if name in model.model_fields:
        kind = model.type_of(name)
        candidates = _names(kind)
        if isinstance(value, int | float) and not isinstance(value, bool):
            candidates += [value + 1, value / 2, value - 1]
        candidates = [one for one in candidates if one != value and fits(kind, one)]
        if candidates:
            return candidates[0]
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [70, 130] if value and isinstance(value[0], int) else ["another"]
    return value + 1 if isinstance(value, (int, float)) else "another"


def _names(kind):
    """The named values of a type; of a list of names, a list of each."""
    names = []
    for bare, _ in branches(kind):
        if get_origin(bare) is Literal:
            names += get_args(bare)
        elif get_origin(bare) is list:
            names += [[one] for one in _names(get_args(bare)[0])]
    return names


def override(path, wanted, model=Options):
    """Load a YAML with options from the command line, and find each in what was loaded; gives it."""
    arguments = [str(path)]
    for key, value in wanted.items():
        text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
        if key in model.model_fields and (value is None or isinstance(value, str)):
            # declared texts are taken literally, and nothing is nothing at all
            text = value or ""
        arguments += [f"--{key}", text]
    hparams, run_opts = load_options(arguments, model)
    for key, value in wanted.items():
        # some belong to SpeechBrain's run options as well
        for got in (hparams[key], run_opts.get(key, value)):
            assert got == value or str(got) == str(value), key
    return hparams


def unused_options(yamls, recipe):
    """Options without effect, by YAML: no script reads them, no line refers to them, SpeechBrain has no such option."""
    folders = (recipe, ROOT / "training", ROOT / "mamba_speech")
    sources = "".join(
        path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py")
    )
    read = set(re.findall(r'"(\w+)"|hparams\.(\w+)', sources))
    known = {name for pair in read for name in pair} | set(RunOptions.__dataclass_fields__)
    unused = {}
    for path in yamls:
        referred = re.findall(r"<(\w+)>", path.read_text(encoding="utf-8"))
        left = plain_options(path).keys() - known - set(referred)
        if left:
            unused[path.name] = left
    return unused


def checkpoints(folder):
    """Complete checkpoints of a run, the oldest first."""
    found = [path.parent for path in (Path(folder) / "save").glob("CKPT*/CKPT.yaml")]
    return sorted(
        found, key=lambda path: yaml.safe_load((path / "CKPT.yaml").read_text())["unixtime"]
    )


def results(folder, test_set="test"):
    """A test set's row of a run's record."""
    return read_rows(folder)[test_set]


def check_record(folder, script, lists, sessions=2):
    """The record of a run that was trained in so many sessions and tested; gives it."""
    record = read_results(folder)
    assert (ROOT / record.recipe.folder / record.recipe.script).name == script
    training, last = record.training, record.training.sessions[-1]
    assert len(training.sessions) == sessions and training.started == training.sessions[0].started
    assert all(one.started <= one.ended <= training.ended for one in training.sessions)
    assert min(training.seconds, training.epochs, training.optimizer_steps) > 0
    assert training.parameters > 0 and training.peak_memory_mb > 0
    assert last.overrides["output_folder"] == str(folder) and (ROOT / last.yaml).is_file()
    assert last.lists.keys() == lists and last.seeds["seed"] and last.versions.torch
    for result in record.tests.values():
        epochs = result.checkpoints.epochs
        assert len(epochs) == len(result.checkpoints.values) and max(epochs) <= training.epochs
        assert result.optimizer_steps == training.optimizer_steps and result.items > 0
        hashes = [*last.lists.values(), *result.session.lists.values(), result.manifest]
        assert all(re.fullmatch("[0-9a-f]{64}", one) for one in hashes)
        assert result.date == result.session.ended and result.date >= training.ended
    return record


def read_csv(path):
    """Rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def logged(folder):
    """The epochs' figures, by name."""
    lines = (folder / "train_log.txt").read_text().splitlines()
    for line in (line for line in lines if line.startswith("epoch")):
        pairs = line.replace(" - ", ", ").split(", ")
        yield {name: float(value) for name, value in (pair.split(": ") for pair in pairs)}

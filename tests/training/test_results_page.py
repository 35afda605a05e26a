"""RESULTS.md is what its files say, its rows can be repeated, and a repeat says whether it falls into the interval."""

import argparse
import dataclasses
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.support.options import script_options
from tests.support.tested_runs import write_recogniser, write_record, write_spotter
from training.options import find_options, read_command_line
from training.provenance import processor
from training.results_page.__main__ import main, make_parser
from training.results_page.add import add, training_line
from training.results_page.entries import ROOT, Entry, read_entries, read_entry, repeat_interval
from training.results_page.page import make_page, rewrite, wrapped
from training.results_page.repeat import repeat, verdict

ENTRIES = read_entries()
REPEATABLE = sorted(name for name, entry in ENTRIES.items() if entry.minutes is not None)


def make_entry(**changed):
    """A row whose training is a line of Python."""
    output = "results/repeat/tiny"
    write = f"open('{output}/results.json', 'w').write('{{\"WER\": 5.0}}')"
    row = {"name": "tiny", "section": "demo", "model": "m", "parameters": 7, "unit": "%"}
    row |= {"trained_on": "a", "tested_on": "b", "metric": "WER", "better": "lower"}
    row |= {"figure": 5.0, "interval": [4.0, 6.0], "drawn": "speakers", "seeds": [1]}
    row |= {"by_seed": None, "deviation": None, "others": {}, "training_minutes": 1.0}
    row |= {"fidelity": None, "hardware": processor(), "date": None, "commit": None, "needs": []}
    row |= {"commands": {"train": [f'python -c "{write}"'.replace('"WER"', '\\"WER\\"')]}}
    row |= {"minutes": 1, "read": [{"file": f"{output}/results.json", "key": "WER"}]}
    row |= {"note": None}
    return Entry(**row | changed)


def write_entry(folder, name="tiny", **changed):
    found = dataclasses.asdict(make_entry(**changed))
    del found["name"]
    path = folder / f"{name}.json"
    path.write_text(json.dumps(found))
    return path


def test_the_page_and_the_tables_of_the_readmes_are_what_the_files_say(capsys):
    assert main(["write", "--check"]) == 0, capsys.readouterr().out


def test_every_row_has_its_section_its_figure_and_its_commands_on_the_page():
    page = (ROOT / "RESULTS.md").read_text()
    for entry in ENTRIES.values():
        assert f"### {entry.name}\n" in page
        assert entry.measured in page
        for line in entry.lines:
            assert wrapped(line) in page


def test_no_row_has_the_name_of_a_make_target():
    declared = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert not set(declared[1].split()) & set(ENTRIES)


@pytest.mark.parametrize("words", [["one", "two"], ["NAME=one two"]])
def test_make_results_takes_names_as_words_or_as_a_variable(words):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    # another make that runs the tests must not pass its options on, and a shell's NAME is none of ours
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--dry-run", "results", *words]
    environment = kept | {"NAME": "laptop"}
    done = subprocess.run(
        command, check=True, cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.stdout.count("training.results_page repeat one two\n") == 1


@pytest.mark.parametrize("name", REPEATABLE)
def test_every_command_of_a_repeatable_row_parses_and_writes_into_the_row_s_folder(
    name, monkeypatch
):
    monkeypatch.chdir(ROOT)
    entry = ENTRIES[name]
    places = [place["file"] for place in entry.read]
    assert all(place.startswith(f"results/repeat/{name}/") for place in places)
    for line in entry.lines:
        check_line(line.replace("$SPEECH_DATA", "/speech"))
    written = " ".join(
        line for stage in ("train", "test") for line in entry.commands.get(stage, ())
    )
    for place in places:
        assert place.rpartition("/")[0] in written


def check_line(line):
    """Whether a command names what is there, with options that its own parser takes."""
    words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=\S+", word)]
    program, *words = words
    if program == "pip":
        assert words[0] == "install"
        return
    if program == "torchrun":
        while words[0].startswith("--"):
            words.pop(0)
    else:
        assert program == "python", line
    if words[0] == "-m":
        parse_module(words[1], words[2:])
        return
    script, *arguments = words
    assert (ROOT / script).is_file(), script
    if arguments and arguments[0].endswith(".yaml"):
        read_command_line(arguments, find_options(ROOT / script))
        return
    given = {word[2:].partition("=")[0] for word in arguments if word.startswith("--")}
    assert given <= script_options(), line


def parse_module(module, arguments):
    if not module.startswith("data_prep."):
        found = importlib.import_module(module)
        found.make_parser().parse_args(arguments)
        return
    package = ROOT / module.replace(".", "/")
    found = importlib.import_module(f"{module}.__main__" if package.is_dir() else module)
    read = getattr(found, "parse_arguments", None)
    if read is not None:
        read(arguments)
    else:
        found.make_parser().parse_args(arguments)


def test_an_interval_of_three_seeds_is_student_s_and_holds_every_seed():
    entry = make_entry(seeds=[1, 2, 3], by_seed=[4.0, 5.0, 6.0], interval=[1.0, 9.0])
    low, high, origin = repeat_interval(entry)
    # the quantile of Student's t with two degrees of freedom, 4.3027, and one deviation of 1
    half = 4.302653 * (1 + 1 / 3) ** 0.5
    assert (round(low, 4), round(high, 4), origin) == (round(max(5 - half, 0), 4), 9.9683, "seeds")
    assert all(low <= seed <= high for seed in entry.by_seed)


def test_fewer_seeds_take_the_interval_of_the_test_and_it_holds_every_seed():
    assert repeat_interval(make_entry()) == (4.0, 6.0, "test")
    two = make_entry(seeds=[1, 2], by_seed=[3.5, 6.5])
    assert repeat_interval(two) == (3.5, 6.5, "test")
    assert repeat_interval(make_entry(interval=None)) is None


def test_an_interval_stays_within_what_a_figure_can_be():
    spread = {"seeds": [1, 2, 3], "by_seed": [90.0, 99.0, 99.0], "figure": 96.0}
    _, high, _ = repeat_interval(make_entry(metric="accuracy", better="higher", **spread))
    assert high == 100.0
    assert repeat_interval(make_entry(unit="dB", **spread))[1] > 100.0
    assert repeat_interval(make_entry(seeds=[1, 2, 3], by_seed=[0.1, 1.0, 9.0]))[0] == 0.0


def test_a_repeat_runs_its_commands_once_and_says_where_its_figure_falls(tmp_path, capfd):
    entry = make_entry()
    assert repeat(entry, tmp_path) == 0
    assert capfd.readouterr().out.splitlines()[-1] == (
        "tiny: WER 5.0 % falls into 4.0 to 6.0 % (of the test); RESULTS.md has 5.0 %"
    )
    assert repeat(entry, tmp_path) == 0
    assert "Done before" in capfd.readouterr().out
    assert repeat(dataclasses.replace(entry, interval=[1.0, 4.0], figure=3.0), tmp_path) == 1
    assert "lies above 1.0 to 4.0 %" in capfd.readouterr().out


def test_a_repeat_on_another_machine_names_both():
    inside, line = verdict(make_entry(hardware="ACME 3000 (sse2), 1 thread"), 4.5)
    assert inside
    assert line.endswith(f"this machine: {processor()}, recorded on: ACME 3000 (sse2), 1 thread")


def test_a_command_that_fails_is_named_and_run_again_the_next_time(tmp_path):
    output = "results/repeat/tiny"
    fails = f"test -e {output}/ready && echo '{{\"WER\": 5}}' > {output}/results.json"
    entry = make_entry(commands={"train": [fails]})
    with pytest.raises(ValueError, match="ended with status 1"):
        repeat(entry, tmp_path)
    (tmp_path / output / "ready").touch()
    assert repeat(entry, tmp_path) == 0


def test_a_folder_that_is_missing_is_named_before_anything_runs(tmp_path, monkeypatch):
    entry = make_entry(needs=["$SPEECH_DATA/words"])
    monkeypatch.delenv("SPEECH_DATA", raising=False)
    with pytest.raises(ValueError, match="set SPEECH_DATA to the folder"):
        repeat(entry, tmp_path)
    monkeypatch.setenv("SPEECH_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="words: no such folder"):
        repeat(entry, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_repeat_without_figure_or_without_command_says_so(tmp_path):
    with pytest.raises(ValueError, match="holds nothing under"):
        repeat(
            make_entry(read=[{"file": "results/repeat/tiny/repeat.json", "key": "a/b"}]), tmp_path
        )
    with pytest.raises(ValueError, match="tiny: no command repeats this row"):
        repeat(make_entry(minutes=None), tmp_path)


STOPPABLE = """
import signal, sys
from pathlib import Path
from training.results_page.__main__ import _interrupt
from training.results_page.entries import read_entry
from training.results_page.repeat import repeat
signal.signal(signal.SIGTERM, _interrupt)
folder = Path({folder!r})
sys.exit(repeat(read_entry(folder / "tiny.json", folder), folder))
"""


def test_a_repeat_that_is_stopped_ends_its_command_and_goes_on_there(tmp_path):
    output = "results/repeat/tiny"
    waits = f"echo $$ > {output}/child; test -e go || sleep 60"
    result = f"echo '{{\"WER\": 5}}' > {output}/results.json"
    lines = [f"echo first >> {output}/first", waits, result]
    write_entry(tmp_path, commands={"train": lines})
    command = [sys.executable, "-c", STOPPABLE.format(folder=str(tmp_path))]
    child = tmp_path / output / "child"
    with subprocess.Popen(command, cwd=ROOT) as process:
        while not (child.is_file() and child.read_text().strip()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(child.read_text()), 0)
    (tmp_path / "go").touch()
    subprocess.run(command, check=True, cwd=ROOT)
    assert (tmp_path / output / "first").read_text() == "first\n"


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"better": "more"}, "better is 'more'"),
        ({"commands": {"evaluate": ["a"]}}, "commands has evaluate"),
        ({"seeds": [1, 2], "by_seed": [1.0]}, "by_seed has 1 figures for 2 seeds"),
        ({"interval": None}, "no interval and no three seeds"),
        ({"figure": {"file": "no.json", "key": "a"}}, "no.json"),
        ({"figure": {"file": "tiny.json", "key": ["nothing"]}}, "holds nothing under"),
        ({"figure": {"file": "tiny.json", "key": "model"}}, "holds no number"),
        ({"read": []}, "no place to read the figure from"),
    ],
)
def test_a_row_that_is_wrong_is_named_with_its_problem(changed, problem, tmp_path):
    path = write_entry(tmp_path, **changed)
    with pytest.raises(ValueError, match=rf"tiny\.json: .*{problem}"):
        read_entry(path, tmp_path)


def test_a_row_with_a_field_too_much_or_too_little_or_of_a_wrong_name_is_refused(tmp_path):
    path = write_entry(tmp_path)
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"colour": 1}))
    with pytest.raises(ValueError, match="colour is no field"):
        read_entry(path, tmp_path)
    del found["drawn"]
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match="drawn is missing"):
        read_entry(path, tmp_path)
    with pytest.raises(ValueError, match="name it with words"):
        read_entry(write_entry(tmp_path, "Two_Words"), tmp_path)


def test_a_figure_can_stand_in_another_file_as_a_number_or_in_a_text(tmp_path):
    (tmp_path / "a.json").write_text(
        '[{"WER": "1,028.2 (-23.1 to 33.3)", "seeds": "1.5, 2.5, 3.5"}]'
    )
    place = {"file": "a.json", "key": [0, "WER"]}
    seeds = {"file": "a.json", "key": "0/seeds"}
    path = write_entry(tmp_path, figure=place, interval=place, by_seed=seeds, seeds=[1, 2, 3])
    entry = read_entry(path, tmp_path)
    assert (entry.figure, entry.interval, entry.by_seed) == (1028.2, [-23.1, 33.3], [1.5, 2.5, 3.5])


def test_a_section_that_the_page_does_not_know_is_named():
    with pytest.raises(ValueError, match="section is 'other', and must be one of demo,"):
        make_page({"tiny": make_entry(section="other")})


def test_a_block_of_another_document_is_made_anew_and_an_unknown_row_is_named():
    text = "a\n<!-- results: tiny -->\nold\n<!-- end of results -->\nb"
    made = rewrite(text, {"tiny": make_entry()})
    assert "WER 5.0 % (4.0 to 6.0)" in made and "old" not in made
    assert made.startswith("a\n") and made.endswith("\nb")
    with pytest.raises(ValueError, match="none: there is no such row"):
        rewrite(text.replace("tiny", "none"), {})


def add_options(row, runs, **changed):
    words = ["add", row, *map(str, runs), "--section", "demo", "--model", "m"]
    words += ["--trained_on", "a", "--tested_on", "b"]
    return argparse.Namespace(**vars(make_parser().parse_args(words)) | changed)


def test_a_row_from_three_seeds_has_their_mean_their_interval_and_the_first_s_command(tmp_path):
    runs = [
        write_recogniser(
            tmp_path / str(seed), [seed, 0, 1, 0], "test", seed=seed, WER=2.5 * (seed + 1)
        )
        for seed in (1, 2, 3)
    ]
    record_command(tmp_path / "1", data_folder=f"{tmp_path}/my/two words", noprogressbar="True")
    pairs = [f"{tmp_path}=$SPEECH_DATA"]
    path = add(add_options("my-row", runs, minutes=3.0, replace=pairs), tmp_path)
    entry = read_entry(path, tmp_path)
    assert entry.figure == 7.5 and entry.by_seed == [5.0, 7.5, 10.0] and entry.seeds == [1, 2, 3]
    assert entry.interval[0] <= 7.5 <= entry.interval[1] and entry.drawn == "utterances"
    assert entry.needs == ["$SPEECH_DATA/my"]
    (line,) = entry.commands["train"]
    assert line == (
        "OMP_NUM_THREADS=1 python recipes/A/B/train.py hparams/A/B/c.yaml "
        '--data_folder "$SPEECH_DATA/my/two words" --noprogressbar --output_folder results/repeat/my-row'
    )
    read = {
        "file": "results/repeat/my-row/results.json",
        "key": ["tests", "test", "figures", "WER"],
    }
    assert entry.read == [read]


def record_command(folder, **overrides):
    """Let a run's record tell how it was started."""
    path = folder / "results.json"
    found = json.loads(path.read_text())
    found["recipe"] = {"folder": "recipes/A/B", "script": "train.py"}
    for session in found["training"]["sessions"]:
        session |= {"yaml": "hparams/A/B/c.yaml", "overrides": overrides, "threads": 1}
    path.write_text(json.dumps(found))


def test_runs_of_one_seed_are_pooled_and_each_has_its_command(tmp_path):
    runs = [
        write_spotter(tmp_path / who, hits, speaker=who, accuracy=share)
        for who, hits, share in (("ada", [1, 1, 0, 0], 50.0), ("bob", [1] * 4, 100.0))
    ]
    for who in ("ada", "bob"):
        record_command(tmp_path / who, test_speaker=who)
    entry = read_entry(add(add_options("pooled", runs), tmp_path), tmp_path)
    assert entry.figure == 75.0 and entry.drawn == "clips" and entry.better == "higher"
    assert [line.rpartition("/")[2] for line in entry.commands["train"]] == ["1", "2"]
    assert [place["file"] for place in entry.read] == [
        f"results/repeat/pooled/{number}/results.json" for number in (1, 2)
    ]


def test_a_run_without_items_gives_a_row_without_interval(tmp_path):
    runs = [
        write_record(tmp_path / str(seed), "test", seed=seed, loss=1.0 + seed) for seed in (1, 2)
    ]
    for folder in runs:
        record_command(tmp_path / folder)
    entry = read_entry(add(add_options("lm", runs, metric="loss"), tmp_path), tmp_path)
    assert (entry.figure, entry.interval, entry.by_seed) == (2.5, None, [2.0, 3.0])


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"name": "No Name"}, "name the row with words"),
        ({"test": "dev"}, "was not tested on dev"),
        ({"metric": "BLEU"}, "--metric BLEU"),
        ({"replace": ["old"]}, "write OLD=NEW"),
    ],
)
def test_what_cannot_be_added_is_named(changed, problem, tmp_path):
    run = write_recogniser(tmp_path / "1", [1, 0], WER=5.0)
    record_command(tmp_path / "1")
    with pytest.raises(ValueError, match=problem):
        add(add_options("row", [run], **changed), tmp_path)


def test_a_record_that_contradicts_its_items_is_refused(tmp_path):
    run = write_recogniser(tmp_path / "1", [1, 0], WER=50.0)
    record_command(tmp_path / "1")
    with pytest.raises(ValueError, match="its items give WER 5.0000, and its record 50.0000"):
        add(add_options("row", [run]), tmp_path)


def test_a_training_of_several_processes_is_repeated_with_as_many(tmp_path):
    from training.results import read_results

    run = write_recogniser(tmp_path / "1", [1, 0], WER=5.0)
    record_command(tmp_path / "1", lr="0.001")
    record = read_results(run)
    record.training.sessions[0].world_size = 2
    line = training_line(record, record.tests["test"], "out")
    assert line == (
        "torchrun --standalone --nproc-per-node=2 recipes/A/B/train.py hparams/A/B/c.yaml --lr 0.001 "
        "--output_folder out"
    )


def test_a_name_that_is_no_row_ends_with_one_sentence_and_no_name_lists_them(capsys):
    assert main(["repeat", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("error: nothing: there is no such row. Rows: ")
    assert main(["repeat"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name} " in listed for name in REPEATABLE)

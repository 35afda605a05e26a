"""examples/demo.py: its figures, its control, and the whole of it in small."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from speechbrain.utils.metric_stats import ErrorRateStats

from tests.support.recipes import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture
def demo(monkeypatch):
    """The script's modules, imported as Python imports them for the script."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import demo
    import demo_report

    yield demo, demo_report
    for name in [name for name in sys.modules if name.startswith("demo")]:
        del sys.modules[name]


@pytest.fixture
def alignments(tmp_path):
    """A file of alignments of 40 utterances of 4 voices, and what is in it."""
    random = np.random.default_rng(0)
    words = np.array(["ONE", "TWO", "THREE", "FOUR", "ÄÖ", "ДА"])
    said = [list(random.choice(words, random.integers(1, 9))) for _ in range(40)]
    heard = [[word for word in text if random.random() < 0.8] for text in said]
    heard[0], heard[1] = [], ["ONE", "TWO", *said[1], "THREE"]
    names = [f"{7000 + index % 4}-100-{index:04d}" for index in range(40)]
    stats = ErrorRateStats()
    stats.append(names, heard, said)
    with open(tmp_path / "wer.txt", "w", encoding="utf-8") as file:
        stats.write_stats(file)
    truth = {
        name: (" ".join(a), " ".join(b)) for name, a, b in zip(names, said, heard, strict=True)
    }
    return tmp_path / "wer.txt", truth, stats.summarize("error_rate")


def test_alignments_give_back_the_texts_and_their_error_rate(demo, alignments):
    path, truth, wer = alignments
    utterances = demo[1].read_alignments(path)
    assert {one.id: (one.said, one.heard) for one in utterances} == truth
    assert demo[1].error_rate(utterances) == pytest.approx(wer)
    (path.parent / "none.txt").write_text("%WER 0.00\n")
    with pytest.raises(ValueError, match="none.txt: holds no alignments"):
        demo[1].read_alignments(path.parent / "none.txt")


def test_the_interval_holds_the_rate_and_voices_are_what_varies(demo, alignments):
    report = demo[1]
    utterances = report.read_alignments(alignments[0])
    low, high = report.interval(utterances, seed=1)
    assert low < report.error_rate(utterances) < high
    assert report.interval(utterances, seed=1) == (low, high)
    one_voice = report.by_voice(utterances)["7001"]
    rate = report.error_rate(one_voice)
    assert report.interval(one_voice, seed=1) == pytest.approx((rate, rate))


def test_pairs_are_drawn_by_seed_alone(demo, alignments):
    utterances = demo[1].read_alignments(alignments[0])
    drawn = demo[1].draw_pairs(utterances, 10, 3)
    assert len({one.id for one in drawn}) == 10
    assert demo[1].draw_pairs(utterances[::-1], 10, 3) == drawn
    assert demo[1].draw_pairs(utterances, 10, 4) != drawn


@pytest.mark.parametrize("count", [130, 51, 2])
def test_shuffled_transcripts_stay_the_same_texts_and_all_move(count, demo, tmp_path):
    rows = [{"ID": f"{i:03d}", "duration": 1 + i / 10, "wrd": f"TEXT {i}"} for i in range(count)]
    with open(tmp_path / "train.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    demo[0].shuffle_transcripts(tmp_path / "train.csv", tmp_path / "shuffled.csv", seed=1)
    with open(tmp_path / "shuffled.csv", newline="", encoding="utf-8") as file:
        shuffled = {row["ID"]: row["wrd"] for row in csv.DictReader(file)}
    assert Counter(shuffled.values()) == Counter(row["wrd"] for row in rows)
    moves = [abs(int(name) - int(text.split()[1])) for name, text in shuffled.items()]
    assert 0 < min(moves) and max(moves) < 2 * demo[0].SHUFFLE_GROUP


def test_a_folder_with_a_demo_of_other_options_is_refused(demo, tmp_path, capsys):
    folder = str(tmp_path / "demo")
    demo[0].Demo(demo[0].parse_arguments(["--output_folder", folder]))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert demo[0].main(["--output_folder", folder, "--seed", "2"]) == 1
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert "with other options (--seed was 1)" in capsys.readouterr().err


# the first is of the demo that trained a CTC recogniser
@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            '{"options": {"hours": 2.5, "number_of_epochs": 5, "seed": 1}, "stages": {}}',
            "another version",
        ),
        ("", "not a JSON file"),
        ("[]", "no record of a demo"),
        ("{}", "no record of a demo"),
        ('{"options": [], "stages": {}}', "no record of a demo"),
    ],
)
def test_a_folder_of_another_demo_is_refused_and_left_as_it_is(record, said, demo, tmp_path):
    (tmp_path / "demo.json").write_text(record, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{said}.*give another --output_folder"):
        demo[0].Demo(demo[0].parse_arguments(["--output_folder", str(tmp_path)]))
    assert (tmp_path / "demo.json").read_text(encoding="utf-8") == record


def test_an_output_folder_that_is_a_file_is_refused(demo, tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match="file is a file: give another --output_folder"):
        demo[0].Demo(demo[0].parse_arguments(["--output_folder", str(file)]))


def test_other_options_get_another_folder_so_that_each_command_works_again(demo):
    def folder(*options):
        return demo[0].parse_arguments(list(options)).output_folder.name

    assert folder() == folder("--hours", "3", "--seed", "1") == "demo"
    assert folder("--seed", "2") == "demo_seed_2" and folder("--epochs", "2") != folder()
    assert folder("--shuffle_transcripts") == "demo_shuffle_transcripts"


def test_epochs_fill_the_time_and_slower_machines_train_fewer(demo):
    from demo_plan import fit_epochs, steps_an_epoch

    for hours in (1, 3):
        found = [fit_epochs(500, seconds, hours) for seconds in (0.1, 0.2, 0.4, 0.8, 10)]
        assert found == sorted(found, reverse=True) and found[0] > 1 and found[-1] == 1
    assert fit_epochs(1000, 0.2, 3) > fit_epochs(500, 0.2, 3) > 500 / (0.2 * steps_an_epoch(3)) / 3


def test_one_process_takes_the_steps_of_two(demo):
    from demo_plan import training_command, training_environment

    launcher, options = training_command(1)
    assert launcher == [sys.executable] and options[-2:] == ["--grad_accumulation_factor", "2"]
    launcher, options = training_command(2)
    assert launcher[-1] == "--nproc-per-node=2" and "--grad_accumulation_factor" not in options
    assert training_environment(2)["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS", "1")


def show(lines, monkeypatch, bar=False, between=0):
    """A display that has followed such lines of a child."""
    import demo_console

    monkeypatch.setattr(demo_console, "SECONDS_BETWEEN", between)
    read, write = os.pipe()
    os.write(write, "".join(lines).encode())
    os.close(write)
    display = demo_console.StageDisplay(bar, epochs=2)
    with open(read, "rb") as stream:
        display.follow(stream)
    return display


EPOCH = "epoch: 1, lr: 1.0e-03 - train loss: 2.5 - valid loss: 2.0, valid WER: 90.5\n"


def test_without_a_terminal_lines_say_how_far_a_stage_is(demo, monkeypatch, capsys):
    lines = ["core - Going into epoch 1\n", "\r 45%|####     | 144/320 [00:30<00:37, 4.7it/s]\r"]
    show(lines, monkeypatch)
    assert "[0:00 min] epoch 1 of 2, 45 %" in capsys.readouterr().out
    # the second bar of an epoch is its validation
    show([*lines, "\r 25%|##   | 1/4 [00:01<00:03]\r"], monkeypatch)
    assert "[0:00 min] epoch 1 of 2 (dev voices), 25 %" in capsys.readouterr().out
    show(["\rspeaking train:  12%|##   | 1343/10800 s of speech [00:08]\r"], monkeypatch)
    assert "speaking train, 12 %" in capsys.readouterr().out
    show([EPOCH, "\r 50%|####     | 4/8 [00:30<00:37, 4.7it/s]\r"], monkeypatch, between=1000)
    shown = capsys.readouterr()
    assert "1/2" in shown.out and "90.5 %" in shown.out and "50 %" not in shown.out + shown.err


def test_a_terminal_sees_the_bar_and_no_lines_beside_it(demo, monkeypatch, capsys):
    show(["\r 45%|####     | 144/320 [00:30<00:37, 4.7it/s]\r"], monkeypatch, bar=True)
    shown = capsys.readouterr()
    assert "45%|####" in shown.err and "min]" not in shown.out


def test_a_failure_is_told_in_the_words_of_the_script_and_a_kill_by_its_signal(demo, monkeypatch):
    launcher = "E1128 torch/distributed/elastic/multiprocessing/api.py:100] failed (exitcode: 1)\n"
    display = show(["data_folder x does not exist\n", launcher, "a table\n"], monkeypatch)
    assert display.last_lines() == "data_folder x does not exist" and display.killed_by is None
    assert show([launcher.replace(": 1", ": -9")], monkeypatch).killed_by == 9
    loader = "[rank0]: RuntimeError: DataLoader worker (pid 15637) is killed by signal: Killed. \n"
    assert show([loader, "[rank1]: Connection closed\n", launcher], monkeypatch).killed_by == 9


@pytest.mark.parametrize(("load", "said"), [(1.1, False), (1.3, True), (None, False)])
def test_a_busy_machine_is_told_beside_the_time(load, said, demo, capsys):
    from demo_console import print_stages

    stage = {"seconds": 61.0, "starts": 1, "load_of_others": load}
    print_stages({"corpus": {"seconds": 1.0, "starts": 1}, "training": stage})
    shown = capsys.readouterr().out
    assert "1:02 min" in shown and ("Other programs" in shown) is said


def start(folder, *options, **process_options):
    command = [sys.executable, str(EXAMPLES / "demo.py"), "--output_folder", str(folder)]
    command += ["--hours", "0.02", "--test_minutes", "0.2", "--number_of_epochs", "1", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder.parent, env=environment, **pipes, **process_options)


def wait_for(path, process):
    """Wait until a demo has made a file."""
    deadline = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.1)


def stop(process, how):
    """Stop a demo as `kill` does, as Ctrl-C does, or so that it cannot clean up behind itself."""
    if how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM if how == "kill" else signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    if how == "kill -9":
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130 and "The same command goes on" in output, output


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", ["kill", "Ctrl-C", "kill -9"])
def test_a_demo_that_was_stopped_goes_on_and_a_finished_one_only_reports(how, tmp_path):
    folder = tmp_path / "demo"
    process = start(folder, start_new_session=True)
    wait_for(folder / "run" / "hyperparams.yaml", process)
    stop(process, how)
    for expected in (1, 2):
        process = start(folder)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        assert output.count("Done before; nothing to do.") == expected, output
    assert "unseen voices" in output and "has heard only synthetic speech" in output
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    low, high = report["WER_interval_95"]
    assert 0 <= low <= report["WER"] <= high and report["voices"] and report["pairs"]
    assert report["stages"]["training and test"]["starts"] == 2
    assert (folder / "learning_curve.png").exists() and (folder / "alignment.png").exists()


@pytest.mark.exhaustive
@pytest.mark.parametrize("processes", [1, 2])
def test_the_commands_that_a_demo_ends_with_work_when_they_are_pasted(processes, tmp_path):
    folder = tmp_path / "a demo"
    process = start(folder, "--processes", str(processes))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    sessions = json.loads((folder / "run" / "results.json").read_text())["training"]["sessions"]
    assert [session["world_size"] for session in sessions] == [processes]
    *_, advice = output.partition("What next")
    commands = [line.strip() for line in advice.splitlines() if line.startswith("  ")]
    assert len(commands) == 3 and commands.pop().startswith("make demo ")
    for command in commands:
        done = subprocess.run(
            command,
            shell=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    assert (tmp_path / "mine" / "results.json").is_file()

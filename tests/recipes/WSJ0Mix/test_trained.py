"""A trained separator: tested again, tested or trained on elsewhere, started by other commands."""

import shutil
import sys

import pytest
import soundfile

from tests.support.recipes import (
    TORCHRUN,
    check_output,
    checkpoints,
    logged,
    results,
    run_pasted,
    run_script,
)
from tests.support.separation import (
    RATE,
    RECIPE,
    command_line,
    same_weights,
    weights,
)


def test_a_pretrained_separator_is_tested_as_it_is_and_trained_on(run, trained, tmp_path):
    (saved,) = checkpoints(trained)
    tested = {"skip_train": True, "output_folder": tmp_path / "tested"}
    for source in (trained, saved):
        folder = run("mambatasnet_debug", pretrained_separator=source, **tested)
        assert results(folder)["si-snr"] == pytest.approx(results(trained)["si-snr"], abs=1e-4)
    further = run(
        "mambatasnet_debug",
        pretrained_separator=saved,
        output_folder=tmp_path / "further",
        lr=1e-60,
        number_of_epochs=1,
    )
    assert same_weights(saved, checkpoints(further)[-1])


def test_a_pretrained_separator_is_not_tested_for_a_record_that_cannot_be_read(
    run, trained, tmp_path
):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text('{"version": 2}')
    with pytest.raises(SystemExit, match="results.json: is of version 2"):
        run("mambatasnet_debug", pretrained_separator=trained, skip_train=True)
    assert not (tmp_path / "run" / "test_results.csv").exists()


def test_of_a_run_with_checkpoints_no_other_weights_are_tested_unsaid(
    run, trained, tmp_path, capsys
):
    folder = shutil.copytree(trained, tmp_path / "run")
    run("mambatasnet_debug", number_of_epochs=1, skip_train=True, pretrained_separator=folder)
    assert f"testing the checkpoints of {folder} and not {folder}" in "".join(capsys.readouterr())


def test_testing_again_changes_nothing(run, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    first = results(folder)
    for flags in (("--test_only",), ("--skip_train", "True")):
        (folder / "results.json").unlink()
        run("mambatasnet_debug", *flags)
        assert {**results(folder), "peak_memory_mb": 0} == {**first, "peak_memory_mb": 0}


@pytest.mark.exhaustive
def test_a_run_says_what_is_worth_saying_and_ends_with_a_command_that_works(
    tree, tmp_path, monkeypatch
):
    # an earlier training in this process has left its own there
    monkeypatch.delenv("SB_LOG_LEVEL", raising=False)
    folder = tmp_path / "a run"
    options = {"data_folder": tree, "output_folder": folder, "number_of_epochs": 1}
    output = run_script(RECIPE, "train.py", *command_line("mambatasnet_debug", **options)).output
    check_output(output, folder)
    pasted = run_pasted(output, RECIPE)
    assert pasted.returncode == 0 and pasted.stderr == "", pasted.stderr
    assert len(list((folder / "separated").glob("*.wav"))) == 2


def test_the_published_name_and_paths_work_and_say_the_new_ones(
    run, recipe, tree, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(RECIPE)
    options = ["--data_folder", tree, "--output_folder", tmp_path / "out", "--eval_only", "True"]
    yaml, options = "hparams/WSJ0Mix/mambatasnet_debug.yaml", list(map(str, options))
    for command in ([yaml, *options], [*options, yaml]):
        monkeypatch.setattr(sys, "argv", ["train_wsj0mix.py", *command])
        with pytest.raises(SystemExit, match="nothing to test"):
            recipe("train_wsj0mix").main()
        (line,) = capsys.readouterr().err.splitlines()[:1]
        assert f"{yaml} is hparams/mambatasnet_debug.yaml" in line


@pytest.mark.exhaustive
def test_torchrun_trains_on_two_processes_to_the_end(tree, tmp_path):
    # how processes share dynamic mixtures is tested with the data set
    options = {"data_folder": tree, "output_folder": tmp_path, "num_workers": 1}
    options |= {
        "batch_size": 1,
        "number_of_epochs": 2,
        "device": "cpu",
    }
    arguments = command_line("mambatasnet_debug", **options)
    run_script(RECIPE, "train.py", *arguments, launcher=TORCHRUN)
    assert results(tmp_path)["mixtures"] == 4
    assert [figures["steps"] for figures in logged(tmp_path)] == [4, 8]
    assert not any(name.startswith("module.") for name in weights(checkpoints(tmp_path)[-1]))
    assert (checkpoints(tmp_path)[-1] / "random_state.rank1.ckpt").exists()


def test_the_saved_sources_neither_clip_nor_vanish(run, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run") / "audio_results"
    run("mambatasnet_debug", "--test_only", n_audio_to_save=2)
    names = ("mix", "source1", "source1hat", "source2", "source2hat")
    saved = sorted(file.name for file in folder.glob("*.wav"))
    assert saved == [f"item{number}_{name}.wav" for number in (1, 2) for name in names]
    for number in (1, 2):
        mix, _ = soundfile.read(folder / f"item{number}_mix.wav")
        for speaker in (1, 2):
            source, rate = soundfile.read(folder / f"item{number}_source{speaker}hat.wav")
            assert rate == RATE and len(source) == len(mix) and 0 < abs(source).max() < 1

"""train_CTC.py: every YAML, torchrun, one's own speech; and what both scripts promise of runs that are resumed."""

import shutil
import signal
import time

import pytest
import torch

from tests.support.recipes import TORCHRUN, check_record
from tests.support.recognition import DEBUG, RECIPE, SPLITS, epoch_checkpoints, run_script, weights
from training.results import read_results, read_rows

YAMLS = sorted(path.stem for path in (RECIPE / "hparams" / "CTC").glob("*.yaml"))
# sizes only: the rest of each YAML stays as it is
SMALL = {"d_model": 16, "d_ffn": 16, "num_encoder_layers": 3, "num_workers": 0, "n_warmup_steps": 2}
SMALL |= {"max_batch_length_train": 15, "max_batch_ex": 8, "output_neurons": 40}
STREAMING = ("CTC", "conmamba_streaming_debug")
TORN = "CKPT+2000-01-01+00-00-00+00"


def tear_a_checkpoint(run):
    """Leave behind what a kill in the middle of saving does."""
    torn = run / "save" / TORN
    torn.mkdir()
    (torn / "model.ckpt").write_bytes(b"half")


@pytest.mark.exhaustive
@pytest.mark.parametrize("yaml", YAMLS)
def test_every_yaml_trains_saves_resumes_and_tests(yaml, call_main, spoken, tmp_path):
    run = tmp_path / "run"
    options = SMALL | SPLITS | {"data_folder": spoken, "output_folder": run}
    options |= {"precision": "bf16" if "large" in yaml else "fp32", "beam_size": 4}
    if "large" in yaml:
        options["grad_accumulation_factor"] = 2
    call_main("CTC", yaml, **options, number_of_epochs=1)
    before = weights(run)
    call_main("CTC", yaml, **options, number_of_epochs=2)
    log = (run / "log.txt").read_text()
    assert "fidelity: corrected" in log
    assert "Loading a checkpoint" in log and "Going into epoch 2" in log
    assert any(not torch.equal(before[k], v) for k, v in weights(run).items())
    results = read_rows(run)["test-spoken"]
    assert results["fidelity"] == "corrected" and 0 <= results["WER"] and results["utterances"] > 0
    assert results["optimizer_steps"] >= 2
    check_record(run, "train_CTC.py", {"train", "valid", "tokenizer"})
    assert "%WER" in (run / "wer_test-spoken.txt").read_text()


@pytest.mark.exhaustive
def test_upstream_fidelity_trains_and_its_results_say_so(call_main, spoken, tmp_path):
    options = SMALL | SPLITS | {"data_folder": spoken, "grad_accumulation_factor": 1}
    for yaml in ("conmamba_large", "conformer_large"):
        options["output_folder"] = tmp_path / yaml
        call_main(
            "CTC",
            yaml,
            **options,
            fidelity="upstream",
            optimizer_step_limit=1,
            test_decoding="greedy",
        )
        results = read_rows(tmp_path / yaml)["test-spoken"]
        assert results["fidelity"] == "upstream" and results["optimizer_steps"] == 1


def test_a_run_resumed_beside_a_torn_checkpoint_ends_where_an_uninterrupted_one_does(
    debug_run, call_main, tmp_path
):
    kind, options, first = debug_run
    whole, parts = tmp_path / "whole", shutil.copytree(first, tmp_path / "parts")
    tear_a_checkpoint(parts)
    for folder in (whole, parts):
        call_main(kind, DEBUG[kind], **options, output_folder=folder, number_of_epochs=2)
    log = (parts / "train_log.txt").read_text()
    assert log.count("epoch: 1,") == 1 and log.count("epoch: 2,") == 1
    assert not (parts / "save" / TORN).exists() and not list(parts.rglob("*.partial"))
    expected, found, before = weights(whole), weights(parts), weights(first)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert any(not torch.equal(before[key], found[key]) for key in expected)
    old, new = (read_rows(f)["test-spoken"] for f in (first, parts))
    assert new["fidelity"] == "corrected" and 0 <= new["WER"] and new["utterances"] > 0
    assert new["optimizer_steps"] > old["optimizer_steps"] > 0
    assert new["train_seconds"] > old["train_seconds"] > 0
    assert "%WER" in (parts / "wer_test-spoken.txt").read_text()


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind, yaml", [*DEBUG.items(), STREAMING], ids=lambda one: one)
def test_a_killed_run_goes_on_from_its_last_checkpoint(kind, yaml, call_main, spoken, tmp_path):
    run = tmp_path / "run"
    options = SPLITS | {"data_folder": spoken, "max_batch_length_train": 10, "number_of_epochs": 2}
    options |= {"ckpt_interval_steps": 1, "ckpt_interval_minutes": 0}
    options |= {"valid_beam_size": 1, "test_beam_size": 1} if kind == "S2S" else {}
    if (kind, yaml) == STREAMING:
        # batches of several workers draw the chunks that they would have drawn
        options |= {"num_workers": 2, "chunk_sizes": "[1, 3, 9]"}
    process = run_script(kind, yaml, **options, output_folder=run, wait=False)
    deadline = time.monotonic() + 240
    while not list(run.glob("save/CKPT*/CKPT.yaml")):
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    tear_a_checkpoint(run)
    for folder in (run, tmp_path / "whole"):
        call_main(kind, yaml, **options, output_folder=folder)
    assert "Loading a checkpoint" in (run / "log.txt").read_text()
    assert not (run / "save" / TORN).exists()
    record = read_results(run)
    assert record.tests and not list(run.rglob("*.partial"))
    assert [session.ended is None for session in record.training.sessions] == [True, False]
    interrupted, uninterrupted = weights(run), weights(tmp_path / "whole")
    assert all(torch.equal(interrupted[k], v) for k, v in uninterrupted.items())


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind, yaml", [*DEBUG.items(), STREAMING], ids=lambda one: one)
def test_torchrun_trains_and_tests_on_two_processes(kind, yaml, spoken, tmp_path):
    done = run_script(
        kind,
        yaml,
        launcher=TORCHRUN,
        **SPLITS,
        data_folder=spoken,
        output_folder=tmp_path / "run",
        device="cpu",
        max_batch_length_train=10,
        number_of_epochs=2,
    )
    record = read_results(tmp_path / "run")
    assert "test-spoken" in record.tests, done.output[-2000:]
    (session,) = record.training.sessions
    assert session.world_size == 2 and session.lists.keys() == {"train", "valid", "tokenizer"}
    assert (epoch_checkpoints(tmp_path / "run")[-1] / "random_state.rank1.ckpt").exists()


@pytest.mark.exhaustive
def test_own_speech_in_any_language_format_and_rate(train_ctc, own_speech, tmp_path):
    done = train_ctc(
        "conmamba_debug",
        train_manifest=own_speech / "train.csv",
        valid_manifest=own_speech / "valid.jsonl",
        test_manifests=f"[{own_speech / 'valid.jsonl'}]",
        output_folder=tmp_path / "run",
        optimizer_step_limit=2,
    )
    # once, whichever process of the loader meets such audio
    assert done.output.count("audio at 8000 Hz is resampled to 16000 Hz") == 1
    text = (tmp_path / "run" / "wer_test-valid.txt").read_text(encoding="utf-8")
    assert "доброе" in text


@pytest.mark.exhaustive
def test_the_loss_falls_on_real_speech(call_main, data, tmp_path):
    """Two minutes at most of training on recorded voices; steps are counted, not seconds."""
    call_main(
        "CTC",
        "conmamba_mini",
        data_folder=data("librispeech_asr"),
        output_folder=tmp_path / "run",
        train_splits="[test-other]",
        dev_splits="[test-clean]",
        test_splits="[test-clean]",
        speed_perturb="null",
        number_of_epochs=3,
        max_batch_length_train=30,
        n_warmup_steps=10,
    )
    lines = (tmp_path / "run" / "train_log.txt").read_text().splitlines()
    losses = [float(line.split("train loss: ")[1].split(",")[0]) for line in lines[:3]]
    assert losses[-1] < 0.9 * losses[0], lines

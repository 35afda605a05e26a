"""train_CTC.py as a user runs it: every YAML, resuming, torchrun, one's own speech; both scripts being killed."""

import signal
import sys
import time

import pytest
import torch

from tests.asr.conftest import RECIPE, SPLITS, checkpoints, run_script, weights
from tests.recipes import check_record
from training.results import read_results, read_rows

YAMLS = sorted(path.stem for path in (RECIPE / "hparams" / "CTC").glob("*.yaml"))
# sizes only: the rest of each YAML stays as it is
SMALL = {"d_model": 16, "d_ffn": 16, "num_encoder_layers": 3, "num_workers": 0, "n_warmup_steps": 2}
SMALL |= {"max_batch_length_train": 15, "max_batch_ex": 8, "output_neurons": 40}


@pytest.mark.exhaustive
@pytest.mark.parametrize("yaml", YAMLS)
def test_every_yaml_trains_saves_resumes_and_tests(yaml, train_ctc, spoken, tmp_path):
    options = SMALL | SPLITS | {"data_folder": spoken, "output_folder": tmp_path / "run"}
    options |= {"precision": "bf16" if "large" in yaml else "fp32", "beam_size": 4}
    if "large" in yaml:
        options["grad_accumulation_factor"] = 2
    first = train_ctc(yaml, **options, number_of_epochs=1)
    assert "fidelity: corrected" in first.output
    before = weights(tmp_path / "run")
    resumed = train_ctc(yaml, **options, number_of_epochs=2)
    assert "Loading a checkpoint" in resumed.output and "Going into epoch 2" in resumed.output
    assert any(not torch.equal(before[k], v) for k, v in weights(tmp_path / "run").items())
    results = read_rows(tmp_path / "run")["test-spoken"]
    assert results["fidelity"] == "corrected" and 0 <= results["WER"] and results["utterances"] > 0
    assert results["optimizer_steps"] >= 2
    check_record(tmp_path / "run", "train_CTC.py", {"train", "valid", "tokenizer"})
    assert "%WER" in (tmp_path / "run" / "wer_test-spoken.txt").read_text()


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


@pytest.mark.exhaustive
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(call_main, spoken, tmp_path):
    options = SPLITS | {"data_folder": spoken, "total_steps": 20, "max_batch_length_train": 15}
    call_main(
        "CTC", "conmamba_debug", **options, output_folder=tmp_path / "whole", number_of_epochs=2
    )
    for epochs in (1, 2):
        call_main(
            "CTC",
            "conmamba_debug",
            **options,
            output_folder=tmp_path / "parts",
            number_of_epochs=epochs,
        )
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind, yaml", [("CTC", "conmamba_debug"), ("S2S", "conmambamamba_debug")])
def test_a_killed_run_goes_on_from_its_last_checkpoint(kind, yaml, spoken, tmp_path):
    options = SPLITS | {"data_folder": spoken, "output_folder": tmp_path / "run"}
    options |= {"max_batch_length_train": 6}
    options |= {"ckpt_interval_steps": 1, "ckpt_interval_minutes": 0, "number_of_epochs": 2}
    process = run_script(kind, yaml, **options, wait=False)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("save/CKPT*/CKPT.yaml")):
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # what a kill in the middle of saving leaves behind
    torn = tmp_path / "run" / "save" / "CKPT+2000-01-01+00-00-00+00"
    torn.mkdir()
    (torn / "model.ckpt").write_bytes(b"half")
    done = run_script(kind, yaml, **options)
    assert "Loading a checkpoint" in done.output and not torn.exists()
    record = read_results(tmp_path / "run")
    assert record.tests and not list((tmp_path / "run").rglob("*.partial"))
    assert [session.ended is None for session in record.training.sessions] == [True, False]
    whole = run_script(kind, yaml, **options | {"output_folder": tmp_path / "whole"})
    assert whole.returncode == 0
    interrupted, uninterrupted = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(interrupted[k], v) for k, v in uninterrupted.items())


@pytest.mark.exhaustive
def test_torchrun_trains_on_two_processes(train_ctc, spoken, tmp_path):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2")
    launcher += ("--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0")
    done = train_ctc(
        "conmamba_debug",
        launcher=launcher,
        **SPLITS,
        data_folder=spoken,
        output_folder=tmp_path / "run",
        distributed_backend="gloo",
        max_batch_length_train=10,
        number_of_epochs=2,
    )
    record = read_results(tmp_path / "run")
    assert "test-spoken" in record.tests, done.output[-2000:]
    (session,) = record.training.sessions
    assert session.world_size == 2 and session.lists.keys() == {"train", "valid", "tokenizer"}
    assert (checkpoints(tmp_path / "run")[-1] / "random_state.rank1.ckpt").exists()


@pytest.mark.exhaustive
@pytest.mark.parametrize("token_type, size", [("char", 40), ("unigram", 28)])
def test_own_speech_in_any_language_format_and_rate(
    token_type, size, train_ctc, own_speech, tmp_path
):
    done = train_ctc(
        "conmamba_debug",
        train_manifest=own_speech / "train.csv",
        valid_manifest=own_speech / "valid.jsonl",
        test_manifests=f"[{own_speech / 'valid.jsonl'}]",
        output_folder=tmp_path / "run",
        token_type=token_type,
        output_neurons=size,
        optimizer_step_limit=2,
    )
    assert done.output.count("audio at 8000 Hz is resampled to 16000 Hz") == 1
    text = (tmp_path / "run" / "wer_test-valid.txt").read_text(encoding="utf-8")
    assert "доброе" in text


@pytest.mark.exhaustive
def test_the_loss_falls_on_real_speech(train_ctc, data, tmp_path):
    """Two minutes at most of training on recorded voices; steps are counted, not seconds."""
    done = train_ctc(
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
    assert losses[-1] < 0.9 * losses[0], done.output[-1000:]

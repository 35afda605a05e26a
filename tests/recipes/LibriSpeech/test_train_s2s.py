"""train_S2S.py: every YAML, torchrun, searches in validation, language models, one's own speech."""

import re

import pytest
import torch

from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.evaluation.wer import read_errors
from tests.support.recipes import check_record
from tests.support.recognition import (
    LM_SIZES,
    RECIPE,
    SPLITS,
    transcripts,
    weights,
    write_transformer_lm,
)
from training.results import read_rows as results

YAMLS = sorted(path.stem for path in (RECIPE / "hparams" / "S2S").glob("*.yaml"))
# sizes only: the rest of each YAML stays as it is
SMALL = {"d_model": 16, "d_ffn": 16, "nhead": 2, "num_encoder_layers": 3, "num_decoder_layers": 1}
SMALL |= {"num_workers": 0, "n_warmup_steps": 2, "max_batch_length_train": 15, "max_batch_ex": 8}
SMALL |= {"output_neurons": 40, "pretrained_lm_tokenizer_path": ""}
SMALL |= {"valid_beam_size": 1, "test_beam_size": 2, "max_decode_ratio": 0.2}
# a network that has learnt nothing ends no hypothesis early
NARROW = {"valid_beam_size": 1, "test_beam_size": 2, "max_decode_ratio": 0.1}


@pytest.mark.exhaustive
@pytest.mark.parametrize("yaml", YAMLS)
def test_every_yaml_trains_saves_resumes_and_tests(yaml, call_main, spoken, tmp_path):
    options = SMALL | SPLITS | {"data_folder": spoken, "output_folder": tmp_path / "run"}
    options |= {"precision": "fp32" if "mini" in yaml or "debug" in yaml else "bf16"}
    options |= {"grad_accumulation_factor": 2 if "large" in yaml else 1}
    options |= {"intermediate_layer": 2} if "plus" in yaml else {}
    call_main("S2S", yaml, **options, number_of_epochs=1)
    before, first = weights(tmp_path / "run"), results(tmp_path / "run")["test-spoken"]
    call_main("S2S", yaml, **options, number_of_epochs=2)
    log = (tmp_path / "run" / "train_log.txt").read_text()
    assert log.count("epoch: 1,") == 1 and log.count("epoch: 2,") == 1
    assert any(not torch.equal(before[k], v) for k, v in weights(tmp_path / "run").items())
    row = results(tmp_path / "run")["test-spoken"]
    assert row["fidelity"] == "corrected" and 0 <= row["WER"] and row["utterances"] > 0
    assert row["decoding"] == {"beam_size": 2, "ctc_weight": 0.4, "ctc_scoring": "exact"}
    assert row["optimizer_steps"] > first["optimizer_steps"] > 0
    check_record(tmp_path / "run", "train_S2S.py", {"train", "valid", "tokenizer"})
    assert row["train_seconds"] > first["train_seconds"] > 0
    assert row["peak_memory_mb"] >= first["peak_memory_mb"] > 0
    assert "%WER" in (tmp_path / "run" / "wer_test-spoken.txt").read_text()
    errors = read_errors(tmp_path / "run" / "errors_test-spoken.csv")
    wrong, words = (sum(row[part] for row in errors.values()) for part in (1, 0))
    assert row["WER"] == pytest.approx(100 * wrong / words, abs=1e-3)


@pytest.mark.exhaustive
@pytest.mark.parametrize("yaml", ["conmamba_small", "conmambamamba_small", "conformer_small"])
def test_upstream_fidelity_trains_and_its_results_say_so(yaml, call_main, spoken, tmp_path):
    options = SMALL | SPLITS | {"data_folder": spoken, "output_folder": tmp_path}
    options |= {"grad_accumulation_factor": 1}
    call_main("S2S", yaml, **options, fidelity="upstream", optimizer_step_limit=1)
    row = results(tmp_path)["test-spoken"]
    assert row["fidelity"] == "upstream" and row["optimizer_steps"] == 1


def test_validation_searches_every_so_many_epochs_and_in_the_last(call_main, spoken, tmp_path):
    options = SPLITS | NARROW | {"data_folder": spoken, "output_folder": tmp_path}
    options |= {"test_splits": "null"}
    call_main("S2S", "conmamba_debug", **options, valid_search_interval=2, number_of_epochs=3)
    epochs = (tmp_path / "train_log.txt").read_text().splitlines()
    assert ["valid WER" in line for line in epochs] == [False, True, True]
    assert all("valid token_error" in line for line in epochs)


def test_two_masked_views_of_a_batch_train_once_the_warm_up_is_over(call_main, spoken, tmp_path):
    options = SPLITS | {"data_folder": spoken, "number_of_epochs": 1, "test_splits": "null"}
    options |= NARROW | {"optimizer_step_limit": 2}
    losses = {}
    for weight, steps in ((0.0, 0), (0.2, 0), (0.2, 1000)):
        folder = tmp_path / f"{weight}-{steps}"
        options |= {"output_folder": folder, "consistency_weight": weight, "augment_warmup": steps}
        call_main("S2S", "conmamba_debug", **options)
        log = (folder / "train_log.txt").read_text()
        losses[weight, steps] = float(re.search(r"train loss: (\S+),", log)[1])
    assert len(set(losses.values())) == 3


def test_test_sets_are_decoded_without_and_with_the_language_model_in_one_run(
    call_main, spoken, tmp_path
):
    Tokenizer.train(transcripts(spoken), tmp_path / "tokenizer.model", "unigram", 45)
    lm = write_transformer_lm(tmp_path / "lm", tmp_path / "tokenizer.model")
    run = tmp_path / "run"
    options = (
        SPLITS | LM_SIZES | {"data_folder": spoken, "output_folder": run, "output_neurons": 45}
    ) | NARROW
    options |= {"number_of_epochs": 1, "lm_weight": 5.0}
    call_main("S2S", "conmamba_debug", **options, pretrained_lm_tokenizer_path=lm)
    assert (run / "save" / "tokenizer.model").read_bytes() == (lm / "tokenizer.ckpt").read_bytes()
    rows = results(run)
    assert set(rows) == {"test-spoken", "test-spoken_lm"}
    assert rows["test-spoken_lm"]["decoding"]["lm"] == str(lm)
    assert "lm" not in rows["test-spoken"]["decoding"]
    assert rows["test-spoken"]["token_error"] == rows["test-spoken_lm"]["token_error"]
    alone, with_lm = (run / f"wer_test-spoken{part}.txt" for part in ("", "_lm"))
    assert alone.read_text() != with_lm.read_text()
    # its tokenizer alone
    for path in (run / "results.json", alone, with_lm):
        path.unlink()
    options |= {"pretrained_lm_tokenizer_path": lm, "skip_train": True}
    call_main("S2S", "conmamba_debug", **options, no_lm=True)
    assert set(results(run)) == {"test-spoken"} and alone.exists() and not with_lm.exists()


def test_a_language_model_of_the_runs_own_tokenizer_fits_and_one_of_others_is_refused(
    call_main, spoken, tmp_path
):
    run = tmp_path / "run"
    options = SPLITS | LM_SIZES | NARROW | {"data_folder": spoken, "output_folder": run}
    call_main("S2S", "conmamba_debug", **options | {"test_splits": "null"}, optimizer_step_limit=1)
    own = write_transformer_lm(tmp_path / "own", run / "save" / "tokenizer.model")
    # whether training is asked for or not
    for more in ({"optimizer_step_limit": 1}, {"skip_train": True}):
        call_main("S2S", "conmamba_debug", **options, **more, pretrained_lm_tokenizer_path=own)
        assert "test-spoken_lm" in results(run)
    Tokenizer.train(["AB BA CD", "DC"], tmp_path / "tokenizer.model", "char", 12)
    other = write_transformer_lm(tmp_path / "other", tmp_path / "tokenizer.model")
    with pytest.raises(SystemExit, match="other tokens than .*tokenizer.model, which a model was"):
        call_main("S2S", "conmamba_debug", **options, pretrained_lm_tokenizer_path=other)
    options |= {"skip_train": True}
    with pytest.raises(SystemExit, match="has another tokenizer"):
        call_main("S2S", "conmamba_debug", **options, pretrained_lm_tokenizer_path=other)


def test_own_speech_is_recognised_by_subwords(call_main, own_speech, tmp_path):
    call_main(
        "S2S",
        "conmambamamba_debug",
        train_manifest=own_speech / "train.csv",
        valid_manifest=own_speech / "valid.jsonl",
        test_manifests=f"[{own_speech / 'valid.jsonl'}]",
        output_folder=tmp_path / "run",
        output_neurons=28,
        optimizer_step_limit=2,
    )
    text = (tmp_path / "run" / "wer_test-valid.txt").read_text(encoding="utf-8")
    assert "доброе" in text

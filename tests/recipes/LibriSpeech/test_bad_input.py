"""What the sequence-to-sequence recipe is given and cannot use gets one sentence, before training where it can be."""

import shutil

import pytest

from mamba_speech.asr.tokenizer import Tokenizer
from tests.support.recognition import (
    LM_SIZES,
    SPLITS,
    epoch_checkpoints,
    transcripts,
    write_transformer_lm,
)


@pytest.fixture
def refused(call_main, spoken, tmp_path):
    """Run train_S2S.py on the debug model; gives the one sentence that it ends with."""

    def run(**options):
        options = SPLITS | {"data_folder": spoken, "output_folder": tmp_path / "run"} | options
        with pytest.raises(SystemExit) as caught:
            call_main("S2S", "conmambamamba_debug", **options)
        message = str(caught.value)
        assert "\n" not in message and "Traceback" not in message
        return message

    return run


@pytest.fixture(scope="module")
def once_trained(call_main, spoken, tmp_path_factory):
    """A run of one step with 40 tokens, not tested yet; tests take copies of it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    options = SPLITS | {"data_folder": spoken, "output_folder": folder}
    options |= {"optimizer_step_limit": 1, "test_splits": "null"}
    call_main("S2S", "conmambamamba_debug", **options)
    return folder


@pytest.fixture
def trained(once_trained, tmp_path):
    """A copy of the run, in the folder that `refused` runs in."""
    return shutil.copytree(once_trained, tmp_path / "run")


def test_a_tokenizer_of_another_size_than_the_model_is_refused_before_training(
    refused, spoken, tmp_path
):
    Tokenizer.train(transcripts(spoken), tmp_path / "tokenizer.model", "unigram", 45)
    lm = write_transformer_lm(tmp_path / "lm", tmp_path / "tokenizer.model", 45)
    message = refused(pretrained_lm_tokenizer_path=lm, **LM_SIZES)
    assert "holds 45 tokens, but output_neurons is 40" in message
    assert "--output_neurons 45" in message
    assert not epoch_checkpoints(tmp_path / "run")


def test_a_tokenizer_of_another_size_than_the_checkpoint_is_refused(refused, trained, spoken):
    message = refused(output_neurons=45, skip_train=True)
    assert "trained with --output_neurons 40, and not 45" in message
    Tokenizer.train(transcripts(spoken), trained / "save" / "tokenizer.model", "unigram", 45)
    assert "tokenizer.model: holds 45 tokens, but" in refused(skip_train=True)
    # options and tokenizer agree with each other, and not with what was trained
    (trained / "hyperparams.yaml").unlink()
    assert "of another model" in refused(output_neurons=45, skip_train=True)


def test_a_language_model_that_scores_another_number_of_tokens_is_refused(
    refused, trained, tmp_path
):
    lm = write_transformer_lm(tmp_path / "lm", trained / "save" / "tokenizer.model", 37)
    message = refused(pretrained_lm_tokenizer_path=lm, skip_train=True, **LM_SIZES)
    assert f"{lm}: the language model scores 37 tokens" in message
    assert "output_neurons is 40" in message


@pytest.mark.parametrize("option", ["valid_beam_size", "test_beam_size"])
def test_a_beam_of_no_hypothesis_is_refused_before_training(option, refused, tmp_path):
    message = refused(**{option: 0})
    assert f"--{option} must be" in message and "from 1 to 65536; got 0" in message
    assert not epoch_checkpoints(tmp_path / "run")


@pytest.mark.parametrize(
    "options, what",
    [
        ({"max_length": 12}, "tokens"),
        ({"max_length": 40, "attention_type": "regularMHA"}, "frames"),
    ],
    ids=["tokens", "frames"],
)
def test_an_utterance_longer_than_the_positional_table_is_named_before_training(
    options, what, refused, tmp_path
):
    message = refused(**options)
    assert f"{what}, but the model's table of positions ends at {options['max_length']}" in message
    assert "utterance " in message and "--max_length" in message
    assert not epoch_checkpoints(tmp_path / "run")


def test_an_empty_test_split_is_named(refused, spoken, tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(spoken, corpus)
    split = next(corpus.rglob("test-spoken"))
    for audio in split.rglob("*.flac"):
        audio.write_bytes(b"")
    assert "test-spoken" in refused(data_folder=corpus)
    shutil.rmtree(split)
    split.mkdir()
    assert "test-spoken" in refused(data_folder=corpus)


def test_an_empty_test_manifest_is_named(refused, own_speech, tmp_path):
    (tmp_path / "nothing.csv").write_text("path,text\n", encoding="utf-8")
    message = refused(
        data_folder="null",
        train_manifest=own_speech / "train.csv",
        valid_manifest=own_speech / "valid.jsonl",
        test_manifests=f"[{tmp_path / 'nothing.csv'}]",
    )
    assert "nothing.csv" in message

"""Recognisers and language models of a few thousand parameters.

The CTC recogniser was trained for two epochs on noise, as a user trains it. The others have the files of a run, and
weights that were never trained.
"""

import csv
import shutil

import pytest
import torch

from mamba_speech.asr.tokenizer import Tokenizer
from tests.support import verification
from tests.support.checkpoints import save_again
from tests.support.keywords import TASK, train_here, write_corpus
from tests.support.recognition import (
    run_script,
    train,
    write_noise,
    write_run,
    write_transformer_lm,
)

# Blank, start, end, space and the letters of the texts below.
TEXT_TOKENS = 4 + len(set("onetwothreefour"))


@pytest.fixture(scope="session")
def audio(tmp_path_factory):
    """Eight files of 0.4 to 2.5 s, and lists of them."""
    folder = tmp_path_factory.mktemp("audio")
    texts = ["one two", "two three", "three", "four one"]
    rows = []
    for index in range(8):
        write_noise(folder / f"{index}.wav", 0.4 + 0.3 * index, index)
        rows.append({"path": f"{index}.wav", "text": texts[index % 4], "id": f"utterance-{index}"})
    for name, part in (("train", rows), ("valid", rows[4:]), ("test", rows[2:])):
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(part)
    return folder


@pytest.fixture(scope="session")
def trained(audio, tmp_path_factory):
    """The output folder of a run, beside it output.txt, which it printed; tests that change it take `run`."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    # at the usual rate, training on noise makes all frames alike
    options = {"number_of_epochs": 2, "lr": 1e-5}
    done = train(run_script, "CTC", "conmamba_debug", audio, folder, **options)
    (folder.parent / "output.txt").write_text(done.output, encoding="utf-8")
    for file in folder.glob("save/CKPT*/model.ckpt"):
        weights = torch.load(file, weights_only=True)
        # so few steps teach no more than silence: a random last layer gives texts to compare
        output, bias = weights["ctc_lin.w.weight"], weights["ctc_lin.w.bias"]
        output.copy_(torch.randn(output.shape, generator=torch.Generator().manual_seed(0)))
        # start and end of a sentence, and what is past the vocabulary
        bias[[1, 2, *range(TEXT_TOKENS, len(bias))]] = -100
        save_again(weights, file)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run in another folder."""
    return shutil.copytree(trained, tmp_path / "moved run")


@pytest.fixture(scope="session")
def letters(tmp_path_factory):
    """The SentencePiece model of the letters that the texts are made of, and its number of tokens."""
    file = tmp_path_factory.mktemp("letters") / "tokenizer.model"
    return file, len(Tokenizer.train(["one two three four"], file, "char", size=TEXT_TOKENS))


@pytest.fixture(scope="session", params=["transformer", "mamba"])
def s2s(request, letters, tmp_path_factory):
    """The folder of an S2S run, with either decoder; tests that change it take `s2s_run`."""
    yaml = {"transformer": "conmamba_debug", "mamba": "conmambamamba_debug"}[request.param]
    folder = tmp_path_factory.mktemp(request.param) / "run"
    # random weights seldom end a hypothesis
    options = {"max_decode_ratio": 0.5}
    return write_run(folder, f"S2S/{yaml}.yaml", letters[0], {"token_error": 50.0}, **options)


@pytest.fixture
def s2s_run(s2s, tmp_path):
    """A copy of the run in another folder."""
    return shutil.copytree(s2s, tmp_path / "moved run")


@pytest.fixture(scope="session")
def lm_run(letters, tmp_path_factory):
    """The folder of a run of train_LM.py."""
    folder = tmp_path_factory.mktemp("lm") / "run"
    return write_run(folder, "LM/mamba_debug.yaml", letters[0], {"loss": 2.0})


@pytest.fixture(scope="session")
def pretrained_lm(letters, tmp_path_factory):
    """A folder with a TransformerLM, in the layout of those that SpeechBrain publishes."""
    folder = write_transformer_lm(tmp_path_factory.mktemp("pretrained") / "lm", letters[0])
    (folder / "hyperparams.yaml").write_text("sample_rate: 16000\n")
    return folder


@pytest.fixture(scope="session")
def spotters(tmp_path_factory):
    """Output folders of a causal and an ordinary network that were trained for one epoch; tests must not alter them."""
    folder = tmp_path_factory.mktemp("spotters")
    options = TASK | {"data_folder": write_corpus(folder / "corpus"), "number_of_epochs": 1}
    for kind in ("causal", "whole"):
        train_here("debug", **options, causal=kind == "causal", output_folder=folder / kind)
    return folder


@pytest.fixture(scope="session")
def speaker_runs(tmp_path_factory):
    """Output folders of two speaker models, one without a threshold; tests must not alter them."""
    folder = tmp_path_factory.mktemp("speakers")
    verification.write_run(folder / "run")
    verification.write_run(folder / "other", threshold=None, seed=1)
    return folder

"""Recognisers and language models of a few thousand parameters.

The CTC recogniser was trained for two epochs on noise, as a user trains it. The others have the files of a run, and
weights that were never trained.
"""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from speechbrain.lobes.models.transformer.TransformerLM import TransformerLM

from mamba_speech.asr.tokenizer import Tokenizer
from tests.support.keywords import TASK, train_here, write_corpus
from tests.support.recipes import call_main

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "LibriSpeech" / "ASR"
RATE = 16000
# Blank, start, end, space and the letters of the texts below.
TEXT_TOKENS = 4 + len(set("onetwothreefour"))


def write_noise(path, seconds, seed, rate=RATE, channels=1):
    """Write noise that swells and fades, so that frames differ."""
    random = np.random.default_rng(seed)
    samples = round(seconds * rate)
    swell = np.sin(np.linspace(0, 9 * seconds, samples))[:, None]
    soundfile.write(path, 0.1 * swell * random.standard_normal((samples, channels)), rate)
    return path


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


def train(kind, yaml, audio, folder, **options):
    """Run a training script of recognition in this process, on the lists beside the audio."""
    options |= {part: audio / f"{part[:5]}.csv" for part in ("train_manifest", "valid_manifest")}
    options |= {"test_manifests": f"[{audio / 'test.csv'}]", "output_folder": folder}
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    path = RECIPE / "hparams" / kind / f"{yaml}.yaml"
    call_main(RECIPE, f"train_{kind}", path, "--noprogressbar", *arguments)


@pytest.fixture(scope="session")
def trained(audio, tmp_path_factory):
    """The output folder of a run, beside it output.txt, which it printed; tests that change it take `run`."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    command = [sys.executable, "train_CTC.py", "hparams/CTC/conmamba_debug.yaml"]
    command += ["--noprogressbar", "--output_folder", str(folder), "--number_of_epochs", "2"]
    # at the usual rate, training on noise makes all frames alike
    command += ["--lr", "1e-5"]
    command += ["--train_manifest", str(audio / "train.csv")]
    command += ["--valid_manifest", str(audio / "valid.csv")]
    command += ["--test_manifests", f"[{audio / 'test.csv'}]"]
    done = subprocess.run(
        command,
        check=False,
        cwd=RECIPE,
        # not the level that an earlier training in this process has left there
        env=os.environ | {"PYTHONPATH": str(ROOT), "SB_LOG_LEVEL": "INFO"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    (folder.parent / "output.txt").write_text(done.stdout, encoding="utf-8")
    for file in folder.glob("save/CKPT*/model.ckpt"):
        weights = torch.load(file, weights_only=True)
        # so few steps teach no more than silence: a random last layer gives texts to compare
        output, bias = weights["ctc_lin.w.weight"], weights["ctc_lin.w.bias"]
        output.copy_(torch.randn(output.shape, generator=torch.Generator().manual_seed(0)))
        # start and end of a sentence, and what is past the vocabulary
        bias[[1, 2, *range(TEXT_TOKENS, len(bias))]] = -100
        torch.save(weights, file)
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


def write_run(folder, yaml, letters, meta, **options):
    """Write what a run of `yaml` leaves behind: options, a tokenizer, and a checkpoint of random weights."""
    tokenizer_file, count = letters
    options = {"output_folder": str(folder), "output_neurons": count, **options}
    with open(ROOT / "hparams" / "LibriSpeech" / "ASR" / yaml, encoding="utf-8") as file:
        text = resolve_references(file, options).getvalue()
    with torch.random.fork_rng():
        run = load_hyperpyyaml(text)
        if "normalize" in run:
            run["normalize"](2 * torch.randn(2, 50, run["n_mels"]) - 30, torch.ones(2), epoch=1)
        for name, parameter in run["model"].named_parameters():
            if name.split(".")[0] in ("ctc_lin", "seq_lin", "output_proj"):
                # sharp distributions, so that two hypotheses are never alike
                torch.nn.init.normal_(parameter)
    run["checkpointer"].save_checkpoint(meta={"epoch": 1, **meta})
    shutil.copy(tokenizer_file, folder / "save" / "tokenizer.model")
    (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session", params=["transformer", "mamba"])
def s2s(request, letters, tmp_path_factory):
    """The folder of an S2S run, with either decoder; tests that change it take `s2s_run`."""
    yaml = {"transformer": "conmamba_debug", "mamba": "conmambamamba_debug"}[request.param]
    folder = tmp_path_factory.mktemp(request.param) / "run"
    # random weights seldom end a hypothesis
    options = {"max_decode_ratio": 0.5}
    return write_run(folder, f"S2S/{yaml}.yaml", letters, {"token_error": 50.0}, **options)


@pytest.fixture
def s2s_run(s2s, tmp_path):
    """A copy of the run in another folder."""
    return shutil.copytree(s2s, tmp_path / "moved run")


@pytest.fixture(scope="session")
def lm_run(letters, tmp_path_factory):
    """The folder of a run of train_LM.py."""
    folder = tmp_path_factory.mktemp("lm") / "run"
    return write_run(folder, "LM/mamba_debug.yaml", letters, {"loss": 2.0})


LM_SIZES = {"lm_d_model": 16, "lm_nhead": 2, "lm_num_layers": 1, "lm_d_ffn": 32}


@pytest.fixture(scope="session")
def pretrained_lm(letters, tmp_path_factory):
    """A folder with a TransformerLM, in the layout of those that SpeechBrain publishes."""
    folder = tmp_path_factory.mktemp("pretrained")
    tokenizer_file, count = letters
    with torch.random.fork_rng():
        lm = TransformerLM(count, 16, 2, 1, 0, 32, activation=torch.nn.GELU)
    torch.save(lm.state_dict(), folder / "lm.ckpt")
    shutil.copy(tokenizer_file, folder / "tokenizer.ckpt")
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

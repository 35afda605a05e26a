"""Run folders of every task that no training wrote: options, random weights, and the files that using them reads."""

import contextlib
import io
import json

import numpy as np
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references

from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.cli import main
from tests.support import recognition, separation, verification
from tests.support.recipes import ROOT

RATE = 16000
KEYWORDS = ["no", "yes", "_unknown_"]


def write_keyword_run(folder, **options):
    """What a run of the keyword recipe leaves behind."""
    options = {"output_folder": str(folder), "n_classes": len(KEYWORDS), **options}
    with open(ROOT / "hparams/SpeechCommands/KWS/debug.yaml", encoding="utf-8") as file:
        text = resolve_references(file, options).getvalue()
    with torch.random.fork_rng():
        run = load_hyperpyyaml(text)
    run["checkpointer"].save_checkpoint(meta={"epoch": 1, "error": 10.0})
    (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
    (folder / "save" / "labels.json").write_text(json.dumps(KEYWORDS), encoding="utf-8")
    return folder


def write_task_runs(folder):
    """Runs of every task, each with two checkpoints at most; gives their folders by name."""
    texts = ["one two three four"]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = folder / "tokenizer.model"
    Tokenizer.train(texts, tokenizer, "char", size=4 + len(set("".join(texts))))
    runs = {
        "ctc": recognition.write_run(
            folder / "ctc", "CTC/conmamba_debug.yaml", tokenizer, {"WER": 50.0}
        ),
        "s2s": recognition.write_run(
            folder / "s2s",
            "S2S/conmambamamba_debug.yaml",
            tokenizer,
            {"token_error": 50.0},
            max_decode_ratio=0.2,
        ),
        "lm": recognition.write_run(folder / "lm", "LM/mamba_debug.yaml", tokenizer, {"loss": 2.0}),
        "keywords": write_keyword_run(folder / "keywords"),
        "speakers": verification.write_run(folder / "speakers"),
    }
    for name, bidirectional in (("windows", True), ("stream", False)):
        runs[name] = separation.write_run(
            folder / name, "mambatasnet_debug.yaml", bidirectional=bidirectional
        )
    return runs


def write_voices(folder):
    """Two recordings of two voices, ``one.wav`` and ``two.wav``; gives their paths."""
    return [
        verification.write_voice(folder / f"{name}.wav", speaker)
        for speaker, name in enumerate(("one", "two"), 1)
    ]


def write_samples(path, samples, subtype="FLOAT"):
    """Write samples of any size, as floats."""
    soundfile.write(path, np.asarray(samples), RATE, subtype)
    return path


def call(arguments):
    """Run a command in this process; gives its status, and what it said on stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(one) for one in arguments])
        except SystemExit as stopped:
            status = stopped.code
    return status, out.getvalue(), err.getvalue()

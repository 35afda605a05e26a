"""Recognisers and language models for tests: the recipe's scripts as a user runs them, and runs written by hand."""

import shutil
import sys

import numpy as np
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from speechbrain.lobes.models.transformer.TransformerLM import TransformerLM

from mamba_speech.asr.tokenizer import Tokenizer
from tests.support import recipes
from tests.support.recipes import ROOT, as_arguments

RATE = 16000
RECIPE = ROOT / "recipes" / "LibriSpeech" / "ASR"
# each script's debug model
DEBUG = {"CTC": "conmamba_debug", "S2S": "conmambamamba_debug"}
# of the corpus that the fixture `spoken` speaks
SPLITS = {
    "train_splits": "[train-spoken]",
    "dev_splits": "[dev-spoken]",
    "test_splits": "[test-spoken]",
}
# of a TransformerLM that write_transformer_lm writes
LM_SIZES = {"lm_d_model": 16, "lm_nhead": 2, "lm_num_layers": 1, "lm_d_ffn": 32}


def run_script(kind, yaml, *flags, launcher=(sys.executable,), check=True, wait=True, **options):
    """Run a script, such as train_CTC.py for `CTC`, in its folder; see :func:`tests.support.recipes.run_script`."""
    arguments = (f"hparams/{kind}/{yaml}.yaml", "--noprogressbar", *flags, *as_arguments(options))
    script = f"train_{kind}.py"
    return recipes.run_script(RECIPE, script, *arguments, launcher=launcher, check=check, wait=wait)


def call_script(kind, yaml, *flags, **options):
    """Run a script's main() in this process; see :func:`run_script`."""
    path = RECIPE / "hparams" / kind / f"{yaml}.yaml"
    recipes.call_main(
        RECIPE, f"train_{kind}", path, "--noprogressbar", *flags, *as_arguments(options)
    )


def write_noise(path, seconds, seed, rate=RATE, channels=1):
    """Write noise that swells and fades, so that frames differ."""
    random = np.random.default_rng(seed)
    samples = round(seconds * rate)
    swell = np.sin(np.linspace(0, 9 * seconds, samples))[:, None]
    soundfile.write(path, 0.1 * swell * random.standard_normal((samples, channels)), rate)
    return path


def read(path):
    """The samples of a file at the models' rate."""
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    return samples


def train(call, kind, yaml, audio, folder, **options):
    """Train a recogniser on the lists beside the audio, by run_script or call_script."""
    lists = {part: audio / f"{part[:5]}.csv" for part in ("train_manifest", "valid_manifest")}
    lists |= {"test_manifests": f"[{audio / 'test.csv'}]", "output_folder": folder}
    return call(kind, yaml, **lists | options)


def epoch_checkpoints(folder):
    """End-of-epoch checkpoints, oldest first."""
    found = (folder / "save").glob("CKPT*/CKPT.yaml")
    return sorted(path.parent for path in found if "end-of-epoch: true" in path.read_text())


def weights(folder):
    """The model's weights in the last end-of-epoch checkpoint."""
    return torch.load(epoch_checkpoints(folder)[-1] / "model.ckpt", weights_only=True)


def transcripts(corpus, split="train-spoken"):
    """The texts of a split of a corpus in LibriSpeech's layout."""
    return [
        line.partition(" ")[2]
        for path in sorted(corpus.rglob(f"{split}/*/*/*.trans.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def write_run(folder, yaml, tokenizer_file, meta, **options):
    """Write what a run of `yaml` leaves behind: options, a tokenizer, and a checkpoint of random weights."""
    count = len(Tokenizer(tokenizer_file))
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


def write_transformer_lm(folder, tokenizer_file, vocab=None, seed=0):
    """Write a TransformerLM of :data:`LM_SIZES` as published ones are laid out; ``vocab`` may not be the tokens'."""
    folder.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        lm = TransformerLM(
            vocab or len(Tokenizer(tokenizer_file)),
            d_model=LM_SIZES["lm_d_model"],
            nhead=LM_SIZES["lm_nhead"],
            num_encoder_layers=LM_SIZES["lm_num_layers"],
            num_decoder_layers=0,
            d_ffn=LM_SIZES["lm_d_ffn"],
            activation=torch.nn.GELU,
            normalize_before=False,
        )
    torch.save(lm.state_dict(), folder / "lm.ckpt")
    shutil.copyfile(tokenizer_file, folder / "tokenizer.ckpt")
    return folder

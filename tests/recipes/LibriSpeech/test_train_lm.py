"""train_LM.py as a user runs it, and what it makes of text: sentences, tokens, batches, perplexities."""

import gzip
import importlib
import itertools
import json
import math
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.run_opts import RunOptions

from mamba_speech.asr.language_model import find_tokenizer, load_language_model
from mamba_speech.asr.tokenizer import Tokenizer
from tests.support.recipes import (
    ROOT,
    check_record,
    plain_options,
    scripts,
    without_environment_description,
)
from tests.support.recognition import RECIPE, SPLITS, as_arguments, transcripts
from training.experiment import load_experiment
from training.results import read_results
from training.results import read_rows as results

DEBUG = RECIPE / "hparams" / "LM" / "mamba_debug.yaml"
YAMLS = [
    pytest.param(path, marks=() if path == DEBUG else pytest.mark.exhaustive)
    for path in sorted(DEBUG.parent.glob("*.yaml"))
]
# sizes only: the rest of each YAML stays as it is
SMALL = {"d_model": 16, "num_layers": 1, "output_neurons": 40, "max_batch_length_train": 200}
SMALL |= {"n_warmup_steps": 2, "num_workers": 0, "valid_fraction": 0.2}


def make_text(path, sentences=200, seed=0):
    """Sentences with something to learn: who does what is drawn, the order of words is not."""
    chance = random.Random(seed)
    who = ("ANNA", "THE CAT", "HE", "PETER", "MY FRIEND", "NOBODY")
    does = ("SEES", "HEARS", "LIKES", "FORGETS", "DRAWS")
    what = ("A BIRD", "THE SEA", "NOTHING", "THE WINDOW", "AN OLD HOUSE", "MUSIC")
    when = ("TODAY", "TOMORROW", "BEFORE WINTER", "EVERY MORNING", "AT TWELVE", "UNTIL JUNE")
    lines = [" ".join(map(chance.choice, (who, does, what, when))) for _ in range(sentences)]
    opener = gzip.open if path.name.endswith(".gz") else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return path


@pytest.fixture
def text(tmp_path):
    """A text of 200 sentences."""
    return make_text(tmp_path / "own.txt")


@pytest.fixture
def recipe(monkeypatch):
    """The recipe's script as a module, and a function that runs it with options."""

    def run(yaml=DEBUG, flags=(), **options):
        arguments = ["train_LM.py", str(yaml), "--noprogressbar", *flags, *as_arguments(options)]
        monkeypatch.setattr(sys, "argv", arguments)
        module.main()

    with scripts(monkeypatch, RECIPE) as load:
        module = load("train_LM")
        module.run = run
        yield module


def weights(folder):
    newest = max((folder / "save").glob("CKPT*"), key=lambda path: path.stat().st_mtime_ns)
    return torch.load(newest / "model.ckpt", weights_only=True)


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_yaml_trains_saves_resumes_tests_and_loads(path, recipe, text, tmp_path):
    run = tmp_path / "run"
    options = SMALL | {"output_folder": run, "text_files": text, "test_texts": f"[{text}]"}
    options["number_of_epochs"] = 1
    recipe.run(path, **options, optimizer_step_limit=2)
    before = weights(run)
    recipe.run(path, **options | {"number_of_epochs": 2}, optimizer_step_limit=4)
    assert any(not torch.equal(before[key], value) for key, value in weights(run).items())
    row = results(run)["own"]
    assert (
        row["fidelity"] == "corrected" and row["sentences"] == 200 and row["optimizer_steps"] == 4
    )
    assert row["perplexity"] == pytest.approx(math.exp(row["loss"]), rel=1e-3)
    record = check_record(run, "train_LM.py", {"train", "valid", "tokenizer"})
    recipe.run(path, flags=["--test_only"], **options | {"text_files": "[]"})
    assert results(run)["own"]["perplexity"] == row["perplexity"]
    again = read_results(run)
    assert again.training == record.training
    assert again.tests["own"].manifest == record.tests["own"].manifest
    assert again.tests["own"].session.overrides["test_only"] == "True"
    lm, tokenizer = load_language_model(run, Tokenizer(find_tokenizer(run)), vocab=40)
    assert lm(torch.tensor([[1, *tokenizer.encode("THE CAT")]])).shape[-1] == len(tokenizer) == 40
    assert not list(run.rglob("*.partial"))


def test_perplexity_falls_and_is_that_of_the_model_on_every_sentence(recipe, text, tmp_path):
    held = make_text(tmp_path / "held.txt.gz", 30, seed=1)
    options = {"text_files": text, "valid_text": held, "test_texts": f"[{held}]", "lr": 0.02}
    options |= {"output_folder": tmp_path / "run", "d_model": 24, "dropout": 0.0}
    recipe.run(**options, number_of_epochs=1)
    first = results(tmp_path / "run")["held"]
    recipe.run(**options | {"output_folder": tmp_path / "more"}, number_of_epochs=8)
    row = results(tmp_path / "more")["held"]
    assert row["perplexity"] < 0.7 * first["perplexity"] and row["perplexity"] < 2

    lm, tokenizer = load_language_model(tmp_path / "more")
    nats = tokens = words = 0
    with gzip.open(held, "rt") as file:
        sentences = file.read().splitlines()
    for sentence in sentences:
        ids = torch.tensor([1, *tokenizer.encode(sentence), 2])
        log_probs = lm(ids[None, :-1]).log_softmax(-1)[0]
        nats -= float(log_probs.gather(1, ids[1:, None]).sum())
        tokens, words = tokens + len(ids) - 1, words + len(sentence.split())
    assert (row["tokens"], row["words"], row["sentences"]) == (tokens, words, 30)
    assert row["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-3)
    assert row["word perplexity"] == pytest.approx(math.exp(nats / (words + 30)), rel=1e-3)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(recipe, text, tmp_path):
    options = {"text_files": text, "total_steps": 20}
    recipe.run(**options, output_folder=tmp_path / "whole", number_of_epochs=2)
    for epochs in (1, 2):
        recipe.run(**options, output_folder=tmp_path / "parts", number_of_epochs=epochs)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.exhaustive
def test_transcripts_of_a_corpus_serve_as_text_and_a_recognisers_tokenizer_as_its_own(
    recipe, spoken, tmp_path
):
    Tokenizer.train(transcripts(spoken), tmp_path / "asr.model", "unigram", 40)
    recipe.run(
        data_folder=spoken,
        pretrained_tokenizer_file=tmp_path / "asr.model",
        output_folder=tmp_path / "run",
        optimizer_step_limit=2,
        **SPLITS,
    )
    assert results(tmp_path / "run")["test-spoken"]["sentences"] == len(
        transcripts(spoken, "test-spoken")
    )
    assert (tmp_path / "run/save/tokenizer.model").read_bytes() == (
        tmp_path / "asr.model"
    ).read_bytes()


@pytest.mark.exhaustive
def test_torchrun_trains_on_two_processes(text, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0"]
    launcher += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    options = ["--text_files", text, "--output_folder", tmp_path / "run", "--noprogressbar"]
    options += ["--device", "cpu", "--optimizer_step_limit", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, "train_LM.py", DEBUG, *options],
        check=False,
        cwd=RECIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert results(tmp_path / "run")["valid"]["optimizer_steps"] == 2


def debug_options(folder, **options):
    """The debug YAML, loaded as the script does it, without starting an experiment."""
    with open(DEBUG, encoding="utf-8") as file:
        return load_hyperpyyaml(file, {"output_folder": str(folder)}) | options


def test_a_text_that_windows_wrote_holds_the_same_sentences(recipe, tmp_path):
    text_data = importlib.import_module("text_data")
    written = "\ufeffHE SEES\r\n\r\n  \r\nA BIRD\r\n".encode()
    for name, content in (("a.txt", written), ("a.txt.gz", gzip.compress(written))):
        (tmp_path / name).write_bytes(content)
        sentences = [sentence for _, sentence in text_data.Text(str(tmp_path / name)).sentences()]
        assert sentences == ["HE SEES", "A BIRD"]


TEXT_ERRORS = [
    ({"text_files": []}, "give --text_files"),
    ({"text_files": "{tmp}/none.txt"}, "--text_files: .*none.txt: no such file"),
    ({"text_files": ["{tmp}/own.txt", "{tmp}/empty.txt"]}, "empty.txt: has no sentence"),
    ({"test_texts": "{tmp}/empty.txt"}, "--test_texts: .*empty.txt: has no sentence"),
    ({"text_files": "{tmp}/latin.txt"}, "latin.txt: is not UTF-8"),
    ({"text_files": "{tmp}/torn.txt.gz"}, "torn.txt.gz: cannot be decompressed"),
    ({"valid_text": "{tmp}/greek.txt"}, "greek.txt: line 2 has the character 'γ', which the"),
    ({"output_neurons": 10}, "set --output_neurons"),
    (
        {"pretrained_tokenizer_file": "{tmp}/big.model"},
        "holds 45 tokens, but .* set --output_neurons 45",
    ),
    ({"pretrained_tokenizer_file": "{tmp}/none.model"}, "none.model: no such file"),
    ({"pretrained_tokenizer_file": "{tmp}/own.txt"}, "own.txt: is no SentencePiece model"),
    (
        {"pretrained_tokenizer_file": "{tmp}/plain.model"},
        "plain.model: its tokens 1 and 2 are text",
    ),
    ({"valid_fraction": 0}, "--valid_fraction must lie between"),
    ({"valid_fraction": 1e-9}, "set another --valid_fraction, or give --valid_text"),
    ({"longest_sentence": 1}, "no sentence in it of at most 1 tokens"),
    ({"train_manifest": "{tmp}/none.csv"}, "needs both --train_manifest and --valid_manifest"),
    ({"data_folder": "{tmp}/nowhere"}, "does not exist"),
]


@pytest.mark.parametrize("options, message", TEXT_ERRORS, ids=str)
def test_text_or_a_tokenizer_that_cannot_be_used_get_one_sentence(
    options, message, recipe, text, tmp_path
):
    (tmp_path / "empty.txt").write_text("\n  \n")
    (tmp_path / "latin.txt").write_bytes("GARÇON\n".encode("latin-1"))
    (tmp_path / "greek.txt").write_text("HE SEES\nHE SEES γ\n", encoding="utf-8")
    (tmp_path / "torn.txt.gz").write_bytes(gzip.compress(b"HE SEES\n" * 99)[:-20])
    if "pretrained_tokenizer_file" in options:
        Tokenizer.train(text.read_text().splitlines(), tmp_path / "big.model", "unigram", 45)
        sentencepiece.SentencePieceTrainer.train(
            input=str(text),
            model_prefix=str(tmp_path / "plain"),
            vocab_size=40,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    hparams = debug_options(tmp_path / "run", text_files=str(text))
    hparams |= json.loads(json.dumps(options).replace("{tmp}", str(tmp_path)))
    with pytest.raises(SystemExit, match=message) as stop:
        train, valid, _ = recipe.find_texts(hparams)
        given = hparams["pretrained_tokenizer_file"]
        tokenizer = recipe.prepare_tokenizer(
            hparams,
            recipe.TextSample(train, hparams["tokenizer_lines"]),
            given and (lambda: given),
        )
        recipe.tokenise(hparams, tokenizer, "train", train, hparams["longest_sentence"])
        recipe.tokenise(hparams, tokenizer, "valid", valid)
    assert "\n" not in str(stop.value)
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"max_batch_length_train": 0},
            "--max_batch_length_train must be a whole number, 1 or more; got 0",
        ),
        ({"skip_train": True, "text_files": "[]"}, "nothing to test: give --test_texts"),
        ({"skip_train": True, "test_texts": "{tmp}/own.txt"}, "tokenizer.model: no such file"),
        ({"fidelity": "upstream"}, "--fidelity must be corrected; got upstream"),
        ({"num_layers": 0}, "--num_layers must be a whole number from 1 to 1000"),
    ],
    ids=str,
)
def test_a_wrong_option_gets_one_sentence(options, message, recipe, text, tmp_path):
    options = {"text_files": text, "output_folder": tmp_path / "run"} | options
    options = {key: str(value).format(tmp=tmp_path) for key, value in options.items()}
    with pytest.raises(SystemExit, match=message) as stop:
        recipe.run(**options)
    assert "\n" not in str(stop.value)


def test_the_held_out_part_is_the_same_at_every_start_and_disjoint_from_the_rest(recipe, tmp_path):
    find_texts = importlib.import_module("text_data").find_texts
    path = tmp_path / "many.txt"
    path.write_text("".join(f"SENTENCE {index % 400}\n" for index in range(800)))
    hparams = dict.fromkeys(["valid_text", "test_texts", "data_folder", "train_manifest"])
    hparams |= {"text_files": str(path), "test_manifests": [], "valid_fraction": 0.25}
    train, valid, tests = find_texts(hparams)
    parts = [[sentence for _, sentence in texts[0].sentences()] for texts in (train, valid)]
    assert not set(parts[0]) & set(parts[1]) and sum(map(len, parts)) == 800
    assert 120 < len(parts[1]) < 280 and tests == {"valid": valid}
    again = find_texts(hparams)[1]
    assert [sentence for _, sentence in again[0].sentences()] == parts[1]


def test_tokenised_text_gives_back_every_sentence_that_is_not_too_long(recipe, text, tmp_path):
    Text = importlib.import_module("text_data").Text
    sentences = text.read_text().splitlines()
    tokenizer = Tokenizer.train(sentences, tmp_path / "tokenizer.model", "char", 40)
    hparams = {"output_folder": str(tmp_path)}
    whole = recipe.tokenise(hparams, tokenizer, "whole", [Text(str(text))])
    assert [tokenizer.decode(whole[index]) for index in range(len(whole))] == sentences
    assert whole.lengths.tolist() == [len(tokenizer.encode(sentence)) + 1 for sentence in sentences]
    assert whole.words == sum(len(sentence.split()) for sentence in sentences)
    limit = int(np.median(whole.lengths))
    cut = recipe.tokenise(hparams, tokenizer, "cut", [Text(str(text))], longest=limit)
    kept = [sentence for sentence in sentences if len(tokenizer.encode(sentence)) <= limit]
    assert [tokenizer.decode(cut[index]) for index in range(len(cut))] == kept
    assert cut.left_out == len(sentences) - len(kept) > 0
    # another text under the same name is read anew
    other = make_text(tmp_path / "other.txt", 20, seed=5)
    again = recipe.tokenise(hparams, tokenizer, "whole", [Text(str(other))])
    assert [tokenizer.decode(again[i]) for i in range(20)] == other.read_text().splitlines()


def test_a_long_text_that_changed_in_its_middle_alone_is_read_anew(recipe, tmp_path):
    Text = importlib.import_module("text_data").Text
    lines = ["ab" * 500] * 2500
    text = tmp_path / "long.txt"
    text.write_text("\n".join(lines))
    tokenizer = Tokenizer.train(["ab ba"], tmp_path / "tokenizer.model", "char", 40)
    hparams = {"output_folder": str(tmp_path)}
    recipe.tokenise(hparams, tokenizer, "long", [Text(str(text))])
    written = (tmp_path / "text/long.tokens").stat().st_mtime_ns
    recipe.tokenise(hparams, tokenizer, "long", [Text(str(text))])
    assert (tmp_path / "text/long.tokens").stat().st_mtime_ns == written
    lines[1250] = "ba" * 500
    text.write_text("\n".join(lines))
    again = recipe.tokenise(hparams, tokenizer, "long", [Text(str(text))])
    assert tokenizer.decode(again[1250]) == lines[1250]


@pytest.mark.parametrize(
    "max_tokens, max_sentences", [(64, 100), (64, 3), (5, 100), (10**6, 10**6)]
)
def test_every_epoch_holds_every_sentence_once_within_the_limits(max_tokens, max_sentences, recipe):
    lengths = np.random.default_rng(0).integers(2, 30, 500)
    sampler = recipe.TokenBatchSampler(lengths, max_tokens, max_sentences)
    epochs = []
    for epoch in (1, 2, 1):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert len(epochs[-1]) == len(sampler)
        assert sorted(index for batch in epochs[-1] for index in batch) == list(range(500))
        for batch in epochs[-1]:
            assert len(batch) <= max_sentences
            assert len(batch) == 1 or len(batch) * lengths[batch].max() <= max_tokens
    # no batch could have taken the next longer sentence too
    ordered, bounds = np.sort(lengths), sampler.bounds
    for start, end in itertools.pairwise(bounds[:-1]):
        assert end - start == max_sentences or (end - start + 1) * ordered[end] > max_tokens
    assert epochs[0] == epochs[2] and (len(sampler) == 1 or epochs[0] != epochs[1])


def test_a_batch_asks_for_the_next_token_and_the_end_and_for_nothing_behind_it(recipe):
    batch = recipe.TextBatch.of([torch.tensor([5, 6, 7]), torch.tensor([8])])
    assert batch.tokens_bos.tolist() == [[1, 5, 6, 7], [1, 8, 0, 0]]
    assert batch.tokens_eos.tolist() == [[5, 6, 7, 2], [8, 2, -100, -100]]


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_option_can_be_overridden_and_has_an_effect(path, tmp_path, monkeypatch):
    without_environment_description(monkeypatch)

    def another(value):
        if isinstance(value, bool):
            return not value
        return value + 1 if isinstance(value, (int, float)) else "another"

    fixed = {"fidelity": "corrected", "precision": "bf16", "output_folder": str(tmp_path)}
    fixed |= {"d_model": 24, "num_layers": 2, "dropout": 0.3}
    plain = {k: v for k, v in plain_options(path).items() if not isinstance(v, list)}
    wanted = {key: fixed.get(key, another(value)) for key, value in plain.items()}
    wanted |= {"output_folder": str(tmp_path)}
    arguments = [str(path)]
    for key, value in wanted.items():
        arguments += [f"--{key}", str(value)]
    hparams, run_opts = load_experiment(arguments)
    content = path.read_text(encoding="utf-8")
    scripts = "".join(
        file.read_text(encoding="utf-8")
        for folder in (RECIPE, ROOT / "training", ROOT / "mamba_speech")
        for file in folder.glob("*.py")
    )
    for key, value in wanted.items():
        for got in (hparams[key], run_opts.get(key, value)):
            assert got == value or str(got) == str(value), key
        used = f"<{key}>" in content or f'"{key}"' in scripts or f"hparams.{key}" in scripts
        assert used or key in RunOptions.__dataclass_fields__, key
    assert hparams["model"].output_proj.weight.shape == (wanted["output_neurons"], 24)


def test_the_yamls_differ_in_values_only():
    """What stands under `objects` is the same in all."""
    yamls = DEBUG.parent.glob("*.yaml")
    kept = {path.read_text(encoding="utf-8").partition("# --- objects")[2] for path in yamls}
    assert len(kept) == 1 and kept != {""}

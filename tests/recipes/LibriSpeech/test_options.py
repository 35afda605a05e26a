"""The recognition recipes' options: every one can be overridden, and wrong ones get one sentence."""

import shutil

import pytest
import soundfile
import torch
from hyperpyyaml.core import resolve_references

from mamba_speech.asr.tokenizer import Tokenizer
from tests.support.recipes import another, override, plain_options, unused_options
from tests.support.recognition import RECIPE

# the folders of recognisers' YAMLs
KINDS = ("CTC", "S2S")
# what both scripts have from the code that they share
SHARED = ["CTC", pytest.param("S2S", marks=pytest.mark.exhaustive)]
YAMLS = [path for kind in KINDS for path in sorted((RECIPE / "hparams" / kind).glob("*.yaml"))]
# one of each network and decoder; the others differ from them in values
QUICK = (
    "CTC/conmamba_debug",
    "CTC/conmamba_streaming_debug",
    "CTC/conformer_large",
    "CTC/conformer_streaming_mini",
    "S2S/conmambamamba_debug",
    "S2S/conformer_small",
)


def short(path):
    """CTC/conmamba_debug"""
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=() if short(path) in QUICK else pytest.mark.exhaustive)
        for path in YAMLS
    ],
    ids=short,
)
def test_every_option_can_be_overridden_from_the_command_line(path, tmp_path):
    fixed = {
        "fidelity": "upstream",
        # these give sizes that must fit one another
        "n_mels": 80,
        "intermediate_layer": 1,
        "attention_type": "RoPEMHA",
        "encoder_module": "conformer",
        "decoder_module": "mamba",
        "kernel_size": 7,
        "win_length": 20,
        "precision": "bf16",
        "dropout": 0.2,
        "cnn_dropout": 0.2,
        "cnn_channels": 8,
    }
    plain = {k: v for k, v in plain_options(path).items() if not isinstance(v, list)}
    wanted = {k: fixed.get(k, another(v)) for k, v in plain.items()}
    # the published sizes are overridden downwards, to be quick
    small = {
        "d_model": 24,
        "d_ffn": 17,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "nhead": 2,
    }
    wanted |= {k: v for k, v in small.items() if k in wanted}
    lists = {"output_folder": str(tmp_path)}
    lists |= {"train_splits": ["a", "b"], "test_splits": ["c"], "speed_changes": [90, 100]}
    streaming = "streaming" in path.stem
    if streaming:
        # which the published system lacks
        wanted |= {"fidelity": "corrected", "chunk_size": 3, "full_context_share": 0.5}
        lists |= {"chunk_sizes": [3, 6]}
    if "left_context" in plain:
        wanted["left_context"] = 2
        lists |= {"left_contexts": [2, None]}
    hparams = override(path, wanted | lists)
    assert hparams["model"].fidelity == wanted["fidelity"]
    # a causal encoder has no chunks, and a Conformer is never causal
    assert hparams["model"].chunk_size == (3 if "left_context" in plain else None)
    assert hparams["model"].left_context == (2 if "left_context" in plain else None)
    assert hparams["ctc_lin"].w.weight.shape == (wanted["output_neurons"], 24)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"data_folder": ""}, "give --data_folder"),
        ({"data_folder": "null"}, "data_folder null "),
        ({"data_folder": "{tmp}/nowhere"}, "does not exist"),
        ({"data_folder": "{tmp}"}, "not laid out like LibriSpeech"),
        ({"train_splits": "[train-clean-100]"}, "no split train-clean-100; the splits there are"),
        ({"output_neurons": 12}, "set --output_neurons"),
        ({"token_type": "word"}, "token_type must be one of"),
        ({"sorting": "up"}, "--sorting must be"),
        ({"test_decoding": "viterbi"}, "test_decoding must be one of beam, greedy"),
        (
            {"test_decoding": "beam", "beam_size": 0},
            "beam_size must be a whole number from 1 to 65536; got 0",
        ),
        ({"longest_utterance": 0.2}, "no training utterance is left"),
        ({"train_manifest": "{tmp}/none.csv"}, "needs both --train_manifest and --valid_manifest"),
        ({"dev_splits": "[]"}, "at least one of --train_splits and one of --dev_splits"),
        ({"skip_train": True, "test_splits": "null"}, "nothing to test"),
        ({"skip_prep": True}, "no such manifest; run once without --skip_prep"),
        ({"skip_train": True, "test_splits": "test-spoken"}, "tokenizer.model: no such file"),
        ({"train_manifest": "{tmp}/none.csv", "valid_manifest": "{tmp}/n.csv"}, "none.csv"),
        ({"precision": "fp32", "intermediate_layer": 9}, "intermediate_layer must be"),
        ({"hop_length": 0.0001}, "--hop_length must be a number from 1 to 1000"),
        ({"win_length": 60}, "--win_length 60 is 960 samples at 16000 Hz, more than --n_fft 400"),
    ],
    ids=str,
)
def test_a_wrong_option_gets_one_sentence(options, message, call_main, spoken, tmp_path):
    check_wrong_option(call_main, "CTC", options, message, spoken, tmp_path)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"chunk_size": 0}, "--chunk_size must be"),
        ({"chunk_sizes": "[4, 0]"}, "--chunk_sizes must be"),
        ({"chunk_sizes": "[]"}, "--chunk_sizes must be"),
        ({"full_context_share": 1.5}, "--full_context_share must be a number from 0 to 1"),
        ({"left_context": 0}, "--left_context must be"),
        ({"left_contexts": "[0]"}, "--left_contexts must be"),
        ({"fidelity": "upstream"}, "--fidelity must be corrected"),
    ],
    ids=str,
)
def test_a_wrong_option_of_a_streaming_recipe_gets_one_sentence(
    options, message, call_main, spoken, tmp_path
):
    kind = "conformer_streaming_mini" if "left" in str(options) else "conmamba_streaming_debug"
    check_wrong_option(call_main, "CTC", options, message, spoken, tmp_path, kind)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"encoder_module": "lstm"}, "encoder_module must be one of conmamba, conformer"),
        ({"decoder_module": "lstm"}, "decoder_module must be one of transformer, mamba"),
        ({"attention_type": "none"}, "attention_type must be one of"),
        ({"intermediate_layer": 9}, "intermediate_layer must be"),
        ({"valid_search_interval": 0}, "--valid_search_interval must be a whole number, 1 or more"),
        ({"ctc_weight": 1.2}, "--ctc_weight must be a number from 0 to 1"),
        ({"loss_reduction": "sum"}, "--loss_reduction must be one of batchmean, mean; got sum"),
        ({"consistency_weight": 0.2, "fea_augment": "null"}, "--consistency_weight .* fea_augment"),
        ({"grad_accumulation_factor": 99}, "batches, fewer than --grad_accumulation_factor 99"),
        ({"ctc_weight_decode": 1.0}, "ctc_weight_decode must be"),
        ({"ctc_scoring": "some"}, "ctc_scoring must be one of"),
        ({"min_decode_ratio": 2.0}, "min_decode_ratio must not be over --max_decode_ratio"),
        (
            {"token_type": "char", "output_neurons": 200},
            "holds .* tokens, but output_neurons is 200",
        ),
        ({"output_neurons": 4000}, "set another --output_neurons"),
        ({"pretrained_lm_tokenizer_path": "{tmp}/none"}, "no such folder"),
        ({"pretrained_lm_tokenizer_path": "{tmp}"}, "is not the folder of a language model"),
    ],
    ids=str,
)
def test_a_wrong_option_of_a_decoder_gets_one_sentence(
    options, message, call_main, spoken, tmp_path
):
    check_wrong_option(call_main, "S2S", options, message, spoken, tmp_path)


def check_wrong_option(call_main, kind, options, message, spoken, tmp_path, yaml="conmamba_debug"):
    options = {
        "data_folder": spoken,
        "output_folder": tmp_path / "run",
        "train_splits": "[train-spoken]",
    } | options
    options = {key: str(value).format(tmp=tmp_path) for key, value in options.items()}
    with pytest.raises(SystemExit, match=message):
        call_main(kind, yaml, **options)


def test_the_published_warm_up_counts_batches_and_so_follows_the_accumulation():
    for stem, batches, own in (("small", 25000, 1), ("large", 30000, 8)):
        path = RECIPE / "hparams" / "S2S" / f"conmamba_{stem}.yaml"
        for options, factor in (({}, own), ({"grad_accumulation_factor": 5}, 5)):
            with open(path, encoding="utf-8") as file:
                resolved = resolve_references(file, options).getvalue()
            assert f"n_warmup_steps: {batches // factor}\n" in resolved, (stem, factor)


@pytest.mark.parametrize("kind", SHARED)
def test_texts_of_characters_that_training_lacks_are_errors_and_no_obstacle(
    kind, call_main, own_speech, tmp_path
):
    # in batches of their own too
    folder = shutil.copytree(own_speech, tmp_path / "speech")
    for name in ("valid", "test"):
        lines = [f"{path.name},ABC" for path in sorted(folder.glob("*.wav"))]
        (folder / f"{name}.csv").write_text("\n".join(["path,text", *lines]), encoding="utf-8")
    call_main(
        kind,
        "conmamba_debug",
        train_manifest=folder / "train.csv",
        valid_manifest=folder / "valid.csv",
        test_manifests=folder / "test.csv",
        output_folder=tmp_path / "run",
        token_type="char",
        output_neurons=25,
        max_unknown=1.0,
        optimizer_step_limit=1,
    )
    assert "ABC" in (tmp_path / "run" / "wer_test.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", SHARED)
def test_splits_may_be_plain_names_and_a_finished_run_stays_as_it_is(
    kind, call_main, spoken, tmp_path
):
    def run(**options):
        options = {"data_folder": spoken, "output_folder": tmp_path / "run"} | options
        # a network that has learnt nothing ends no hypothesis early
        narrow = {} if kind == "CTC" else {"valid_beam_size": 1, "test_beam_size": 1}
        call_main(kind, "conmamba_debug", **narrow, **options)

    names = {
        "train_splits": "train-spoken",
        "dev_splits": "dev-spoken",
        "test_splits": "test-spoken",
    }
    run(**names, optimizer_step_limit=1)
    assert (tmp_path / "run" / "wer_test-spoken.txt").exists()
    options = (tmp_path / "run" / "hyperparams.yaml").read_text()
    saved = sorted((tmp_path / "run" / "save").glob("CKPT*"))
    # a finished run gains nothing by being started again, and testing needs no training speech
    run(**names, optimizer_step_limit=1)
    run(**names | {"train_splits": "not-there"}, skip_train=True)
    assert sorted((tmp_path / "run" / "save").glob("CKPT*")) == saved
    with pytest.raises(SystemExit, match="trained with --d_model 16, and not 24"):
        run(**names, d_model=24)
    assert (tmp_path / "run" / "hyperparams.yaml").read_text() == options


def test_no_option_is_without_effect():
    assert unused_options(YAMLS, RECIPE) == {}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind, stem", [("CTC", "conmamba"), ("S2S", "")])
def test_fixed_structure_is_the_same_in_every_yaml(kind, stem, streaming):
    """What stands under `objects` differs by the schedule, the optimiser and when statistics end only."""
    kept = set()
    for path in YAMLS:
        streams = "streaming" in path.stem
        if path.parent.name == kind and path.stem.startswith(stem) and streams == streaming:
            text = path.read_text(encoding="utf-8").partition("# --- objects")[2]
            before, _, after = text.partition("lr_annealing: !new")
            after = after.partition("epoch_counter: !new")[2]
            own = ("    eps: ", "    fused: ", "opt_class: ", "    update_until_epoch: ")
            lines = [line for line in (before + after).splitlines() if not line.startswith(own)]
            kept.add("\n".join(lines))
    assert len(kept) == 1


def test_bad_utterances_are_counted_listed_and_left_out(call_main, spoken, tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(spoken, corpus)
    audio = sorted(corpus.rglob("train-spoken/*/*/*.flac"))
    audio[0].write_bytes(b"not audio")
    soundfile.write(audio[1], torch.zeros(0).numpy(), 16000)
    transcript = next(audio[2].parent.glob("*.trans.txt"))
    lines = transcript.read_text().splitlines()
    transcript.write_text("\n".join([lines[0].split()[0], *lines[1:]]) + "\n")
    options = {"data_folder": corpus, "output_folder": tmp_path / "run"}
    call_main("CTC", "conmamba_debug", **options, optimizer_step_limit=1)
    skipped = (tmp_path / "run" / "skipped_train-spoken.csv").read_text()
    assert audio[0].stem in skipped and audio[1].stem in skipped
    assert len(skipped.splitlines()) >= 4


def test_tokenizers_learn_characters_exactly_and_leave_unknown_ones_out(tmp_path):
    tokenizer = Tokenizer.train(["AB BA", "ＡＢ é"], tmp_path / "tokenizer.model", "char", 20)
    assert (
        tokenizer.decode(tokenizer.encode("AB ＡＢ é")) == "AB ＡＢ é"
    )  # no Unicode normalisation
    assert tokenizer.encode("AXB") == tokenizer.encode("AB") and len(tokenizer) == 3 + 6
    assert tokenizer.spells("AB") and not tokenizer.spells("AXB")
    unspaced = Tokenizer.train(["你好", "世界好"], tmp_path / "tokenizer.model", "char", 20)
    assert unspaced.decode(unspaced.encode("世界")) == "世界"
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.model"]
    with pytest.raises(FileNotFoundError, match="no such file"):
        Tokenizer(tmp_path / "none.model")
    with pytest.raises(ValueError, match="no transcript"):
        Tokenizer.train([" "], tmp_path / "x.model", "char", 20)
    with pytest.raises(ValueError, match="cannot be learnt"):
        Tokenizer.train(["AB BA"], tmp_path / "x.model", "bpe", 500)
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.model"]


def test_a_run_started_again_keeps_what_its_model_depends_on_and_takes_up_the_rest(
    call_main, spoken, tmp_path
):
    folder = tmp_path / "run"

    def run(**options):
        fixed = {"data_folder": spoken, "output_folder": folder, "train_splits": "train-spoken"}
        call_main("CTC", "conmamba_debug", **fixed | options)

    run(optimizer_step_limit=1, weight_decay=0.5)
    options = (folder / "hyperparams.yaml").read_text()
    for changed in ({"sample_rate": 8000}, {"n_mels": 40}, {"fidelity": "upstream"}, {"seed": 7}):
        for start in ({}, {"skip_train": True}):
            ((name, value),) = changed.items()
            with pytest.raises(SystemExit, match=f"trained with --{name} .*, and not {value};"):
                run(**changed, **start, optimizer_step_limit=1)
    assert (folder / "hyperparams.yaml").read_text() == options
    run(optimizer_step_limit=2, weight_decay=0.0, test_splits="[]")
    assert "--weight_decay is 0.0 from here on; it was 0.5" in (folder / "log.txt").read_text()
    newest = max((folder / "save").glob("CKPT*"), key=lambda path: path.stat().st_mtime)
    groups = torch.load(newest / "optimizer.ckpt", weights_only=True)["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.0}
    assert "weight_decay: 0.0\n" in (folder / "hyperparams.yaml").read_text()

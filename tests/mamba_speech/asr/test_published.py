"""Run folders of the published Mamba-ASR recipes: transcribed as they are, with the recorded weights' own results."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hyperpyyaml import resolve_references
from speechbrain.lobes.models.transformer.TransformerLM import TransformerLM

from mamba_speech.asr.decoders import CTCDecoder
from mamba_speech.asr.published import (
    PUBLISHED_CLASSES,
    PublishedLoader,
    load_published_recogniser,
)
from mamba_speech.asr.recognizer import Recognizer
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.cli import main
from mamba_speech.network_yaml import read_keys
from tests.support.golden import Golden
from tests.support.recognition import write_noise

SIZES = json.loads((Path(__file__).parents[2] / "model_sizes.json").read_text())["models"]
SIZES = {name: sizes for name, sizes in SIZES.items() if name.startswith("Mamba-ASR/")}
# blank, start, end, the space and 16 letters: as many tokens as the recorded networks have outputs
LETTERS, VOCABULARY = "abcdefgh ijklmnop", 20
D_MODEL = 32
# The keys and classes of the published YAMLs, at the sizes of the recorded networks.
COMMON = """
seed: 1
__set_seed: !apply:torch.manual_seed [!ref <seed>]
output_folder: results/S2S/tiny/1
save_folder: !ref <output_folder>/save
sample_rate: 16000
avg_checkpoints: 10
output_neurons: 20
d_model: 32
activation: !name:torch.nn.GELU
mamba_config: {d_state: 16, expand: 2, d_conv: 4, bidirectional: True}
CNN: !new:speechbrain.lobes.models.convolution.ConvolutionFrontEnd
    input_shape: (8, 10, 80)
    num_blocks: 2
    num_layers_per_block: 1
    out_channels: (64, 32)
    kernel_sizes: (3, 3)
    strides: (2, 2)
    residuals: (False, False)
Transformer: !new:{transformer}
    input_size: 640
    tgt_vocab: !ref <output_neurons>
    d_model: !ref <d_model>
    nhead: 4
    num_encoder_layers: {encoder_layers}
    num_decoder_layers: {decoder_layers}
    d_ffn: 48
    dropout: 0.1
    activation: !ref <activation>
    encoder_module: {encoder}
    attention_type: RelPosMHAXL
    normalize_before: True
    causal: False
    max_length: 64
    {more}
ctc_lin: !new:speechbrain.nnet.linear.Linear
    input_size: !ref <d_model>
    n_neurons: !ref <output_neurons>
seq_lin: !new:speechbrain.nnet.linear.Linear
    input_size: !ref <d_model>
    n_neurons: !ref <output_neurons>
normalize: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    update_until_epoch: 4
compute_features: !new:speechbrain.lobes.features.Fbank
    sample_rate: !ref <sample_rate>
    n_fft: 400
    n_mels: 80
epoch_counter: !new:speechbrain.utils.epoch_loop.EpochCounter
    limit: 110
Adam: !name:torch.optim.Adam
    lr: 0.001
wandb_logger: !name:speechbrain.utils.train_logger.WandBLogger
    initializer: !name:wandb.init
"""
S2S = """
min_decode_ratio: 0.0
max_decode_ratio: 1.0
test_beam_size: 4
lm_weight: 0.60
ctc_weight_decode: 0.40
pretrained_lm_tokenizer_path: speechbrain/asr-transformer-transformerlm-librispeech
tokenizer: !new:sentencepiece.SentencePieceProcessor
lm_model: !new:speechbrain.lobes.models.transformer.TransformerLM.TransformerLM
    vocab: !ref <output_neurons>
    d_model: 16
    nhead: 2
    num_encoder_layers: 1
    num_decoder_layers: 0
    d_ffn: 24
    activation: !name:torch.nn.GELU
    normalize_before: False
modules: {CNN: !ref <CNN>, Transformer: !ref <Transformer>, seq_lin: !ref <seq_lin>, ctc_lin: !ref <ctc_lin>}
model: !new:torch.nn.ModuleList
    - [!ref <CNN>, !ref <Transformer>, !ref <seq_lin>, !ref <ctc_lin>]
transformerlm_scorer: !new:speechbrain.decoders.scorer.TransformerLMScorer
    language_model: !ref <lm_model>
    temperature: 1.25
test_search: !new:speechbrain.decoders.S2STransformerBeamSearcher
    modules: [!ref <Transformer>, !ref <seq_lin>]
    temperature: 1.15
    using_eos_threshold: False
    length_normalization: True
"""
CTC = """
token_type: char
beam_size: 10
beam_prune_logp: -12.0
token_prune_min_logp: -1.2
prune_history: False
model: !new:torch.nn.ModuleList
    - [!ref <CNN>, !ref <Transformer>, !ref <ctc_lin>]
"""
OURS = "modules.TransformerASR.TransformerASR"
SPEECHBRAINS = "speechbrain.lobes.models.transformer.TransformerASR.TransformerASR"
PROJECTION = "custom_src_module.layers.0.w.weight"
MAMBA = "mamba_config: !ref <mamba_config>"


def write_checkpoint(save, weights, order, meta, number=0):
    """One of the published checkpoints: the list of modules by number, and SpeechBrain 1.0's statistics."""
    place = save / f"CKPT+2024-09-0{number + 1}+00-00-00+00"
    place.mkdir(parents=True)
    numbers = {part: str(index) for index, part in enumerate(order)}
    parts = (key.partition(".") for key in weights)
    listed = {f"{numbers[p]}.{rest}": weights[f"{p}.{rest}"] for p, _, rest in parts}
    torch.save(listed, place / "model.ckpt")
    statistics = {
        "count": 9,
        "glob_mean": torch.full((80,), -30.0),
        "glob_std": torch.full((80,), 9.0),
    }
    speakers = {key: {} for key in ("spk_dict_mean", "spk_dict_std", "spk_dict_count")}
    torch.save(statistics | speakers, place / "normalizer.ckpt")
    lines = [f"{key}: {value}" for key, value in meta.items()]
    text = "\n".join([*lines, "end-of-epoch: true", "unixtime: 1725000000.0"])
    (place / "CKPT.yaml").write_text(f"# yamllint disable\n{text}\n")


def write_yaml(folder, text, **fields):
    """As SpeechBrain writes a run's YAML: every reference resolved."""
    for name, value in fields.items():
        text = text.replace(f"{{{name}}}", str(value))
    resolved = resolve_references(text).getvalue()
    (folder / "hyperparams.yaml").write_text(resolved)


def write_s2s(folder, decoder, metas=({"ACC": 1.1, "epoch": "null"},)):
    """A published run with a decoder, of recorded weights; its language model was collected under save."""
    weights = Golden(f"pipeline_s2s_{decoder}").state_dict()
    for number, meta in enumerate(metas):
        order = ("CNN", "Transformer", "seq_lin", "ctc_lin")
        write_checkpoint(folder / "save", weights, order, meta, number)
    module, layers = (
        f"{MAMBA}\n    decoder_module: {decoder}",
        {"encoder_layers": 1, "decoder_layers": 1},
    )
    write_yaml(folder, COMMON + S2S, transformer=OURS, encoder="conmamba", more=module, **layers)
    Tokenizer.train([LETTERS], folder / "save" / "tokenizer.ckpt", "char", size=VOCABULARY)
    lm = TransformerLM(
        VOCABULARY, 16, 2, 1, 0, 24, activation=torch.nn.GELU, normalize_before=False
    )
    torch.save(lm.state_dict(), folder / "save" / "lm.ckpt")
    return weights


def recorded(encoder):
    """The recorded network with an encoder of that kind."""
    return "asr_conmamba_ctc" if encoder == "conmamba" else "asr_conformer_transformer"


def write_ctc(folder, encoder):
    """A published run without a decoder: recorded names, with an input projection of the published size."""
    weights = {
        f"Transformer.{key}": value
        for key, value in Golden(recorded(encoder)).state_dict().items()
        if not key.startswith(("decoder.", "custom_tgt_module."))
    }
    weights[f"Transformer.{PROJECTION}"] = 0.1 * torch.randn(D_MODEL, 640)
    others = Golden("pipeline_s2s_mamba").state_dict()
    weights |= {k: v for k, v in others.items() if k.startswith(("CNN.", "ctc_lin."))}
    order = ("CNN", "Transformer", "ctc_lin")
    for number, wer in enumerate((9.0, 5.0)):
        changed = weights | {"ctc_lin.w.bias": weights["ctc_lin.w.bias"] + 10 * number}
        meta = {"WER": wer, "epoch": number + 1}
        write_checkpoint(folder / "save", changed, order, meta, number)
    own = {"transformer": OURS, "more": MAMBA}
    if encoder == "conformer":
        own = {"transformer": SPEECHBRAINS, "more": ""}
    layers = {"encoder_layers": 2, "decoder_layers": 0, "encoder": encoder}
    write_yaml(folder, COMMON + CTC, **own, **layers)
    Tokenizer.train([LETTERS], folder / "save" / "20_char.model", "char", size=VOCABULARY)
    return changed


@pytest.fixture
def noise(tmp_path):
    return [write_noise(tmp_path / f"{n}.wav", seconds, n) for n, seconds in enumerate((1.1, 0.6))]


@pytest.mark.parametrize("decoder", ["mamba", "transformer"])
def test_a_published_run_with_a_decoder_gives_the_recorded_outputs_and_is_transcribed(
    decoder, tmp_path, noise, capsys
):
    folder = tmp_path / "moved"
    write_s2s(folder, decoder)
    run, golden = load_published_recogniser(folder), Golden(f"pipeline_s2s_{decoder}")
    model, features = run["model"], golden["input/feats"]
    # the one utterance that fills its batch, for which padding does not matter
    whole = int(golden["input/wav_lens"].argmax())
    features, tokens = features[whole : whole + 1], golden["input/tokens_bos"][whole : whole + 1]
    out = model(features, torch.tensor([features.shape[1]]), tokens)
    for name, found in (("p_ctc", out.ctc_log_probs), ("p_seq", out.seq_log_probs)):
        wanted = golden[f"output/{name}"][whole : whole + 1]
        assert torch.allclose(found[:, : wanted.shape[1]], wanted, atol=1e-4)
    assert (run["temperature"], run["temperature_lm"], run["lm_d_model"]) == (1.15, 1.25, 16)
    assert run["using_eos_threshold"] is False
    assert main(["transcribe", str(folder), *map(str, noise), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(path) for path in noise]


@pytest.mark.parametrize("encoder", ["conmamba", "conformer"])
def test_a_published_ctc_run_loads_the_mean_of_all_its_checkpoints_and_gives_the_recorded_outputs(
    encoder, tmp_path
):
    weights = write_ctc(tmp_path / "run", encoder)
    # one was to be averaged: SpeechBrain keeps the newest besides, and the published test averages both
    with_yaml(tmp_path / "run", "avg_checkpoints: 10", "avg_checkpoints: 1")
    recogniser = Recognizer.load(tmp_path / "run", "cpu")
    # the two differ by 10
    assert torch.allclose(recogniser.model.ctc_lin.w.bias, weights["ctc_lin.w.bias"] - 5.0)
    # with its own input projection the encoder gives what was recorded
    golden, network = Golden(recorded(encoder)), recogniser.model.Transformer
    network.custom_src_module.layers[0].w.weight.data = golden[f"param/{PROJECTION}"]
    encoded = network.encode(golden["input/src"])[0]
    assert torch.allclose(encoded, golden["output/encode_nolen"], atol=1e-4)


@pytest.mark.parametrize("encoder", ["conmamba", "conformer"])
def test_a_published_ctc_run_is_transcribed_by_beam_search(encoder, tmp_path, noise):
    write_ctc(tmp_path / "run", encoder)
    recogniser = Recognizer.load(tmp_path / "run", "cpu")
    assert isinstance(recogniser.decode, CTCDecoder) and recogniser.decode.decoding == "beam"
    results = list(recogniser.transcribe(noise))
    assert not any(result.error for result in results)
    # as alone: nothing of the neighbour in the batch
    assert [one.text for path in noise for one in recogniser.transcribe([path])] == [
        result.text for result in results
    ]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name in SIZES if "S2S" not in name or "small" in name])
def test_the_published_yaml_at_its_published_sizes_builds_the_published_number_of_parameters(
    name, tmp_path
):
    sizes, conformer = SIZES[name]["hparams"], "conformer" in name
    fields = {
        "transformer": SPEECHBRAINS if conformer else OURS,
        "more": "" if conformer else MAMBA,
    }
    fields |= {"encoder": "conformer" if conformer else "conmamba"}
    if "conmambamamba" in name:
        fields["more"] += "\n    decoder_module: mamba"
    fields |= {f"{part}_layers": sizes[f"num_{part}_layers"] for part in ("encoder", "decoder")}
    text = COMMON + (S2S if "S2S" in name else CTC)
    for old in ("d_model: 32", "nhead: 4", "d_ffn: 48", "output_neurons: 20"):
        key = old.split(":")[0]
        text = text.replace(old, f"{key}: {sizes[key]}", 1)
    write_yaml(tmp_path, text.replace("    max_length: 64\n", ""), **fields)
    model = read_keys(tmp_path / "hyperparams.yaml", {"model"}, PublishedLoader)["model"]
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == SIZES[name]["total_trainable"]


def test_the_normalisation_is_that_of_the_highest_accuracy(tmp_path):
    metas = [{"ACC": value, "epoch": 1} for value in (0.2, 0.9, 0.5)]
    write_s2s(tmp_path, "mamba", metas)
    best = sorted(tmp_path.glob("save/CKPT*/normalizer.ckpt"))[1]
    statistics = torch.load(best, weights_only=True)
    torch.save(statistics | {"glob_mean": torch.full((80,), -20.0)}, best)
    found = load_published_recogniser(tmp_path)["normalize"].glob_mean
    assert torch.equal(found, torch.full((80,), -20.0))


@pytest.mark.parametrize(
    "old, new",
    [
        ("lm_weight: 0.6", "lm_weight: high\nx: 0"),
        ("test_beam_size: 4", "test_beam_size: '4'"),
        ("using_eos_threshold: ", "using_eos_threshold: 1 # "),
        ("output_neurons: 20", "output_neurons: many"),
        ("seed: 1", "x: !!python/name:os.system ''"),
        ("seed: 1", "day: 2024-13-45"),
        ("seed: 1", "a: " + "[" * 3000 + "]" * 3000),
        ("norm_type: global", "norm_type: *l6"),
        ("encoder_module: conmamba", "encoder_module: *l6"),
        ("n_mels: 80", "n_mels: *l6"),
        ("d_ffn: 48", "d_ffn: -48"),
        ("n_mels: 80", "n_mels: !!bool perhaps"),
    ],
)
def test_a_foreign_yaml_is_one_short_sentence_that_names_it(old, new, tmp_path):
    write_s2s(tmp_path / "run", "mamba")
    file = tmp_path / "run" / "hyperparams.yaml"
    assert old in file.read_text()
    # a list of a million, as six lists of aliases
    inner = (f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]\n" for i in range(1, 7))
    lists = "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(inner)
    file.write_text(lists + file.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match="hyperparams.yaml: ") as error:
        Recognizer.load(tmp_path / "run", "cpu")
    assert "\n" not in str(error.value) and len(str(error.value)) < 1500


def test_a_yaml_with_keys_of_any_kind_and_circles_is_read(tmp_path):
    write_s2s(tmp_path / "run", "mamba")
    file = tmp_path / "run" / "hyperparams.yaml"
    file.write_text(f"{file.read_text()}\n? [a, b]\n: 1\nr: &r\n  self: *r\n")
    assert load_published_recogniser(tmp_path / "run")["sample_rate"] == 16000


def test_published_classes_are_networks_of_this_project_and_nothing_of_the_folder_runs(tmp_path):
    write_s2s(tmp_path, "mamba")
    file = tmp_path / "hyperparams.yaml"
    text, mark = file.read_text(), tmp_path / "mark"
    # what is not asked for is not looked at
    file.write_text(text + f"extra: !apply:os.mkdir [{mark}]\n")
    load_published_recogniser(tmp_path)
    for old, new in (
        ("norm_type: global", f"norm_type: !apply:os.mkdir [{mark}]"),
        ("!new:speechbrain.lobes.features.Fbank", "!new:modules.TransformerASR.Fbank"),
        ("!new:speechbrain.nnet.linear.Linear", "!new:os.mkdir"),
    ):
        file.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match="hyperparams.yaml"):
            load_published_recogniser(tmp_path)
    assert not mark.exists()
    assert not any(path.startswith(("os.", "builtins.")) for path in PUBLISHED_CLASSES)


@pytest.mark.parametrize(
    "damage, error, message",
    [
        (
            lambda run: shutil.rmtree(run / "save"),
            FileNotFoundError,
            "no checkpoint with ACC or WER",
        ),
        (
            lambda run: (run / "save/tokenizer.ckpt").unlink(),
            FileNotFoundError,
            "tokenizer.ckpt of",
        ),
        (lambda run: with_yaml(run, "d_ffn: 48", "d_ffn: 50"), ValueError, "of another model"),
        (
            lambda run: with_yaml(run, "encoder_module: conmamba", "encoder_module: branchformer"),
            ValueError,
            "encoder_module must be",
        ),
        (
            lambda run: with_yaml(run, "norm_type: global", "norm_type: batch"),
            ValueError,
            "norm_type",
        ),
        (
            lambda run: with_yaml(run, "\nsample_rate: 16000", "\nrate: 1"),
            ValueError,
            "lacks sample_rate",
        ),
        (lambda run: with_yaml(run, "d_ffn: 48", "d_fnn: 48"), ValueError, "does not take these"),
    ],
)
def test_a_published_run_that_cannot_be_used_is_one_error_that_names_it(
    damage, error, message, tmp_path
):
    write_s2s(tmp_path / "run", "mamba")
    damage(tmp_path / "run")
    with pytest.raises(error, match=message) as raised:
        Recognizer.load(tmp_path / "run", "cpu")
    assert str(tmp_path / "run") in str(raised.value)


def with_yaml(run, old, new):
    file = run / "hyperparams.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))

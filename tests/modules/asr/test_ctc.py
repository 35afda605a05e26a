"""The CTC recognisers of all recipes: sizes, and one utterance's answer whatever its neighbours."""

import json
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

from modules.ssm import Mamba
from tests.support.pairs import random_pairs
from tests.support.recognition_networks import CTC_ENCODERS, ctc_recognizer
from training.experiment import count_parameters

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "hparams" / "LibriSpeech" / "ASR" / "CTC"
PUBLISHED = json.loads((ROOT / "tests" / "model_sizes.json").read_text())["models"]


def load(name, tmp_path, **overrides):
    with open(FOLDER / f"{name}.yaml", encoding="utf-8") as file:
        return load_hyperpyyaml(file, {"output_folder": str(tmp_path), **overrides})


@pytest.mark.parametrize("name", ["conformer_large", "conmamba_large", "conmamba_streaming_large"])
def test_published_sizes_to_the_unit(name, tmp_path):
    hparams = load(name, tmp_path)
    # a streaming model has the layers and the sizes of the other
    wanted = PUBLISHED[f"Mamba-ASR/CTC/{name.replace('streaming_', '')}.yaml"]
    assert count_parameters(hparams["model"]) == wanted["total_trainable"]
    for part in ("CNN", "Transformer", "ctc_lin"):
        assert count_parameters(hparams[part]) == wanted["modules"][part]
    for key, value in wanted["hparams"].items():
        # the published warm-up appears under two names, and nothing here has a decoder
        if key in hparams and key not in ("precision", "batch_size"):
            assert hparams[key] == value, key


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda p: p.stem)
def test_state_space_parameters_survive_every_recipe(path, tmp_path):
    hparams = load(path.stem, tmp_path)
    blocks = [m for m in hparams["model"].modules() if isinstance(m, Mamba)]
    assert bool(blocks) == path.stem.startswith("conmamba")
    for block in blocks:
        A = block.A_log.exp()
        assert torch.allclose(A, torch.arange(1.0, A.shape[1] + 1).expand_as(A), rtol=1e-5)
        assert torch.equal(block.D, torch.ones_like(block.D))
        dt = torch.nn.functional.softplus(block.dt_proj.bias)
        assert 0.00099 < dt.min() and dt.max() < 0.1001


@pytest.mark.parametrize(
    "name, overrides",
    [
        ("conmamba_debug", {}),
        ("conmamba_streaming_debug", {"chunk_size": 3}),
        ("conformer_streaming_mini", {"d_model": 16, "d_ffn": 16, "left_context": 2}),
        pytest.param("conmamba_debug", {"causal": True}, marks=pytest.mark.exhaustive),
        pytest.param("conmamba_streaming_debug", {"causal": True}, marks=pytest.mark.exhaustive),
        pytest.param(
            "conmamba_debug",
            {"dt_bc_norm": True, "bidirectional": False},
            marks=pytest.mark.exhaustive,
        ),
        ("conformer_large", {"d_model": 16, "d_ffn": 16, "num_encoder_layers": 2}),
        pytest.param(
            "conformer_large",
            {"d_model": 16, "d_ffn": 16, "num_encoder_layers": 2, "attention_type": "RoPEMHA"},
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_from_waveform_to_log_probabilities_a_padded_batch_equals_each_utterance_alone(
    name, overrides, tmp_path
):
    hparams = load(name, tmp_path, **overrides)
    fbank, normalize, model = (hparams[k] for k in ("compute_features", "normalize", "model"))
    normalize(torch.randn(1, 50, 80) * 20 - 30, torch.ones(1), epoch=1)
    model.eval(), normalize.eval()

    def recognise(wavs, wav_lens):
        features, lengths = fbank(wavs, wav_lens)
        log_probs, lengths = model(normalize(features), lengths, wav_lens)
        return log_probs, lengths

    worst = 0.0
    samples, wavs = torch.randint(400, 16000, (20,)), torch.randn(20, 16000)
    with torch.no_grad():
        alone = [
            recognise(wav[None, :count], torch.ones(1))
            for wav, count in zip(wavs, samples, strict=True)
        ]
        for pair in map(list, random_pairs(20, 50)):
            longest = samples[pair].max()
            together, lengths = recognise(wavs[pair, :longest], samples[pair] / longest)
            for ours, length, item in zip(together, lengths.tolist(), pair, strict=True):
                wanted, own = alone[item]
                assert own.item() == wanted.shape[1] == length
                worst = max(worst, (ours[:length] - wanted[0]).abs().max().item())
    assert worst < 2e-3  # of log-probabilities around -4, after features in dB


@pytest.mark.parametrize("attention", ["RelPosMHAXL", "regularMHA", "RoPEMHA"])
def test_chunks_with_a_limited_past_leave_padding_finite(attention):
    encoder = CTC_ENCODERS[attention]().train()
    x, lengths = torch.randn(2, 30, 20, requires_grad=True), torch.tensor([30, 6])
    chunks = DynChunkTrainConfig(4, 1)
    encoded, _ = encoder.encode(x, lengths, chunks=chunks)
    assert bool(encoded.isfinite().all())
    (encoded[0].sum() + encoded[1, :6].sum()).backward()
    gradients = [x.grad, *(p.grad for p in encoder.parameters() if p.grad is not None)]
    assert all(bool(one.isfinite().all()) for one in gradients) and len(gradients) > 10
    with torch.no_grad():
        encoder.eval()
        together, _ = encoder.encode(x, lengths, chunks=chunks)
        alone, _ = encoder.encode(x[1:, :6], lengths[1:], chunks=chunks)
    assert torch.allclose(together[1, :6], alone[0], atol=1e-5)


@pytest.mark.parametrize("encoder", CTC_ENCODERS)
def test_chunks_hide_what_follows_them_and_are_the_networks_own_outside_training(encoder):
    model, features = ctc_recognizer(encoder), torch.randn(1, 120, 20)
    lengths, end = torch.tensor([120]), 16
    changed = torch.cat([features[:, : 4 * end], torch.randn(1, 120 - 4 * end, 20)], 1)
    chunks = DynChunkTrainConfig(4)
    with torch.no_grad():
        before, after = (model(one, lengths, chunks=chunks)[0] for one in (features, changed))
        assert torch.allclose(before[:, :end], after[:, :end], atol=1e-5)
        assert not torch.allclose(before[:, end], after[:, end], atol=1e-3)
        everything = model(features, lengths)[0]
        model.chunk_size = 4
        assert torch.equal(model(features, lengths)[0], before)
        assert not torch.allclose(everything, before, atol=1e-3)
    # training takes the chunks that are drawn for it, and none by itself
    assert model.chunks_for(chunks) is chunks and model.train().chunks_for() is None


def test_intermediate_output_in_training_only(tmp_path):
    model = load("conmamba_debug", tmp_path)["model"]
    features, lengths = torch.randn(2, 40, 80), torch.tensor([40, 30])
    log_probs, _, intermediate = model.train()(features, lengths)
    assert intermediate.shape == log_probs.shape
    assert not torch.allclose(intermediate, log_probs)
    assert model.eval()(features, lengths).intermediate is None


@pytest.mark.parametrize("name", ["conmamba_debug", "conformer_large"])
def test_checkpoints_of_the_published_recipes_load_as_they_are(name, tmp_path):
    small = {} if "debug" in name else {"d_model": 16, "d_ffn": 16, "num_encoder_layers": 2}
    model, other = (load(name, tmp_path, **small)["model"] for _ in range(2))
    torch.nn.init.normal_(other.ctc_lin.w.weight)
    # the published YAML: !new:torch.nn.ModuleList [[CNN, Transformer, ctc_lin]]
    saved = torch.nn.ModuleList([other.CNN, other.Transformer, other.ctc_lin]).state_dict()
    model.load_state_dict(saved, strict=True)
    assert all(torch.equal(model.state_dict()[key], x) for key, x in other.state_dict().items())


@pytest.mark.parametrize("attention", ["RelPosMHAXL", "RoPEMHA"])
@pytest.mark.parametrize("past", [1, 4])
def test_a_conformer_streams_as_it_is_trained_on_the_same_chunks_and_past(attention, past):
    encoder, x = CTC_ENCODERS[attention]().eval(), torch.randn(1, 43, 20)
    chunks = DynChunkTrainConfig(4, past)
    with torch.no_grad():
        whole, _ = encoder.encode(x, chunks=chunks)
        context = encoder.make_streaming_context(chunks)
        pieces = [encoder.encode_streaming(piece, context) for piece in x.split(4, 1)]
        other, _ = encoder.encode(x, chunks=DynChunkTrainConfig(4, past + 1))
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=1e-4)
    assert not torch.allclose(other, whole, atol=1e-3)

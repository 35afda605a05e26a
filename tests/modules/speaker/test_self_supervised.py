"""wav2vec 2.0, HuBERT and WavLM: the transformers library's numbers, exact in any batch, partly frozen."""

import copy
import re
import sys

import pytest
import torch
import transformers

from modules.speaker.encoder import BiMambaEncoder, SpeakerEncoder
from modules.speaker.self_supervised import SelfSupervised, load_pretrained, read_config
from tests.support.speaker_networks import TEACHERS, largest_shift, save_teacher


def build(name, **options):
    """A network that drops no layers, with weights moved off their initial values."""
    torch.manual_seed(0)
    model = SelfSupervised({**TEACHERS[name], "layerdrop": 0.0}, **options)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


@pytest.fixture(scope="module", params=TEACHERS)
def saved(request, tmp_path_factory):
    """A teacher's name, the folder it was saved to, and its network in the transformers library."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, save_teacher(request.param, folder)


def test_a_saved_teacher_gives_the_hidden_states_of_the_transformers_library(saved, tmp_path):
    name, folder, network = saved
    config = read_config(folder)
    assert TEACHERS[name].items() <= config.items()
    model = SelfSupervised(config).eval()
    load_pretrained(model, folder, tmp_path)
    model, network = model.double(), copy.deepcopy(network).double()
    wavs = 3 * torch.randn(2, 4000, dtype=torch.float64) + 1
    preprocess = transformers.AutoFeatureExtractor.from_pretrained(folder)
    theirs = preprocess(list(wavs.numpy()), sampling_rate=16000, return_tensors="pt").input_values
    theirs = theirs.double()
    with torch.no_grad():
        wanted = network(theirs, output_hidden_states=True)
        states, lengths = model.hidden_states(wavs)
        mean, _ = model(wavs)
    assert lengths.tolist() == [12, 12]
    wanted = [*wanted.hidden_states[:-1], wanted.last_hidden_state]
    for ours, one in zip(states, wanted, strict=True):
        torch.testing.assert_close(ours, one, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mean, sum(states) / 4)


@pytest.mark.parametrize("name", TEACHERS)
def test_an_embedding_does_not_depend_on_neighbours_in_the_batch(name):
    model = SpeakerEncoder(build(name), BiMambaEncoder(16, 1), 8).double()
    assert largest_shift(model, longest=4000) < 1e-10


def test_an_embedding_in_float32_moves_by_rounding_only():
    assert largest_shift(SpeakerEncoder(build("wavlm-group"), BiMambaEncoder(16, 1), 8)) < 2e-5


@pytest.mark.parametrize("name", ["wav2vec2-group", "wavlm-layer"])
@pytest.mark.parametrize("layers, front", [(0, False), (2, False), ("all", False), ("all", True)])
def test_gradients_reach_the_trainable_parts_and_no_other(name, layers, front):
    model = build(name, trainable_layers=layers, train_front_end=front)
    features, _ = model(torch.randn(2, 3000), torch.tensor([3000, 1200]))
    features.square().mean().backward()
    learns = {
        part: any(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())
        for part, module in {
            "front": model.network.feature_extractor,
            "projection": model.network.feature_projection,
            "positions": model.network.encoder.pos_conv_embed,
            **{str(number): layer for number, layer in enumerate(model.network.encoder.layers)},
        }.items()
    }
    everything = layers == "all"
    assert learns == {
        "front": front,
        "projection": everything,
        "positions": everything,
        "0": everything,
        "1": layers != 0,
        "2": layers != 0,
    }
    assert model.layer_weights.grad.abs().max() > 0
    for parameter in model.network.parameters():
        assert parameter.requires_grad == (parameter.grad is not None)


def test_frozen_parts_stay_in_evaluation_mode_and_dropped_layers_still_count():
    model = build("wavlm-layer", trainable_layers=1)
    model.layerdrop = 1.0
    model.train()
    dropping = [
        m for m in model.network.modules() if isinstance(m, torch.nn.Dropout) and m.training
    ]
    assert dropping and all(m in list(model.network.encoder.layers[2].modules()) for m in dropping)
    wavs = torch.randn(1, 3000)
    first, second = model.hidden_states(wavs)[0], model.hidden_states(wavs)[0]
    assert len(first) == 4
    for one, other in zip(first[:3], second[:3], strict=True):
        assert torch.equal(one, other)
    # the last layer was dropped: its input passed through
    norm = model.network.encoder.layer_norm
    torch.testing.assert_close(first[3], norm(first[2]))
    whole = SelfSupervised({**TEACHERS["wavlm-layer"], "layerdrop": 0.0}, trainable_layers="all")
    assert any(m.training for m in whole.network.modules() if isinstance(m, torch.nn.Dropout))
    assert not any(m.training for m in whole.eval().modules())


def test_a_dropped_layer_leaves_no_gradient_missing_where_processes_train_together():
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        model = build("wav2vec2-group", layer="last", trainable_layers=2)
        model.layerdrop = 1.0
        wavs = torch.randn(1, 2000)
        features, _ = model(wavs)
        torch.testing.assert_close(features, model.hidden_states(wavs)[0][1])
        features.sum().backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        assert trained and all(p.grad is not None and p.grad.abs().max() == 0 for p in trained)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["hubert-group", "wavlm-layer"])
def test_a_lower_layer_is_the_same_without_those_above_it(name, tmp_path):
    save_teacher(name, tmp_path)
    whole = SelfSupervised(TEACHERS[name]).eval()
    part = SelfSupervised(TEACHERS[name], layer=2, trainable_layers=1).eval()
    for model in (whole, part):
        load_pretrained(model, tmp_path, tmp_path)
    wavs = torch.randn(1, 2000)
    torch.testing.assert_close(part(wavs)[0], whole.hidden_states(wavs)[0][2])
    assert len(part.network.encoder.layers) == 2
    again = SelfSupervised(part.config, layer=2).eval()
    again.load_state_dict(part.state_dict(), strict=True)
    torch.testing.assert_close(again(wavs)[0], part(wavs)[0])


@pytest.mark.parametrize("name", ["wav2vec2-layer", "wavlm-group"])
def test_recomputed_activations_give_the_same_gradients(name):
    gradients = []
    for checkpointing in (False, True):
        config = {**TEACHERS[name], "layerdrop": 0.0}
        torch.manual_seed(0)
        model = SelfSupervised(config, "last", "all", gradient_checkpointing=checkpointing)
        torch.manual_seed(1)
        model(torch.randn(2, 2000))[0].square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", TEACHERS)
def test_bfloat16_autocast_trains(name):
    model = build(name, trainable_layers="all", train_front_end=True)
    with torch.autocast("cpu", torch.bfloat16):
        features, _ = model(torch.randn(2, 3000), torch.tensor([3000, 400]))
    features.float().square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    "change, said",
    [
        ({"num_hidden_layers": 4}, "num_hidden_layers is 3, not 4"),
        ({"hidden_size": 32}, "hidden_size is 16, not 32"),
        ({"model_type": "hubert"}, "model_type is wavlm, not hubert"),
        ({"do_normalize": True}, "do_normalize is False, not True"),
    ],
)
def test_a_teacher_of_another_shape_is_refused_with_the_difference(change, said, tmp_path):
    save_teacher("wavlm-group", tmp_path)
    model = SelfSupervised({**TEACHERS["wavlm-group"], **change})
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))} is another model.*{said}"):
        load_pretrained(model, tmp_path, tmp_path)


def test_sources_that_hold_no_teacher_are_refused_by_name(tmp_path, monkeypatch):
    for source in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError, match=f"cannot read a model from {source}: give"):
            read_config(source)
    save_teacher("wavlm-group", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=f"cannot read a model from {tmp_path}"):
        load_pretrained(SelfSupervised(TEACHERS["wavlm-group"]), tmp_path, tmp_path / "saved")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RuntimeError, match="pip install 'transformers"):
        SelfSupervised(TEACHERS["wavlm-group"])


@pytest.mark.parametrize(
    "config, options, said",
    [
        ({"model_type": "bert"}, {}, "wav2vec2, hubert, wavlm; its model_type is 'bert'"),
        ({"conv_pos_batch_norm": True}, {}, "conv_pos_batch_norm = True"),
        ({}, {"layer": "first"}, "layer must be last, weighted_sum, or lie in 0..3; got 'first'"),
        ({}, {"layer": 4}, "lie in 0..3; got 4"),
        ({}, {"layer": 2, "trainable_layers": 3}, "trainable_layers must be all, or lie in 0..2"),
        ({}, {"train_front_end": True}, "set trainable_layers to all"),
    ],
)
def test_options_outside_their_range_are_refused_by_name(config, options, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        SelfSupervised({**TEACHERS["hubert-group"], **config}, **options)

"""Keyword networks: the published ones to the last digit, and what corrected mode promises beyond."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from modules.kws import mamba
from modules.kws.convolutional import KeywordCNN, MobileNetV2KeywordSpotter
from modules.kws.depthwise import DSCNNKeywordSpotter
from modules.kws.features import KeywordFeatures
from modules.kws.mamba import MambaKeywordSpotter
from modules.kws.recurrent import GRUKeywordSpotter
from modules.kws.retention import MultiScaleRetention
from modules.kws.retnet import RetNetKeywordSpotter
from modules.ssm import BiMamba, Mamba, parameter_groups
from tests.support.golden import Golden
from tests.support.keyword_networks import FEATURES, SEQUENCE, SMALL, perturbed

SIZES = json.loads((Path(__file__).parents[2] / "model_sizes.json").read_text())["models"]
SIZES = {k.removeprefix("KWS-Mamba/"): v for k, v in SIZES.items() if k.startswith("KWS-Mamba/")}
BUILDERS = {
    **{name: getattr(mamba, name) for name in SIZES if name.startswith("mamba_")},
    "retnet_class_default_d256_L8_h8": lambda n: RetNetKeywordSpotter(n, 256, 8, 8),
    "retnet_notebook_d128_L6_h8": RetNetKeywordSpotter,
    "retnet_trainscript_comment_d128_L8_h8": lambda n: RetNetKeywordSpotter(n, n_layers=8),
    "mobilenetv2_alpha0.75": MobileNetV2KeywordSpotter,
    "keywordcnn": KeywordCNN,
}


@pytest.mark.parametrize("name", ["mamba_mel", "mamba_mfcc", "retnet"])
def test_golden_sequence_networks(name):
    with Golden(f"kws_{name}") as golden, torch.no_grad():
        meta = golden.meta
        sizes = (meta["num_classes"], meta["d_model"], meta["n_layers"])
        options = {"feature_dim": meta["feature_dim"], "fidelity": "upstream"}
        if name == "retnet":
            model = RetNetKeywordSpotter(*sizes, meta["n_heads"], **options)
        else:
            options |= {"d_state": meta["d_state"], "expand": meta["expand"]}
            model = MambaKeywordSpotter(*sizes, kind=name.removeprefix("mamba_"), **options)
        model.eval().load_state_dict(golden.state_dict(), strict=True)
        golden.compare("output/logits", model(golden["input/x"], golden["input/lengths"]))
        golden.compare("output/logits_nolen", model(golden["input/x"]))
        model.fidelity = "corrected"
        golden.compare("output/logits_nolen", model(golden["input/x"]))


def test_golden_two_dimensional_networks_in_both_layouts():
    with torch.no_grad():
        for name, build, tolerance in (
            ("mobilenetv2", lambda n: MobileNetV2KeywordSpotter(n, alpha=0.1), 2e-5),
            ("keywordcnn", lambda n: KeywordCNN(n, n_frames=33), 1e-5),
        ):
            with Golden(f"kws_{name}") as golden:
                model = build(golden.meta["num_classes"]).eval()
                model.load_state_dict(golden.state_dict(), strict=True)
                x = golden["input/x"]
                for fidelity in ("upstream", "corrected"):
                    model.fidelity = fidelity
                    golden.compare("output/logits", model(x), tolerance)
                    golden.compare("output/logits", model(x.squeeze(1).mT), tolerance)


@pytest.mark.parametrize("name", SIZES)
def test_parameter_counts_are_the_published_ones(name):
    for classes in (35, 36):
        model = BUILDERS[name](classes)
        counts = {key: 0 for key in SIZES[name].get("modules", {})}
        for key, parameter in model.named_parameters():
            counts[key.split(".")[0]] = counts.get(key.split(".")[0], 0) + parameter.numel()
        assert sum(counts.values()) == SIZES[name][f"total_trainable_{classes}_classes"]
        if classes == 35 and "modules" in SIZES[name]:
            assert counts == SIZES[name]["modules"]


def test_baselines_have_the_sizes_that_their_recipes_name():
    counts = [
        sum(parameter.numel() for parameter in model.parameters())
        for model in (mamba.mamba_mel_small(), GRUKeywordSpotter(), DSCNNKeywordSpotter())
    ]
    assert counts == [462_147, 462_867, 420_107]


@pytest.mark.parametrize("name", SEQUENCE)
def test_a_padded_batch_gives_the_logits_of_each_clip_alone_from_the_waveform_on(name):
    torch.manual_seed(4)
    build, kind = SEQUENCE[name]
    features = KeywordFeatures(kind, causal=name == "causal", **FEATURES)
    model, upstream = perturbed(build()), None
    for pair in range(50):
        samples = torch.randint(1, 64 * 40, (2,))
        wavs = torch.randn(2, int(samples.max()))
        with torch.no_grad():
            x, lengths = features(wavs, samples)
            x = x.clone()
            for item, count in enumerate(lengths.tolist()):
                x[item, count:] = torch.nan if pair % 2 else 1e3
            logits = model(x, lengths)
            for item, count in enumerate(samples.tolist()):
                alone = model(*features(wavs[item : item + 1, :count]))
                assert torch.allclose(logits[item], alone[0], atol=1e-4), (name, samples)
    if name not in ("mamba_mfcc", "causal"):
        # the same weights with the published masking do depend on the neighbour
        upstream = build(fidelity="upstream").eval()
        upstream.load_state_dict(model.state_dict())
        x, lengths = torch.randn(2, 40, x.shape[2]), torch.tensor([40, 20])
        alone = upstream(x[1:, :20], lengths[1:])
        assert not torch.allclose(upstream(x, lengths)[1], alone[0], atol=1e-4)


@pytest.mark.parametrize(
    "build", [lambda: MobileNetV2KeywordSpotter(5, 0.1), lambda: KeywordCNN(5)]
)
def test_fixed_length_networks_crop_and_pad_each_clip_at_its_own_end(build):
    model = perturbed(build())
    x = torch.randn(3, 80, 32)
    lengths = torch.tensor([80, 63, 20])
    with torch.no_grad():
        logits = model(x, lengths)
        for item, count in enumerate(lengths.tolist()):
            assert torch.allclose(model(x[item : item + 1, :count])[0], logits[item], atol=1e-5)
        assert torch.allclose(model(x[:1])[0], model(x[:1, :63])[0], atol=1e-5)


@pytest.mark.parametrize("name", ["mamba_mel", "retnet", "gru", "ds_cnn"])
def test_padding_is_no_part_of_batch_statistics_and_gets_no_gradient_in_training(name):
    torch.manual_seed(5)
    build, kind = SEQUENCE[name]
    model = build(dropout=0.0).train()
    norm = model.first.norm if name == "ds_cnn" else model.conv_embed[1]
    start = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.randn(3, 30, 24 if kind == "mel" else 12)
    lengths = torch.tensor([30, 20, 8])
    results = []
    for padding in (0.0, 50.0, None):
        model.load_state_dict(start)
        item = x.clone()
        if padding is None:  # longer still
            item = F.pad(item, (0, 0, 0, 11), value=7.0)
        else:
            for row, count in enumerate(lengths.tolist()):
                item[row, count:] = padding
        item.requires_grad_()
        logits = model(item, lengths)
        logits.square().sum().backward()
        assert not item.grad[1, 20:].any() and item.grad[1, :20].any()
        results.append((logits.detach(), norm.running_mean.clone()))
    for logits, mean in results[1:]:
        assert torch.allclose(logits, results[0][0], atol=1e-4)
        assert torch.allclose(mean, results[0][1], atol=1e-5)


@pytest.mark.parametrize("name", SEQUENCE)
def test_gradients_are_those_of_clean_padding_whatever_stands_in_it(name):
    torch.manual_seed(10)
    build, kind = SEQUENCE[name]
    model = build(dropout=0.0).train()
    x, lengths = torch.randn(2, 12, 24 if kind == "mel" else 12), torch.tensor([12, 7])
    gradients = []
    for padding in (0.0, torch.nan):
        x[1, 7:] = padding
        model.zero_grad()
        model(x, lengths).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.allclose(*gradients, atol=1e-5)


@pytest.mark.parametrize("name", ["mamba_mel", "retnet", "gru", "ds_cnn"])
def test_a_masked_batch_gets_the_gradients_of_its_clips_without_padding(name):
    """The masks' own path through batch norm, in the memory layout that CPUs convolve fastest in."""
    torch.manual_seed(12)
    build, kind = SEQUENCE[name]
    model = build(dropout=0.0).train().to(memory_format=torch.channels_last)
    x, lengths = torch.randn(3, 18, 24 if kind == "mel" else 12), torch.tensor([16, 16, 16])
    gradients = []
    for features, counts in ((x, lengths), (x[:, :16], None)):
        model.zero_grad()
        (model(features, counts) * torch.arange(15.0).view(3, 5)).sum().backward()
        gradients.append({key: p.grad.clone() for key, p in model.named_parameters()})
    masked, plain = gradients
    largest = max(float(value.abs().max()) for value in plain.values())
    for key, value in plain.items():
        assert torch.allclose(masked[key], value, atol=1e-4 * largest), key


@pytest.mark.parametrize("name", SEQUENCE)
def test_networks_train_under_autocast_and_compute_in_float64_where_they_are_asked_to(name):
    torch.manual_seed(11)
    build, kind = SEQUENCE[name]
    model = build(dropout=0.0).train()
    x, lengths = torch.randn(2, 30, 24 if kind == "mel" else 12), torch.tensor([30, 21])
    x[0, 5:15] = 0  # silence within a clip
    for dtype in (torch.float16, torch.bfloat16):
        model.zero_grad()
        with torch.autocast("cpu", dtype):
            logits = model(x, lengths)
        logits.float().square().sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    with torch.no_grad():
        single = model.eval()(x, lengths)
        double = model.double()(x.double(), lengths)
        assert double.dtype == torch.float64 and torch.allclose(double.float(), single, atol=1e-5)
        # nothing on the way is rounded to float32
        nudged = model(x.double() * (1 + 1e-10), lengths)
        assert 0 < (nudged - double).abs().max() < 1e-8


@pytest.mark.parametrize("fidelity", ["corrected", "upstream"])
def test_state_space_parameters_keep_their_initial_values_in_every_network(fidelity):
    for options in ({}, {"bidirectional": True}, {"causal": True}, {"kind": "mfcc"}):
        model = MambaKeywordSpotter(fidelity=fidelity, **SMALL, **options)
        blocks = [module for module in model.modules() if isinstance(module, Mamba)]
        assert len(blocks) == SMALL["n_layers"]
        assert all(isinstance(b, BiMamba) == ("bidirectional" in options) for b in blocks)
        for block in blocks:
            assert torch.allclose(block.A_log.exp(), torch.arange(1.0, 17.0).expand(32, 16))
            assert (block.D == 1).all()
            step = F.softplus(block.dt_proj.bias)
            assert step.min() >= 1e-4 and step.max() <= 0.1 + 1e-6
            assert block.dt_proj.weight.abs().max() <= 1.0
        spared = {id(p) for p in parameter_groups(model, 0.1)[1]["params"]}
        assert all(id(block.A_log) in spared and id(block.D) in spared for block in blocks)


def test_dropout_follows_the_published_schedule():
    def rates(module):
        return [m.p for m in module.modules() if isinstance(m, torch.nn.Dropout)]

    network, retnet = mamba.mamba_mel_medium(), RetNetKeywordSpotter()
    assert rates(network.proj) + rates(network.classifier_dropout) == [0.1, 0.1]
    assert rates(network.classifier) == [0.05]
    wanted = [max(0.02, 0.05 - 0.005 * i) for i in range(10)]
    assert [r for b in network.blocks for r in rates(b)] == pytest.approx(wanted)
    wanted = [max(0.02, 0.03 - 0.003 * i) for i in range(6) for _ in range(3)]
    assert [r for b in retnet.blocks for r in rates(b)] == pytest.approx(wanted)
    assert rates(mamba.mamba_mfcc_small().classifier) == [0.1, 0.05]


def test_bad_options_and_features_are_refused_by_name():
    with pytest.raises(ValueError, match="set one of them"):
        MambaKeywordSpotter(causal=True, bidirectional=True)
    with pytest.raises(ValueError, match="kind must be one of mel, mfcc"):
        MambaKeywordSpotter(kind="wave")
    with pytest.raises(ValueError, match="n_classes must be 1 or more"):
        RetNetKeywordSpotter(0)
    with pytest.raises(ValueError, match="must be a multiple of n_heads"):
        RetNetKeywordSpotter(5, d_model=20, n_heads=8)
    with pytest.raises(ValueError, match="must be a multiple of n_heads"):
        MultiScaleRetention(20, 8)
    with pytest.raises(ValueError, match="alpha must be positive"):
        MobileNetV2KeywordSpotter(alpha=0)
    with pytest.raises(ValueError, match="fidelity must be one of"):
        KeywordCNN(fidelity="improved")
    with pytest.raises(ValueError, match="form must be one of"):
        MultiScaleRetention(16, 2)(*torch.randn(3, 1, 4, 16), form="quadratic")
    model = MambaKeywordSpotter(feature_dim=24, **SMALL).eval()
    with pytest.raises(ValueError, match=r"must be \(batch, time, 24\), as feature_dim says"):
        model(torch.randn(1, 10, 40))
    with pytest.raises(ValueError, match="hold no frame"):
        model(torch.randn(1, 0, 24))
    with pytest.raises(ValueError, match="lengths must be an integer tensor"):
        model(torch.randn(1, 10, 24), torch.tensor([1.0]))
    with pytest.raises(ValueError, match="lengths must lie in 0..10"):
        KeywordCNN()(torch.randn(1, 10, 24), torch.tensor([11]))
    with pytest.raises(ValueError, match="with a frame at least"):
        KeywordCNN()(torch.randn(2, 2, 10, 24))
    with pytest.raises(ValueError, match="build it with causal=True"):
        model.initial_state(1)
    causal = MambaKeywordSpotter(feature_dim=24, causal=True, **SMALL)
    with pytest.raises(ValueError, match="window must be 1 frame of embedding or more"):
        causal.initial_state(1, window=0)

"""Layer-wise learning rates: every trainable parameter once, at the rate of its layer."""

import pytest
import torch

from modules.speaker.encoder import BiMambaEncoder, SpeakerEncoder
from modules.speaker.front_ends import FilterbankFrontEnd
from modules.speaker.parameter_groups import layerwise_groups
from modules.speaker.self_supervised import SelfSupervised
from tests.support.speaker_networks import TEACHERS
from training.schedules import WarmupCosine


@pytest.mark.parametrize("name", ["wav2vec2-group", "wavlm-layer"])
@pytest.mark.parametrize("layers", [0, 2, "all"])
def test_every_trainable_parameter_has_the_rate_of_its_layer(name, layers):
    front_end = SelfSupervised(TEACHERS[name], "weighted_sum", layers)
    model = SpeakerEncoder(front_end, BiMambaEncoder(16, 1), 8)
    classifier = torch.nn.Linear(8, 5)
    groups = layerwise_groups((model, classifier), 1e-3, 1e-4, decay=0.5, weight_decay=0.01)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    trainable = {
        **{f"model.{key}": p for key, p in model.named_parameters() if p.requires_grad},
        **{f"classifier.{key}": p for key, p in classifier.named_parameters()},
    }
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(trainable)
    for key, parameter in trainable.items():
        wanted = 1e-3
        if ".network." in key:
            part = key.split(".network.")[1].split(".")
            below = 2 - int(part[2]) if part[:2] == ["encoder", "layers"] else 3
            if part[:2] == ["encoder", "layer_norm"] and name.endswith("layer"):
                below = 0
            wanted = 1e-4 * 0.5**below
        assert rates[id(parameter)] == pytest.approx(wanted), key
    spared = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    for key, parameter in trainable.items():
        assert (id(parameter) in spared) == (parameter.dim() < 2 or "A_" in key), key
    assert groups[0]["lr"] == 1e-3


def test_a_schedule_keeps_the_ratio_of_the_rates():
    model = SpeakerEncoder(
        SelfSupervised(TEACHERS["wavlm-group"], "last", 2), BiMambaEncoder(16, 1)
    )
    groups = layerwise_groups(model, 1e-3, 1e-4, decay=0.5)
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    schedule = WarmupCosine(lr_initial=1e-3, n_warmup_steps=4, total_steps=20)
    for _ in range(10):
        _, rate = schedule(optimizer)
        rates = sorted({round(group["lr"] / rate, 12) for group in optimizer.param_groups})
        assert rates == [0.05, 0.1, 1.0]


def test_a_model_without_a_pretrained_network_has_one_rate():
    groups = layerwise_groups(SpeakerEncoder(FilterbankFrontEnd(), BiMambaEncoder(16, 1)), 0.1)
    assert [group["lr"] for group in groups] == [0.1, 0.1]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"lr": 0}, "lr and lr_front_end must be positive"),
        ({"lr": 1, "decay": 1.5}, "decay must be"),
    ],
)
def test_rates_outside_their_range_are_refused_by_name(options, said):
    with pytest.raises(ValueError, match=said):
        layerwise_groups(torch.nn.Linear(2, 2), **options)

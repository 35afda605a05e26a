"""Back-ends: ECAPA-TDNN is SpeechBrain's where nothing is padded, and exact where something is."""

import pytest
import torch
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

from modules.speaker.back_ends import EcapaBackEnd, LinearBackEnd
from tests.support.pairs import random_pairs

SIZES = {"se_channels": 4, "attention_channels": 5, "res2net_scale": 4}
BACK_ENDS = {
    "linear": lambda: LinearBackEnd(12, embedding_size=6),
    "ecapa": lambda: perturbed(EcapaBackEnd(12, 6, channels=16, **SIZES)),
    "ecapa_without_context": lambda: perturbed(
        EcapaBackEnd(12, 6, channels=16, global_context=False, **SIZES)
    ),
}


def perturbed(model):
    """The model with batch statistics and gains moved off their initial values."""
    for name, tensor in model.state_dict().items():
        if name.endswith(("norm.running_mean", "norm.bias")):
            torch.nn.init.normal_(tensor, std=0.3)
        elif name.endswith(("norm.running_var", "norm.weight")):
            torch.nn.init.uniform_(tensor, 0.5, 2.0)
    return model


@pytest.mark.parametrize("kind", BACK_ENDS)
def test_an_embedding_does_not_depend_on_neighbours_in_the_batch(kind):
    torch.manual_seed(3)
    back_end = BACK_ENDS[kind]().double().eval()
    lengths, x = torch.randint(1, 41, (20,)), torch.randn(20, 41, 12, dtype=torch.float64)
    with torch.no_grad():
        alone = torch.cat(
            [back_end(x[item : item + 1, :length]) for item, length in enumerate(lengths)]
        )
        for pair in map(list, random_pairs(20, 50)):
            together = back_end(x[pair, : lengths[pair].max()], lengths[pair])
            torch.testing.assert_close(together, alone[pair])


@pytest.mark.parametrize("training", [False, True])
def test_ecapa_is_speechbrains_on_a_batch_without_padding(training):
    torch.manual_seed(4)
    channels = [16, 16, 16, 16, 48]
    theirs = perturbed(ECAPA_TDNN(12, lin_neurons=6, channels=channels, **SIZES)).train(training)
    ours = EcapaBackEnd(12, 6, channels=16, **SIZES).train(training)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(3, 20, 12)
    torch.testing.assert_close(ours(x), theirs(x).squeeze(1))
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name])


def test_batch_statistics_of_ecapa_are_over_valid_frames():
    torch.manual_seed(5)
    back_end = EcapaBackEnd(12, 6, channels=16, **SIZES).train()
    x, lengths = torch.randn(3, 30, 12), torch.tensor([30, 11, 24])
    before = {name: value.clone() for name, value in back_end.state_dict().items()}
    embedding = back_end(x, lengths)
    statistics = {name: value.clone() for name, value in back_end.state_dict().items()}
    back_end.load_state_dict(before)
    padding = torch.arange(30).view(30, 1) >= lengths.view(3, 1, 1)
    longer = x.masked_fill(padding, 9.0)
    longer = torch.nn.functional.pad(longer, (0, 0, 0, 12), value=-7.0)
    torch.testing.assert_close(back_end(longer, lengths), embedding)
    for name, value in back_end.state_dict().items():
        torch.testing.assert_close(value, statistics[name])


@pytest.mark.parametrize("kind", BACK_ENDS)
def test_every_parameter_learns_under_bfloat16_autocast(kind):
    torch.manual_seed(6)
    back_end = BACK_ENDS[kind]()
    with torch.autocast("cpu", torch.bfloat16):
        embedding = back_end(torch.randn(4, 20, 12), torch.tensor([20, 1, 9, 15]))
    embedding.float().square().mean().backward()
    for name, parameter in back_end.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_channels_that_scales_cannot_share_are_refused_by_name():
    with pytest.raises(ValueError, match="channels must be a multiple of res2net_scale = 8"):
        EcapaBackEnd(12, channels=20)


def test_a_batch_of_one_utterance_is_refused_in_training_only():
    back_end = EcapaBackEnd(12, 6, channels=16, **SIZES)
    with pytest.raises(ValueError, match="two utterances a batch"):
        back_end(torch.randn(1, 9, 12))
    assert back_end.eval()(torch.randn(1, 9, 12)).shape == (1, 6)

"""ReDimNet as a back-end: published sizes, padding, batch statistics over valid frames."""

import pytest
import torch

from modules.speaker.redimnet import SIZES, ReDimNetBackEnd
from tests.support.pairs import random_pairs

# millions of parameters of the published networks, which begin with mel bands
PUBLISHED = {"b0": 1.0, "b1": 2.2, "b2": 4.7, "b3": 3.0, "b4": 6.3, "b6": 15.0}


def perturbed(size):
    """A back-end of 12 channels with statistics, gains and weights moved off their initial values."""
    torch.manual_seed(3)
    back_end = ReDimNetBackEnd(12, 6, size)
    for name, tensor in back_end.state_dict().items():
        if name.endswith("running_mean") or name.startswith("weights"):
            torch.nn.init.normal_(tensor, std=0.3)
        elif name.endswith("running_var"):
            torch.nn.init.uniform_(tensor, 0.5, 2.0)
    return back_end


@pytest.mark.parametrize("size", SIZES)
def test_a_size_has_the_published_parameters_within_eight_per_cent_without_its_entrance(size):
    with torch.device("meta"):
        back_end = ReDimNetBackEnd(1024, embedding_size=192, size=size)
    entrance = sum(parameter.numel() for parameter in back_end.entrance.parameters())
    total = sum(parameter.numel() for parameter in back_end.parameters())
    assert (total - entrance) / 1e6 == pytest.approx(PUBLISHED[size], rel=0.08)


# blocks of all three kinds, with and without attention in every stage
@pytest.mark.parametrize("size, pairs", [("b0", 6), ("b1", 6), ("b3", 3)])
def test_an_embedding_does_not_depend_on_neighbours_in_the_batch(size, pairs):
    back_end = perturbed(size).double().eval()
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(1, 31, (4,), generator=generator)
    lengths[0] = 1
    x = torch.randn(4, 31, 12, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        alone = torch.cat(
            [back_end(x[item : item + 1, :length]) for item, length in enumerate(lengths)]
        )
        for pair in map(list, random_pairs(4, pairs)):
            together = back_end(x[pair, : lengths[pair].max()], lengths[pair])
            torch.testing.assert_close(together, alone[pair])


def test_batch_statistics_are_over_valid_frames():
    back_end = perturbed("b0").double().train()
    x, lengths = torch.randn(3, 20, 12, dtype=torch.float64), torch.tensor([20, 7, 13])
    before = {name: value.clone() for name, value in back_end.state_dict().items()}
    embedding = back_end(x, lengths)
    statistics = {name: value.clone() for name, value in back_end.state_dict().items()}
    back_end.load_state_dict(before)
    padding = torch.arange(20).view(20, 1) >= lengths.view(3, 1, 1)
    longer = torch.nn.functional.pad(x.masked_fill(padding, 9.0), (0, 0, 0, 9), value=-7.0)
    torch.testing.assert_close(back_end(longer, lengths), embedding)
    for name, value in back_end.state_dict().items():
        torch.testing.assert_close(value, statistics[name])


def test_every_parameter_learns_under_bfloat16_autocast():
    back_end = perturbed("b0")
    with torch.autocast("cpu", torch.bfloat16):
        embedding = back_end(torch.randn(4, 20, 12), torch.tensor([20, 1, 9, 15]))
    (embedding.float() * torch.randn(4, 6)).sum().backward()
    for name, parameter in back_end.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_an_unknown_size_and_a_batch_of_one_are_refused():
    with pytest.raises(ValueError, match="size must be one of b0, b1, b2, b3, b4, b6; got 'b5'"):
        ReDimNetBackEnd(12, size="b5")
    with pytest.raises(ValueError, match="ReDimNet trains on two utterances a batch or more"):
        ReDimNetBackEnd(12, size="b0").train()(torch.randn(1, 9, 12))

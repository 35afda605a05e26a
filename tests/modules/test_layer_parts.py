"""Parts of a layer in few calls: what they keep is never stale."""

import torch
from torch import nn

from modules.layer_parts import decay_rates
from modules.ssm import Mamba


def test_rates_are_made_anew_for_other_numbers_at_the_same_address():
    """The memory of a parameter that is gone is given to the next one of its size."""
    block = Mamba(d_model=16)
    for value in range(8):
        shape = block.A_log.shape
        # the old numbers are freed before the new ones are made
        del block.A_log
        block.A_log = nn.Parameter(torch.full(shape, float(value)))
        assert torch.equal(decay_rates(block), -torch.full(shape, float(value)).exp())

"""Pairs of utterances that are batched together, each utterance with several neighbours."""

import itertools

import torch


def random_pairs(count, pairs):
    """So many pairs of ``count`` items by number, each pair once, the first two items first."""
    every = list(itertools.combinations(range(count), 2))
    order = torch.randperm(len(every) - 1, generator=torch.Generator().manual_seed(6)) + 1
    return [every[0], *(every[index] for index in order[: pairs - 1])]

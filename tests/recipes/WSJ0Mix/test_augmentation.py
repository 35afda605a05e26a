"""Changes of training mixtures: where their draws come from, and that sources still add up."""

import torch

from tests.support.separation import (
    RATE,
)


def test_what_happens_to_a_mixture_follows_from_seed_epoch_and_index_alone(recipe):
    augmentation = recipe("augmentation")
    sounds = {"mix_sig": torch.randn(900), "s1_sig": torch.randn(900), "s2_sig": torch.randn(900)}
    items = [{"id": str(number), **sounds} for number in range(4)]
    augment = augmentation.MixtureAugmenter(RATE, [90, 100, 110], (-50, 50), longest=700)

    def epoch(seed, number, workers):
        mixtures = augmentation.AugmentedMixtures(items, 2, augment, seed)
        mixtures.set_epoch(number)
        loader = torch.utils.data.DataLoader(mixtures, batch_size=None, num_workers=workers)
        return [item["s1_sig"] for item in loader]

    def same(a, b):
        # workers have one thread, which rounds the change of speed otherwise than several do
        return a.shape == b.shape and torch.allclose(a, b, atol=1e-5)

    here = epoch(1, 1, 0)
    torch.randn(7)
    assert all(map(same, here, epoch(1, 1, 2)))
    others = [epoch(1, 2, 0), epoch(2, 1, 0), [here[1], here[2], here[3], here[0]]]
    for other in others:
        assert not any(map(same, here, other))


def test_changed_sources_still_add_up_to_their_mixture(recipe):
    augmentation = recipe("augmentation")
    for speeds in (None, [90, 110]):
        for shifts in (None, (-9, 9)):
            augment = augmentation.MixtureAugmenter(RATE, speeds, shifts, longest=500)
            sources = torch.randn(800, 2)
            mix, changed = augment(sources.sum(1), sources, torch.Generator())
            assert len(mix) == 500 and torch.allclose(mix, changed.sum(1))

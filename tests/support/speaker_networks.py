"""Checks that every speaker network must pass, whatever it is made of."""

import torch


def largest_shift(model, pairs=50, longest=8000, seed=0):
    """Largest change of an embedding by a longer neighbour in the batch, over pairs of random lengths.

    Noise stands behind the shorter utterance's end. The scale is the largest value of the embeddings.
    """
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    dtype = next(model.parameters()).dtype
    worst = 0.0
    with torch.no_grad():
        for _ in range(pairs):
            samples = torch.randint(model.min_samples, longest + 1, (2,), generator=generator)
            wavs = torch.randn(2, int(samples.max()), generator=generator).to(dtype)
            together = model(wavs, samples)
            alone = torch.cat([model(wav[None, :n]) for wav, n in zip(wavs, samples, strict=True)])
            worst = max(worst, float((together - alone).abs().max() / alone.abs().max()))
    return worst

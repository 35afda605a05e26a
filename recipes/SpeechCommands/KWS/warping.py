"""Other throats: the frequency axis of training features, stretched or pressed together.

Source: Jaitly and Hinton, "Vocal tract length perturbation improves speech recognition" (ICML workshop on deep learning
for audio, speech and language processing, 2013); here on mel bands.
"""

import torch


def warp_frequencies(features, largest):
    """Stretch each clip's frequency axis by a random factor, from ``1 - largest`` to ``1 + largest``.

    Arguments
    ---------
    features : torch.Tensor
        (batch, time, bands).
    largest : float
        From 0 to 0.5.

    Returns
    -------
    torch.Tensor
        As ``features``; bands between two are interpolated, and those beyond the last one repeat it.

    Example
    -------
    >>> import torch
    >>> features = torch.arange(4.0).expand(1, 1, 4)
    >>> torch.equal(warp_frequencies(features, 0.0), features), warp_frequencies(features, 0.5).shape
    (True, torch.Size([1, 1, 4]))
    """
    batch, time, bands = features.shape
    factors = 1 + largest * (2 * torch.rand(batch, 1, device=features.device) - 1)
    places = (torch.arange(bands, device=features.device) * factors).clamp(max=bands - 1)
    below = places.floor().long()
    above = (below + 1).clamp(max=bands - 1)
    part = (places - below).unsqueeze(1)  # (batch, 1, bands)
    low, high = (
        features.gather(2, at.unsqueeze(1).expand(batch, time, bands)) for at in (below, above)
    )
    return low + part * (high - low)

"""Separating a stream of any length at bounded memory: overlapping windows, or a causal network's carried state.

A network puts the speakers of every window into an order of its own, and at a level of its own, since the measure it
was trained on knows neither. So each window is brought to the mixture's level, put into the order, and
each of its sources to the sign, that agree best with the window before it where the two overlap, and faded into it.
"""

import math

import torch
from scipy.optimize import linear_sum_assignment

from modules.separation.level import fit_to_mixture
from modules.separation.streaming import StreamingSeparator


def separate_windows(network, blocks, window, overlap):
    """Separate a stream window by window.

    Arguments
    ---------
    network : modules.separation.separator.SeparationNetwork
        In evaluation mode.
    blocks : iterable of torch.Tensor
        The mixture in pieces (samples,) of any lengths.
    window, overlap : int
        Samples of a window, and of what two windows share. They are lowered to whole frames of the
        encoder. A stream no longer than one window is separated whole.

    Yields
    ------
    (torch.Tensor, torch.Tensor)
        Consecutive pieces: sources (samples, speakers) at the mixture's level, and the mixture (samples,).

    Raises
    ------
    ValueError
        If a window does not hold two frames, or the overlap is not shorter than the window.
    """
    stride = network.stride
    window, overlap = whole_frames(network, window, overlap)
    kept = mixture = None
    began = given = 0
    for start, mix in cut(blocks, window, window - overlap, stride):
        sources = _separate(network, mix)
        if kept is not None:
            shared = kept[start - began :]
            order, signs = align(shared, sources[: len(shared)])
            sources = sources[:, order] * signs
            # the last ``overlap`` samples of the window before are where it fades out
            first = len(kept) - overlap
            yield kept[given:first], mixture[given:first]
            given = first - (start - began)
            fade = _rising(overlap, sources)
            both = slice(given, given + overlap)
            sources[both] = sources[both] * fade + shared[both] * (1 - fade)
        kept, mixture, began = sources, mix, start
    if kept is not None:
        yield kept[given:], mixture[given:]


def whole_frames(network, window, overlap):
    """A window and its overlap, in samples, lowered to whole frames of a network's encoder.

    Raises
    ------
    ValueError
        See :func:`separate_windows`.
    """
    stride = network.stride
    window = (window - network.kernel_size) // stride * stride + network.kernel_size
    overlap -= overlap % stride
    if window < network.kernel_size + stride or not 0 <= overlap <= window - stride:
        raise ValueError(
            f"a window must be at least {network.kernel_size + stride} samples and its overlap shorter by {stride} or "
            f"more; got {window} and {overlap}"
        )
    return window, overlap


def cut(blocks, window, hop, step):
    """Cut a stream into windows that overlap.

    Arguments
    ---------
    blocks : iterable of torch.Tensor
        (samples,) each.
    window, hop : int
        Samples of a window, and from one window's start to the next's.
    step : int
        Every window starts at a multiple of it, if ``hop`` is one.

    Yields
    ------
    (int, torch.Tensor)
        First sample, and the window. The last one ends with the stream; to be as long as the others it
        overlaps more, and it is longer by less than ``step``. A stream shorter than a window is one window.

    Example
    -------
    >>> [(start, len(one)) for start, one in cut([torch.zeros(7), torch.zeros(14)], 10, 6, 2)]
    [(0, 10), (6, 10), (10, 11)]
    """
    buffer, start, given = torch.zeros(0), 0, False
    for block in blocks:
        buffer = torch.cat([buffer, block])
        while len(buffer) >= window + (hop if given else 0):
            if given:
                buffer, start = buffer[hop:], start + hop
            yield start, buffer[:window]
            given = True
    if not given and len(buffer):
        yield start, buffer
    elif len(buffer) > window:
        skipped = (len(buffer) - window) // step * step
        yield start + skipped, buffer[skipped:]


def align(before, after):
    """Order and signs with which one window's sources agree best with the window before.

    Arguments
    ---------
    before, after : torch.Tensor
        (samples, speakers) of the stretch that both windows hold.

    Returns
    -------
    (list of int, torch.Tensor)
        The order, and a sign (speakers,) each: the magnitudes of the correlations of ``before`` with
        ``after[:, order] * signs`` have the largest sum. In silence all stays as it stands.

    Example
    -------
    >>> before = torch.eye(3)
    >>> align(before, before[:, [2, 0, 1]] * torch.tensor([1.0, -1.0, 1.0]))
    ([1, 2, 0], tensor([-1.,  1.,  1.]))
    """
    products = before.double().T @ after.double()
    order = linear_sum_assignment(products.abs().cpu().numpy(), maximize=True)[1].tolist()
    matched = products[:, order].diagonal()
    norms = before.double().norm(dim=0) * after.double().norm(dim=0)[order]
    # two that agree but for their sign would silence each other while they fade; what is alike by chance only
    # does not turn a source over, since its sign is the mixture's word
    return order, torch.where(matched < -0.5 * norms, -1.0, 1.0)


def separate_stream(network, blocks):
    """Separate a stream with a causal network, which carries its state.

    Arguments
    ---------
    network : modules.separation.separator.SeparationNetwork
        Causal, in evaluation mode.
    blocks : iterable of torch.Tensor
        (samples,) each.

    Yields
    ------
    (torch.Tensor, torch.Tensor)
        Consecutive pieces: sources (samples, speakers) at the network's level, and the mixture (samples,).

    Raises
    ------
    ValueError
        If the network is not causal.
    """
    stream = StreamingSeparator(network)
    state = stream.initial_state(1)
    device = next(network.parameters()).device
    waiting = torch.zeros(0)
    for block in blocks:
        waiting = torch.cat([waiting, block])
        sources, state = stream.push(block[None].to(device), state)
        ready = sources.shape[1]
        yield sources[0].cpu(), waiting[:ready]
        waiting = waiting[ready:].clone()
    yield stream.finish(state)[0].cpu(), waiting


@torch.no_grad()
def _separate(network, mix):
    """Sources (samples, speakers) of one window, at its level, on the CPU."""
    device = next(network.parameters()).device
    sources = network(mix[None].to(device))[0].cpu()
    return fit_to_mixture(sources, mix, peak=math.inf)


def _rising(samples, like):
    """From 0 to 1 in half a cosine, (samples, 1)."""
    times = (torch.arange(samples, dtype=like.dtype) + 0.5) / max(samples, 1)
    return (0.5 - 0.5 * torch.cos(math.pi * times))[:, None]

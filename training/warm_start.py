"""Starting a network from the weights of another: what fits by name and shape is loaded, and the log says the rest.

The other network may have other heads, another tokenizer, or more layers.
"""

import logging
from collections import Counter

import torch

logger = logging.getLogger(__name__)
# name prefixes that a line of the log lists
LISTED = 6


def load_fitting(network, weights, source, option, prefix_parts=1):
    """Give a network the weights that it has under the same name and in the same shape; one line of the log tells all.

    Arguments
    ---------
    network : torch.nn.Module
        Keeps its own weights where none fits.
    weights : dict of str to torch.Tensor
    source : str or Path
        Where they are from, for the log and for errors.
    option : str
        Name of the option that gave the source.
    prefix_parts : int
        Parts of a weight's name by which the line sums up.

    Returns
    -------
    new : list of str
        Names of the weights that the network keeps.

    Raises
    ------
    SystemExit
        If not one parameter fits.

    Example
    -------
    >>> trained = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 7)).state_dict()
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 5))
    >>> load_fitting(network, trained, "results/1", "pretrained_model")
    ['1.weight', '1.bias']
    >>> torch.equal(network[0].weight, trained["0.weight"])
    True
    """
    own = network.state_dict()
    fitting = {name: one for name, one in weights.items() if _fits(one, own.get(name))}
    parameters = dict(network.named_parameters())
    if not any(name in parameters for name in fitting):
        raise SystemExit(
            f"--{option}: nothing of {source} fits this network: no weight has the name and the shape of one of its "
            f"weights, {_example(weights, own)}; give the options that it was trained with, or another --{option}"
        )
    network.load_state_dict(own | fitting)
    new = {name: one for name, one in own.items() if name not in fitting}
    unused = {name: one for name, one in weights.items() if name not in fitting}
    report(option, source, fitting, new, unused, prefix_parts)
    return list(new)


def report(option, source, loaded, new, unused, prefix_parts=1):
    """One line of the log that tells which weights a network was given, and which not.

    Arguments
    ---------
    option, source, prefix_parts
        See :func:`load_fitting`.
    loaded, new, unused : dict of str to torch.Tensor
        Weights that the network was given, its own that stay, and the source's that have no place in it.
    """
    logger.info(
        "--%s: from %s, %s numbers loaded, %s left new%s, %s not used%s",
        option,
        source,
        f"{sum(one.numel() for one in loaded.values()):,}",
        *_summed(new, prefix_parts),
        *_summed(unused, prefix_parts),
    )


def _fits(weight, own):
    return own is not None and isinstance(weight, torch.Tensor) and weight.shape == own.shape


def _example(weights, own):
    """Words on one weight that does not fit."""
    for name, weight in weights.items():
        if name in own and isinstance(weight, torch.Tensor):
            there, here = tuple(weight.shape), tuple(own[name].shape)
            return f"for example {name}, {there} there and {here} here"
    return f"for example {next(iter(weights), 'none')} there and {next(iter(own), 'none')} here"


def _summed(weights, parts):
    """The count of numbers in some weights, and the counts by prefix in brackets, the largest first."""
    counts = Counter()
    for name, weight in weights.items():
        count = weight.numel() if isinstance(weight, torch.Tensor) else 0
        counts[".".join(name.split(".")[:parts])] += count
    listed = [f"{prefix} {count:,}" for prefix, count in counts.most_common(LISTED)]
    listed += ["..."] * (len(counts) > LISTED)
    return f"{counts.total():,}", f" ({', '.join(listed)})" if listed else ""

"""Layer-wise learning rates: what lies deeper in a pretrained network learns more slowly.

Source: Howard and Ruder, "Universal Language Model Fine-tuning" (arXiv 1801.06146, section 3.2); the project document
"Mamba Speaker Verification" names the method without its rates.
"""

from torch import nn

from modules.speaker.self_supervised import SelfSupervised
from modules.ssm import parameter_groups


def layerwise_groups(modules, lr, lr_front_end=None, decay=1.0, weight_decay=0.0):
    """Optimiser groups: layer k of N of a :class:`SelfSupervised` learns at ``lr_front_end * decay ** (N - k)``.

    Projection, positions and convolutions count as layer 0, a final normalisation as layer N. Everything else
    learns at ``lr``. Each rate has two groups: weight decay spares what :func:`modules.ssm.parameter_groups` spares.

    Arguments
    ---------
    modules : torch.nn.Module or iterable of torch.nn.Module
        Networks to train, a speaker encoder and its classifier for example.
    lr : float
        Rate of everything that is no pretrained network.
    lr_front_end : float, optional
        Rate of a pretrained network's highest layer; ``lr`` by default.
    decay : float
        Factor from a layer to the one below it.
    weight_decay : float
        Decay of matrices.

    Returns
    -------
    list of dict
        Groups with ``params``, ``lr``, ``weight_decay``, and ``lr_scale``, the rate as a part of ``lr``, by which
        :class:`training.schedules.WarmupCosine` multiplies. The first group learns at ``lr``. None is empty.

    Raises
    ------
    ValueError
        If a rate is not positive, or ``decay`` is not within 0 (excluded) and 1.

    Example
    -------
    >>> from modules.speaker.encoder import BiMambaEncoder, SpeakerEncoder
    >>> config = {"model_type": "wavlm", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    ...     "intermediate_size": 32, "conv_dim": [8] * 7, "num_conv_pos_embedding_groups": 2}
    >>> front_end = SelfSupervised(config, trainable_layers=2)
    >>> model = SpeakerEncoder(front_end, BiMambaEncoder(16, 1), embedding_size=8)
    >>> [group["lr"] for group in layerwise_groups(model, lr=0.5, lr_front_end=0.25, decay=0.5)[::2]]
    [0.5, 0.25, 0.125]
    """
    lr_front_end = lr if lr_front_end is None else lr_front_end
    if lr <= 0 or lr_front_end <= 0:
        raise ValueError(f"lr and lr_front_end must be positive; got {lr} and {lr_front_end}")
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be more than 0 and at most 1; got {decay}")
    modules = [modules] if isinstance(modules, nn.Module) else list(modules)
    levels = {}  # levels below the highest layer: their modules
    for module in modules:
        for front_end in module.modules():
            if isinstance(front_end, SelfSupervised):
                for level, part in _levels(front_end):
                    levels.setdefault(level, []).append(part)
    pretrained = [
        parameter for parts in levels.values() for part in parts for parameter in part.parameters()
    ]
    rates = [(lr, parameter_groups(modules, weight_decay, leave_out=pretrained))]
    for level in sorted(levels):
        rates.append((lr_front_end * decay**level, parameter_groups(levels[level], weight_decay)))
    return [
        {**group, "lr": rate, "lr_scale": rate / lr}
        for rate, groups in rates
        for group in groups
        if group["params"]
    ]


def _levels(front_end):
    """Parts of a pretrained network, each with the number of layers between it and the highest."""
    network, encoder = front_end.network, front_end.network.encoder
    yield from enumerate(reversed(encoder.layers))
    if front_end.has_final_norm:
        yield 0, encoder.layer_norm
    elif encoder.layer_norm is not None:
        yield front_end.depth, encoder.layer_norm
    for part in (network.feature_extractor, network.feature_projection, encoder.pos_conv_embed):
        yield front_end.depth, part

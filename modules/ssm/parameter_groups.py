"""Which parameters weight decay may touch, for any optimiser with parameter groups."""

import torch

# state-space parameters that decay would pull towards another system: A towards -1, D towards 0
_SPARED_NAMES = ("A_log", "A_b_log", "D", "D_b")


def parameter_groups(modules, weight_decay, leave_out=()):
    """Two optimiser groups: parameters that decay, and those that must not.

    Spared are the state matrices (``A_log``, ``A_b_log``), skip connections (``D``, ``D_b``), every bias (the
    step's among them), every other vector or scalar (norms, activations), embeddings' padding excepted,
    and whatever carries ``_no_weight_decay``. Frozen parameters are left out.

    Arguments
    ---------
    modules : torch.nn.Module or iterable of torch.nn.Module
    weight_decay : float
        Decay of the first group.
    leave_out : iterable of torch.nn.Parameter
        Parameters that other groups hold.

    Returns
    -------
    list of dict
        ``[{"params": [...], "weight_decay": weight_decay}, {"params": [...], "weight_decay": 0.0}]``; a
        parameter that is shared stands there once.

    Example
    -------
    >>> from modules.ssm import Mamba, parameter_groups
    >>> decayed, spared = parameter_groups(Mamba(d_model=8), weight_decay=0.01)
    >>> len(decayed["params"]), len(spared["params"])
    (5, 4)
    """
    if isinstance(modules, torch.nn.Module):
        modules = [modules]
    decayed, spared, seen = [], [], {id(parameter) for parameter in leave_out}
    for module in modules:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            leaf = name.rsplit(".", 1)[-1]
            spare = (
                parameter.dim() < 2
                or leaf in _SPARED_NAMES
                or "bias" in leaf
                or getattr(parameter, "_no_weight_decay", False)
            )
            (spared if spare else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]

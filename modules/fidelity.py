"""The two behaviours of every recipe: ``corrected``, the default, and ``upstream``, the published system as it is.

Upstream never masks padding and draws every matrix anew by Xavier's rule, the state-space parameters
included, so that A collapses from -1 ... -16 to about -1. Corrected masks, and leaves those parameters
at the values that Mamba gives them.
"""

import torch

from modules.ssm import Mamba

FIDELITIES = ("corrected", "upstream")
# of a Mamba block: what a matrix rule must not touch
_STATE_SPACE = ("A_log", "A_b_log", "D", "D_b", "conv1d", "conv1d_b", "dt_proj", "dt_proj_b")


def check_fidelity(fidelity):
    """Return ``fidelity``, or raise ``ValueError`` if it is neither ``corrected`` nor ``upstream``."""
    if fidelity not in FIDELITIES:
        raise ValueError(f"fidelity must be one of {', '.join(FIDELITIES)}; got {fidelity!r}")
    return fidelity


def initialise_transformer_(module, fidelity):
    """Draw the matrices of ``module`` by ``xavier_normal_``, as SpeechBrain's TransformerASR does.

    With ``corrected``, the convolution, step, A and D of every Mamba block keep their own initialisation.
    """
    check_fidelity(fidelity)
    spared = set()
    if fidelity == "corrected":
        for block in module.modules():
            if isinstance(block, Mamba):
                spared |= {
                    id(p)
                    for name, p in block.named_parameters()
                    if name.split(".")[0] in _STATE_SPACE
                }
    for parameter in module.parameters():
        if parameter.dim() > 1 and id(parameter) not in spared:
            torch.nn.init.xavier_normal_(parameter)

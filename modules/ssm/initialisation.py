"""How the parameters of a Mamba block begin: S4D states, steps in a range, scaled output projections.

Each rule is a function on tensors, so that a model's own initialisation can call it again, or be tested
against it. Sources: S4D-Lin's real variant (Gu et al., "On the Parameterization and Initialization of
Diagonal State Space Models", arXiv 2206.11893, section 3) and the published code of "Mamba"
(arXiv 2312.00752, section 3.6).
"""

import math

import torch

from modules.ssm.checks import check_positive


@torch.no_grad()
def init_state_matrix_(A_log):
    """Fill ``A_log`` (channels, states) so that ``A = -exp(A_log)`` is -1, -2, ..., -states in every row."""
    states = torch.arange(1, A_log.shape[1] + 1, dtype=torch.float32, device=A_log.device)
    return A_log.copy_(torch.log(states).expand_as(A_log))


@torch.no_grad()
def init_step_(
    dt_proj, dt_rank, dt_min=0.001, dt_max=0.1, dt_init="random", dt_scale=1.0, dt_init_floor=1e-4
):
    """Initialise the step's projection, a ``Linear(dt_rank, channels)`` with bias.

    The bias is set so that ``softplus(bias)`` is log-uniform in ``dt_min..dt_max`` (in frames) and not
    under ``dt_init_floor``; the weight is uniform within, or constant at, ``dt_scale / sqrt(dt_rank)``.

    Raises
    ------
    ValueError
        If ``dt_init`` is neither ``random`` nor ``constant``, or a number is not above 0.
    """
    for name, value in (
        ("dt_min", dt_min),
        ("dt_max", dt_max),
        ("dt_scale", dt_scale),
        ("dt_init_floor", dt_init_floor),
    ):
        check_positive(name, value)
    if dt_min > dt_max:
        raise ValueError(f"dt_min must be at most dt_max; got {dt_min} and {dt_max}")
    deviation = dt_rank**-0.5 * dt_scale
    if dt_init == "constant":
        dt_proj.weight.fill_(deviation)
    elif dt_init == "random":
        dt_proj.weight.uniform_(-deviation, deviation)
    else:
        raise ValueError(f"dt_init must be 'random' or 'constant'; got {dt_init!r}")
    low, high = math.log(dt_min), math.log(dt_max)
    dt = torch.exp(torch.rand_like(dt_proj.bias) * (high - low) + low).clamp(min=dt_init_floor)
    # the inverse of softplus
    dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))


@torch.no_grad()
def scale_output_projections(module, n_layers, residuals_per_layer=1):
    """Draw every ``out_proj.weight`` in ``module`` anew and divide it by ``sqrt(residuals_per_layer * n_layers)``.

    The rule of GPT-2 for stacks with a residual stream, as the published Mamba language model and
    separation stacks use it.

    Example
    -------
    >>> from modules.ssm import Mamba, scale_output_projections
    >>> block = Mamba(d_model=8)
    >>> scale_output_projections(block, n_layers=4)
    """
    for name, parameter in module.named_parameters():
        if name.endswith("out_proj.weight"):
            torch.nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
            parameter /= math.sqrt(residuals_per_layer * n_layers)

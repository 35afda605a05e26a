"""A pre-norm stack of Mamba blocks: the sequence model of the separation networks.

The published ``MambaBlocksSequential``: every block normalises the sum of all that came before it, and a last
normalisation follows the last block. Parameter names are the published ones.
"""

from torch import nn

from modules.ssm.blocks import BiMamba, Mamba
from modules.ssm.checks import check_count, check_input
from modules.ssm.initialisation import scale_output_projections
from modules.ssm.masking import keep_valid, valid_frames
from modules.ssm.norm import RMSNorm
from modules.ssm.precision import at_least_float32


class MambaStack(nn.Module):
    """Pre-norm residual stack: ``r = r + m; m = mixer(norm(r))`` for every block, then ``norm_f(r + m)``.

    No residual goes around the stack as a whole.

    Arguments
    ---------
    n_mamba : int
        Blocks.
    d_model : int
        Channels in and out.
    bidirectional : bool
        Blocks of :class:`BiMamba`, or of :class:`Mamba`.
    rms_norm : bool
        RMSNorm, or LayerNorm.
    norm_epsilon : float
    residual_in_fp32 : bool
        Keep the residual sum in float32 under mixed precision.
    **mamba_options
        Passed to the blocks (``d_state``, ``expand``, ``d_conv``, ``dt_bc_norm``, ...).

    Example
    -------
    >>> import torch
    >>> from modules.ssm import MambaStack
    >>> MambaStack(n_mamba=2, d_model=16)(torch.randn(2, 9, 16), lengths=torch.tensor([9, 4])).shape
    torch.Size([2, 9, 16])
    """

    def __init__(
        self,
        n_mamba,
        d_model,
        bidirectional=True,
        rms_norm=True,
        norm_epsilon=1e-5,
        residual_in_fp32=False,
        **mamba_options,
    ):
        super().__init__()
        check_count("n_mamba", n_mamba)
        block = BiMamba if bidirectional else Mamba
        norm = RMSNorm if rms_norm else nn.LayerNorm
        self.residual_in_fp32 = residual_in_fp32
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {"mixer": block(d_model, **mamba_options), "norm": norm(d_model, eps=norm_epsilon)}
            )
            for _ in range(n_mamba)
        )
        self.norm_f = norm(d_model, eps=norm_epsilon)
        scale_output_projections(self, n_mamba)

    def forward(self, x, lengths=None, states=None, return_states=False):
        """Run the stack.

        Arguments
        ---------
        x : torch.Tensor
            (batch, time, d_model).
        lengths : torch.Tensor, optional
            (batch,) integer frame counts; frames past them give 0.
        states : list of MambaState, optional
            One a block, from the previous chunk.
        return_states : bool
            Also return the states after this chunk.

        Returns
        -------
        torch.Tensor or (torch.Tensor, list of MambaState)
            (batch, time, d_model).

        Raises
        ------
        ValueError
            If an argument has another type, shape or device.
        """
        self._check(x, states)
        residual = at_least_float32(x) if self.residual_in_fp32 else x
        new_states = []
        for index, layer in enumerate(self.layers):
            mixed, state = layer["mixer"](
                self._normalise(layer["norm"], residual),
                lengths,
                state=None if states is None else states[index],
                return_state=True,
            )
            residual = residual + mixed
            new_states.append(state)
        out = keep_valid(
            self._normalise(self.norm_f, residual), valid_frames(lengths, x.shape[1], x.device)
        )
        return (out, new_states) if return_states else out

    def _check(self, x, states):
        """Raise ``ValueError`` unless ``x`` and ``states`` are what the blocks take."""
        check_input("x", x, ("batch", "time", "d_model"))
        device, (channels,) = self.norm_f.weight.device, self.norm_f.weight.shape
        if x.shape[2] != channels:
            raise ValueError(
                f"x must have {channels} channels, as the stack has; got {tuple(x.shape)}"
            )
        if x.device != device:
            raise ValueError(
                f"x is on {x.device}, and the stack on {device}: move them to one device"
            )
        given = len(states) if isinstance(states, (tuple, list)) else None
        if states is not None and given != len(self.layers):
            raise ValueError(
                f"states must be a list of {len(self.layers)}, one a block; "
                f"got {type(states).__name__ if given is None else given}"
            )

    def _normalise(self, norm, residual):
        """``norm`` in the dtype of its own weights, where the residual is kept in a wider one."""
        return norm(residual.to(norm.weight.dtype) if self.residual_in_fp32 else residual)

"""The mask net of Mamba-TasNet: one stack of Mamba blocks over the encoded frames.

Conv-TasNet's separator with its convolutions replaced by a pre-norm stack (Jiang, Li and Mesgarani, "Speech
Slytherin", arXiv 2407.09732, section 2). With one direction only it is causal and can carry its state.
"""

import torch
from speechbrain.lobes.models.conv_tasnet import ChannelwiseLayerNorm
from speechbrain.nnet.CNN import Conv1d
from torch import nn

from modules.fidelity import check_fidelity
from modules.ssm import MambaStack
from modules.ssm.checks import check_lengths
from modules.ssm.masking import keep_valid, valid_frames
from modules.ssm.precision import at_least_float32

# the softmax is over the channels of one speaker's mask, as published
MASKS = {"relu": torch.relu, "softmax": lambda scores: torch.softmax(scores, dim=2)}


class WideChannelwiseLayerNorm(ChannelwiseLayerNorm):
    """SpeechBrain's normalisation of every frame over its channels, computed in float32 at least.

    Its epsilon of 1e-8 is 0 in float16, where a frame of digital silence would be 0 / 0.

    Arguments
    ---------
    channel_size : int
        Channels.

    Example
    -------
    >>> import torch
    >>> WideChannelwiseLayerNorm(4)(torch.zeros(1, 2, 4, dtype=torch.float16)).any()
    tensor(False)
    """

    def forward(self, y):
        """Normalise ``y`` (batch, time, channels); the result has its dtype."""
        return super().forward(at_least_float32(y)).to(y.dtype)


class MaskNet(nn.Module):
    """Normalise every frame, narrow to the bottleneck, run the stack, widen to one mask a speaker.

    Arguments
    ---------
    enc_dim : int
        Channels of the encoder.
    bot_dim : int
        Channels of the stack.
    n_spk : int
        Speakers.
    n_mamba : int
        Blocks of the stack.
    mask_nonlinear : str
        ``relu``, or ``softmax`` over the channels.
    bidirectional : bool
        Blocks that see the future; ``False`` gives the causal variant.
    d_state, expand, d_conv : int
        Of every Mamba block.
    rms_norm : bool
        RMSNorm in the stack, or LayerNorm.
    residual_in_fp32 : bool
        Keep the sum of the residuals in float32 under mixed precision.
    dt_bc_norm : bool
        Normalise step, B and C in every block (see :class:`modules.ssm.Mamba`).
    fused_add_norm : bool
        The published option for a fused kernel; accepted, the maths is the same.
    fidelity : str
        ``corrected`` heeds ``lengths``, ``upstream`` ignores them as the published code does.

    Raises
    ------
    ValueError
        If a size is under 1, or ``mask_nonlinear`` or ``fidelity`` is unknown.

    Example
    -------
    >>> import torch
    >>> from modules.separation.mask_net import MaskNet
    >>> net = MaskNet(enc_dim=8, bot_dim=4, n_spk=3, n_mamba=1)
    >>> net(torch.rand(2, 8, 10), lengths=torch.tensor([10, 7])).shape
    torch.Size([3, 2, 8, 10])
    """

    def __init__(
        self,
        enc_dim,
        bot_dim,
        n_spk,
        n_mamba,
        mask_nonlinear="relu",
        bidirectional=True,
        d_state=16,
        expand=2,
        d_conv=4,
        rms_norm=True,
        residual_in_fp32=False,
        dt_bc_norm=False,
        fused_add_norm=False,
        fidelity="corrected",
    ):
        super().__init__()
        check_sizes(enc_dim=enc_dim, bot_dim=bot_dim, n_spk=n_spk, n_mamba=n_mamba)
        if mask_nonlinear not in MASKS:
            raise ValueError(
                f"mask_nonlinear must be one of {', '.join(MASKS)}; got {mask_nonlinear!r}"
            )
        self.fidelity = check_fidelity(fidelity)
        self.num_spks = n_spk
        self.mask_nonlinear = mask_nonlinear
        self.bidirectional = bidirectional
        self.layer_norm = WideChannelwiseLayerNorm(enc_dim)
        self.bottleneck_conv1x1 = Conv1d(
            in_channels=enc_dim, out_channels=bot_dim, kernel_size=1, bias=False
        )
        self.mamba_net = MambaStack(
            n_mamba,
            bot_dim,
            bidirectional=bidirectional,
            rms_norm=rms_norm,
            residual_in_fp32=residual_in_fp32,
            d_state=d_state,
            expand=expand,
            d_conv=d_conv,
            dt_bc_norm=dt_bc_norm,
        )
        self.mask_conv1x1 = Conv1d(
            in_channels=bot_dim, out_channels=n_spk * enc_dim, kernel_size=1, bias=False
        )

    def forward(self, mix_w, lengths=None, states=None, return_states=False):
        """Masks of a batch of encoded mixtures, or of the next frames of each.

        Arguments
        ---------
        mix_w : torch.Tensor
            (batch, channels, frames).
        lengths : torch.Tensor, optional
            (batch,) integer frame counts; past them the masks are 0.
        states : list of modules.ssm.MambaState, optional
            What the previous frames returned, one a block.
        return_states : bool
            Also return the states after these frames.

        Returns
        -------
        torch.Tensor or (torch.Tensor, list of modules.ssm.MambaState)
            (speakers, batch, channels, frames).
        """
        if self.fidelity == "upstream":
            lengths = None
        batch, _, time = mix_w.shape
        check_lengths(lengths, batch, time)
        valid = valid_frames(lengths, time, mix_w.device)
        x = keep_valid(mix_w.transpose(1, 2), valid)
        x = self.bottleneck_conv1x1(self.layer_norm(x))
        x, states = self.mamba_net(x, lengths, states=states, return_states=True)
        scores = self.mask_conv1x1(x).unflatten(2, (self.num_spks, -1))
        scores = scores.permute(2, 0, 3, 1)  # (speakers, batch, channels, frames)
        masks = MASKS[self.mask_nonlinear](scores)
        masks = keep_valid(masks.permute(1, 3, 0, 2), valid).permute(2, 0, 3, 1)
        return (masks, states) if return_states else masks


def check_sizes(**sizes):
    """Raise ``ValueError`` naming the first of ``sizes`` that is not a positive integer."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} must be an integer of 1 or more; got {size!r}")

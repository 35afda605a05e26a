"""Dual-path mask nets: over 50 % overlapping chunks, one model looks within a chunk and one across chunks.

SpeechBrain's dual-path model with Mamba stacks (Jiang, Han and Mesgarani, "Dual-path Mamba", arXiv 2403.18257,
section 2.3) or transformers (Subakan et al., "Attention is all you need in speech separation", arXiv
2010.13154, section 2) as the two models. SpeechBrain's computes on padding; here, given lengths, every
mixture of a batch has the chunks that it has alone, and what lies past them counts for nothing.
"""

import copy
from functools import partial

import torch
from speechbrain.lobes.models.dual_path import (
    Dual_Computation_Block,
    Dual_Path_Model,
    SBTransformerBlock,
)

from modules.fidelity import check_fidelity
from modules.separation.mask_net import check_sizes
from modules.ssm import MambaStack
from modules.ssm.checks import check_lengths
from modules.ssm.masking import keep_valid, valid_frames
from modules.ssm.precision import at_least_float32


def chunk_counts(lengths, chunk_size):
    """Chunks that ``lengths`` frames (an integer or an integer tensor) are cut into, by the published rule.

    The frames are padded by half a chunk on the left and up to the next multiple of the chunk on the right, by
    a whole chunk where they end on one; every chunk begins half a chunk after the one before it.

    Example
    -------
    >>> chunk_counts(24, 10), chunk_counts(25, 10)
    (6, 8)
    """
    return 2 * ((lengths + chunk_size // 2) // chunk_size + 1)


class MaskedDualBlock(Dual_Computation_Block):
    """SpeechBrain's dual block that can leave out the chunks past the end of each mixture.

    Arguments
    ---------
    intra_mdl, inter_mdl : torch.nn.Module
        Called with (sequences, time, channels); the second also with the counts of valid steps (sequences,).
    out_channels : int
        Channels of both.
    skip_around_intra : bool
        Add the input to what the model within chunks gives.
    """

    def __init__(self, intra_mdl, inter_mdl, out_channels, skip_around_intra):
        super().__init__(
            intra_mdl,
            inter_mdl,
            out_channels,
            skip_around_intra=skip_around_intra,
            linear_layer_after_inter_intra=False,
        )

    def forward(self, x, chunks=None):
        """Run the block.

        Arguments
        ---------
        x : torch.Tensor
            (batch, channels, chunk size, chunks).
        chunks : torch.Tensor, optional
            (batch,) integer counts of valid chunks; ``None``: all are, and SpeechBrain's computation runs.

        Returns
        -------
        torch.Tensor
            As ``x``; 0 in chunks that are not valid.
        """
        if chunks is None:
            return super().forward(x)
        batch, channels, size, count = x.shape
        valid = valid_frames(chunks, count, x.device)
        # each chunk is a sequence of its own: those that are not valid are not computed at all
        sequences = x.permute(0, 3, 2, 1)[valid]  # (valid chunks, chunk size, channels)
        intra = x.new_zeros(batch, count, size, channels)
        intra = intra.masked_scatter(valid[:, :, None, None], self.intra_mdl(sequences).to(x.dtype))
        intra = masked_group_norm(self.intra_norm, intra.permute(0, 3, 1, 2), valid)
        intra = intra.transpose(2, 3)  # (batch, channels, chunk size, chunks)
        if self.skip_around_intra:
            intra = intra + x
        inter = intra.permute(0, 2, 3, 1).reshape(batch * size, count, channels)
        inter = self.inter_mdl(inter, chunks.to(x.device).repeat_interleave(size))
        inter = inter.view(batch, size, count, channels).permute(0, 3, 2, 1)
        return masked_group_norm(self.inter_norm, inter, valid).transpose(2, 3) + intra


class MaskedDualPath(Dual_Path_Model):
    """SpeechBrain's dual-path mask net, given two models, a chunk size and the counts of frames.

    Arguments
    ---------
    make_intra, make_inter : callable
        Build the models within and across chunks; called once a block, so that every block is drawn by itself.
    num_spks : int
        Speakers.
    in_channels : int
        Channels of the encoder.
    out_channels : int
        Channels of the two models.
    num_layers : int
        Dual blocks.
    K : int
        Frames of a chunk.
    skip_around_intra : bool
        Add the input to what the model within chunks gives.
    skip_n_block : int
        Before every block whose number is a multiple of this (the first excepted), average with the segmented
        input; 0: never.
    fidelity : str
        ``corrected`` heeds ``lengths``, ``upstream`` ignores them as the published code does, and begins
        with equal weights in all blocks.

    Raises
    ------
    ValueError
        If a size or ``fidelity`` is outside its range.
    """

    def __init__(
        self,
        make_intra,
        make_inter,
        num_spks,
        in_channels,
        out_channels,
        num_layers,
        K,
        skip_around_intra,
        skip_n_block=0,
        fidelity="corrected",
    ):
        check_sizes(
            num_spks=num_spks,
            in_channels=in_channels,
            out_channels=out_channels,
            num_layers=num_layers,
        )
        if not isinstance(K, int) or K < 2:
            raise ValueError(f"K (chunk_size) must be an integer of 2 or more frames; got {K!r}")
        if not isinstance(skip_n_block, int) or skip_n_block < 0:
            raise ValueError(f"skip_n_block must be an integer of 0 or more; got {skip_n_block!r}")
        super().__init__(
            in_channels, out_channels, None, None, num_layers=0, K=K, num_spks=num_spks
        )
        self.fidelity = check_fidelity(fidelity)
        self.num_layers = num_layers
        self.skip_n_block = skip_n_block
        for _ in range(num_layers):
            if self.dual_mdl and fidelity == "upstream":
                block = copy.deepcopy(self.dual_mdl[0])
            else:
                block = MaskedDualBlock(make_intra(), make_inter(), out_channels, skip_around_intra)
            self.dual_mdl.append(block)

    def forward(self, mix_w, lengths=None):
        """Masks of a batch of encoded mixtures.

        Arguments
        ---------
        mix_w : torch.Tensor
            (batch, channels, frames).
        lengths : torch.Tensor, optional
            (batch,) integer frame counts; past them the masks are 0.

        Returns
        -------
        torch.Tensor
            (speakers, batch, channels, frames).
        """
        if self.fidelity == "upstream":
            lengths = None
        batch, channels, time = mix_w.shape
        check_lengths(lengths, batch, time)
        valid = valid_frames(lengths, time, mix_w.device)
        if lengths is None:
            chunks = None
            x = self.conv1d(self.norm(mix_w))
        else:
            chunks = chunk_counts(lengths, self.K)
            # the convolution has no bias: the frames past the end stay 0, as the chunks' own padding is
            x = self.conv1d(masked_group_norm(self.norm, mix_w, valid))
        segmented, gap = self._Segmentation(x, self.K)
        x = segmented
        for index, block in enumerate(self.dual_mdl):
            if self.skip_n_block and index and index % self.skip_n_block == 0:
                x = 0.5 * x + 0.5 * segmented
            x = block(x, chunks)
        x = self.conv2d(self.prelu(x))
        x = self._over_add(x.view(batch * self.num_spks, -1, *x.shape[2:]), gap)
        x = self.end_conv1x1(self.output(x) * self.output_gate(x))
        x = self.activation(x).view(batch, self.num_spks, channels, time)
        return keep_valid(x.permute(0, 3, 1, 2), valid).permute(2, 0, 3, 1)


class DPMambaMaskNet(MaskedDualPath):
    """Dual-path Mamba: a stack of Mamba blocks within chunks, another across them.

    Arguments
    ---------
    num_spks, in_channels, out_channels, num_layers, K, skip_around_intra, skip_n_block, fidelity
        See :class:`MaskedDualPath`.
    n_mamba : int
        Blocks of each of the two stacks, half of the published ``n_mamba_dp``.
    bidirectional, d_state, expand, d_conv, rms_norm, residual_in_fp32, dt_bc_norm, fused_add_norm
        Of the stacks, see :class:`modules.separation.mask_net.MaskNet`. With one direction only the stacks are causal,
        the net is not: its normalisations look at whole utterances.

    Raises
    ------
    ValueError
        If a size or ``fidelity`` is outside its range.

    Example
    -------
    >>> import torch
    >>> from modules.separation.dual_path import DPMambaMaskNet
    >>> net = DPMambaMaskNet(2, 8, 8, num_layers=1, K=10, n_mamba=1, skip_around_intra=True)
    >>> net(torch.rand(2, 8, 33), lengths=torch.tensor([33, 25])).shape
    torch.Size([2, 2, 8, 33])
    """

    def __init__(
        self,
        num_spks,
        in_channels,
        out_channels,
        num_layers,
        K,
        n_mamba,
        skip_around_intra,
        skip_n_block=0,
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
        check_sizes(n_mamba=n_mamba)
        make_stack = partial(
            MambaStack,
            n_mamba,
            out_channels,
            bidirectional=bidirectional,
            rms_norm=rms_norm,
            residual_in_fp32=residual_in_fp32,
            d_state=d_state,
            expand=expand,
            d_conv=d_conv,
            dt_bc_norm=dt_bc_norm,
        )
        super().__init__(
            make_stack,
            make_stack,
            num_spks,
            in_channels,
            out_channels,
            num_layers,
            K,
            skip_around_intra,
            skip_n_block,
            fidelity,
        )


class MaskedTransformer(SBTransformerBlock):
    """SpeechBrain's transformer block with positions, which can leave out the steps past each sequence's end."""

    def forward(self, x, lengths=None):
        """Run ``x`` (sequences, time, channels); its first ``lengths`` (sequences,) steps are valid."""
        time, positions = x.shape[1], self.pos_enc.pe.shape[1]
        if time > positions:
            raise ValueError(
                f"the transformer has positions for {positions} steps and got {time}: separate shorter stretches, "
                "or choose chunk_size nearer to the square root of twice the frames"
            )
        padding = None if lengths is None else ~valid_frames(lengths, time, x.device)
        return self.mdl(x + self.pos_enc(x), src_key_padding_mask=padding)[0]


class SepFormerMaskNet(MaskedDualPath):
    """SepFormer's mask net: a transformer within chunks, another across them.

    Arguments
    ---------
    num_spks, in_channels, out_channels, num_layers, K, skip_around_intra, fidelity
        See :class:`MaskedDualPath`.
    intra_layers, inter_layers : int
        Layers of the transformer within chunks and of the one across them.
    nhead : int
        Attention heads; ``out_channels`` is a multiple of it.
    d_ffn : int
        Inner channels of the feed-forward nets.
    dropout : float

    Raises
    ------
    ValueError
        If a size or ``fidelity`` is outside its range.

    Example
    -------
    >>> import torch
    >>> from modules.separation.dual_path import SepFormerMaskNet
    >>> net = SepFormerMaskNet(2, 8, 8, 1, K=10, intra_layers=1, inter_layers=1, nhead=2, d_ffn=16)
    >>> net(torch.rand(2, 8, 33), lengths=torch.tensor([33, 25])).shape
    torch.Size([2, 2, 8, 33])
    """

    def __init__(
        self,
        num_spks,
        in_channels,
        out_channels,
        num_layers,
        K,
        intra_layers,
        inter_layers,
        nhead,
        d_ffn,
        dropout=0,
        skip_around_intra=True,
        fidelity="corrected",
    ):
        check_sizes(intra_layers=intra_layers, inter_layers=inter_layers, nhead=nhead, d_ffn=d_ffn)
        if out_channels % nhead:
            raise ValueError(
                f"out_channels must be a multiple of nhead; got {out_channels} and {nhead}"
            )
        make_transformer = partial(
            MaskedTransformer,
            d_model=out_channels,
            nhead=nhead,
            d_ffn=d_ffn,
            dropout=dropout,
            use_positional_encoding=True,
            norm_before=True,
        )
        super().__init__(
            partial(make_transformer, intra_layers),
            partial(make_transformer, inter_layers),
            num_spks,
            in_channels,
            out_channels,
            num_layers,
            K,
            skip_around_intra,
            fidelity=fidelity,
        )


def masked_group_norm(norm, x, valid):
    """``norm``, a GroupNorm of one group, with its statistics over the valid steps of each item only.

    Arguments
    ---------
    norm : torch.nn.GroupNorm
    x : torch.Tensor
        (batch, channels, steps, ...).
    valid : torch.Tensor
        (batch, steps), boolean.

    Returns
    -------
    torch.Tensor
        As ``x``, 0 at the steps that are not valid; in float32 at least, as PyTorch's own is under autocast.
    """
    trailing = [1] * (x.dim() - 3)
    valid = valid.view(valid.shape[0], 1, -1, *trailing)
    x = at_least_float32(x).masked_fill(~valid, 0.0)
    each = tuple(range(1, x.dim()))
    count = valid.sum(each, keepdim=True).clamp(min=1) * (x[0].numel() // x.shape[2])
    centred = (x - x.sum(each, keepdim=True) / count).masked_fill(~valid, 0.0)
    variance = centred.square().sum(each, keepdim=True) / count
    affine = [1, -1, 1, *trailing]
    x = centred * torch.rsqrt(variance + norm.eps) * norm.weight.view(affine)
    return (x + norm.bias.view(affine)).masked_fill(~valid, 0.0)

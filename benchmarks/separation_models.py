"""The networks that ``separation.py`` measures, in sizes that differ by less than a tenth in parameters.

Mamba-TasNet and dual-path Mamba have the published XS sizes (Mamba-TasNet, hparams/WSJ0Mix/mambatasnet_XS.yaml and
dpmamba_XS.yaml). SepFormer is SpeechBrain's own code with the published one's proportions (arXiv 2010.13154): two
dual-path blocks, 8 heads, a feed-forward net of four times the channels, chunks of 250 frames.
"""

import torch
from speechbrain.lobes.models.dual_path import Decoder, Encoder, SepformerWrapper
from speechbrain.lobes.models.transformer.Transformer import TransformerEncoderLayer
from speechbrain.nnet.attention import MultiheadAttention
from torch import nn

from modules.separation.dual_path import DPMambaMaskNet
from modules.separation.mask_net import MaskNet
from modules.separation.separator import SeparationNetwork

TASNET, DUAL_PATH = "Mamba-TasNet", "DPMamba"
SEPFORMER, FUSED = "SepFormer", "SepFormer, fused attention"
CAUSAL = "Mamba-TasNet, causal"
NAMES = (TASNET, DUAL_PATH, SEPFORMER, FUSED)
RATE, SPEAKERS, KERNEL, CHUNK = 8000, 2, 16, 250
SIZES = {
    "XS": {
        "channels": 128,
        "blocks": 16,
        "causal_blocks": 20,
        "dual_blocks": 8,
        "transformer": {"intra": 3, "inter": 2, "heads": 8, "feed_forward": 512},
    },
    "mini": {
        "channels": 64,
        "blocks": 8,
        "causal_blocks": 10,
        "dual_blocks": 4,
        "transformer": {"intra": 2, "inter": 1, "heads": 8, "feed_forward": 256},
    },
}


class FusedAttention(nn.Module):
    """SpeechBrain's attention without the weights that its layer asks for and no one reads.

    With them torch computes the whole matrix of weights, keeps it, and cannot use its fused attention.

    Arguments
    ---------
    attention : speechbrain.nnet.attention.MultiheadAttention
    """

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, *inputs, **options):
        """As the attention's, with ``None`` in place of the weights."""
        return self.attention(*inputs, **options, return_attn_weights=False), None


def build(name, size):
    """A network in evaluation mode with random weights, the same ones in every call.

    Arguments
    ---------
    name : str
        Of :data:`NAMES`, or ``CAUSAL``.
    size : str
        A key of :data:`SIZES`.

    Returns
    -------
    torch.nn.Module
        From mixtures (batch, time) to sources (batch, time, speakers).

    Example
    -------
    >>> build(TASNET, "mini")(mixture(0.1)).shape
    torch.Size([1, 800, 2])
    """
    torch.manual_seed(0)
    sizes = SIZES[size]
    channels = sizes["channels"]
    if name in (SEPFORMER, FUSED):
        return _sepformer(channels, **sizes["transformer"], fused=name == FUSED)
    if name == DUAL_PATH:
        masknet = DPMambaMaskNet(
            SPEAKERS,
            channels,
            channels,
            num_layers=sizes["dual_blocks"],
            K=CHUNK,
            n_mamba=1,
            skip_around_intra=False,
        )
    else:
        both_ways = name == TASNET
        blocks = sizes["blocks" if both_ways else "causal_blocks"]
        masknet = MaskNet(channels, channels, SPEAKERS, blocks, bidirectional=both_ways)
    decoder = Decoder(channels, 1, kernel_size=KERNEL, stride=KERNEL // 2, bias=False)
    return SeparationNetwork(Encoder(KERNEL, channels), masknet, decoder).eval()


def _sepformer(channels, intra, inter, heads, feed_forward, fused):
    """SpeechBrain's SepFormer without dropout, as the published recipe trains it."""
    model = SepformerWrapper(
        encoder_kernel_size=KERNEL,
        encoder_out_nchannels=channels,
        masknet_chunksize=CHUNK,
        masknet_numspks=SPEAKERS,
        intra_numlayers=intra,
        inter_numlayers=inter,
        intra_nhead=heads,
        inter_nhead=heads,
        intra_dffn=feed_forward,
        inter_dffn=feed_forward,
    )
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, MultiheadAttention):
            module.att.dropout = 0.0
    if fused:
        for module in model.modules():
            if isinstance(module, TransformerEncoderLayer):
                module.self_att = FusedAttention(module.self_att)
    return model.eval()


def parameters(name, size):
    """Trainable parameters of a network."""
    return sum(p.numel() for p in build(name, size).parameters())


def mixture(seconds):
    """Noise in place of a mixture: (1, time)."""
    return 0.1 * torch.randn(1, round(seconds * RATE))

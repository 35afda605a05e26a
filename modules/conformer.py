"""SpeechBrain's Conformer encoder under the interface of ConMamba's: the baseline of every recogniser.

Frame counts keep padding out of the convolution modules, where SpeechBrain masks their output only.
"""

import torch
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder as _ConformerEncoder
from speechbrain.nnet.activations import Swish
from speechbrain.nnet.attention import MultiheadAttention, RelPosMHAXL
from torch.nn import functional as F

from modules.convolution import MaskedConvolutionModule
from modules.encoder import LayerLoop
from modules.fidelity import check_fidelity
from modules.ssm.masking import valid_frames


class RelativeAttention(RelPosMHAXL):
    """SpeechBrain's attention with relative positions, which can run in float64: its softmax is always float32's.

    It takes the arguments of :class:`speechbrain.nnet.attention.RelPosMHAXL`. Below float64 it is SpeechBrain's own.

    Example
    -------
    >>> import torch
    >>> from speechbrain.nnet.attention import RelPosEncXL
    >>> attention, positions = RelativeAttention(16, num_heads=2), RelPosEncXL(16)
    >>> x = torch.randn(1, 5, 16)
    >>> wanted = attention(x, x, x, positions(x))[0]
    >>> attention, x = attention.double(), x.double()
    >>> torch.allclose(attention(x, x, x, positions(x).double())[0].float(), wanted, atol=1e-6)
    True
    """

    def forward(
        self, query, key, value, pos_embs, key_padding_mask=None, attn_mask=None, **options
    ):
        """As SpeechBrain's; in float64 it attends to itself only, masks are boolean, and weights are not given."""
        if query.dtype != torch.float64:
            return super().forward(
                query, key, value, pos_embs, key_padding_mask, attn_mask, **options
            )
        projected = F.linear(query, self.in_proj_weight).unflatten(-1, (self.num_heads, -1))
        # (batch, heads, time, channels of a head)
        query, key, value = projected.transpose(1, 2).chunk(3, dim=-1)
        positions = self.linear_pos(pos_embs).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        # one vector a head, in the shape that SpeechBrain reads them in
        bias_u, bias_v = (
            bias.view(self.num_heads, 1, -1) for bias in (self.pos_bias_u, self.pos_bias_v)
        )
        query_v = (query + bias_v) * self.scale
        scores = self.rel_shift(query_v @ positions.transpose(2, 3))  # (batch, heads, time, time)
        if attn_mask is not None:
            scores = scores.masked_fill(attn_mask, self.attn_fill_value)
        if key_padding_mask is not None:
            scores = scores.masked_fill(key_padding_mask[:, None, None], self.attn_fill_value)
        out = F.scaled_dot_product_attention(
            query + bias_u,
            key,
            value,
            attn_mask=scores,
            dropout_p=self.dropout_att.p if self.training else 0.0,
            scale=self.scale,
        )
        return self.out_proj(out.transpose(1, 2).flatten(2)), None


class AbsoluteAttention(MultiheadAttention):
    """SpeechBrain's attention without relative positions, whose padding stays finite where chunks hide all of it.

    A frame far behind an utterance's end may see padding alone. SpeechBrain's gives NaN there, which the next layer
    spreads. It takes the arguments of :class:`speechbrain.nnet.attention.MultiheadAttention`.

    Example
    -------
    >>> import torch
    >>> attention, x = AbsoluteAttention(nhead=2, d_model=16), torch.randn(1, 4, 16)
    >>> itself, padding = ~torch.eye(4, dtype=torch.bool), torch.tensor([[False, False, True, True]])
    >>> bool(attention(x, x, x, itself, padding)[0].isfinite().all())
    True
    """

    def forward(self, query, key, value, attn_mask=None, key_padding_mask=None, **options):
        """As SpeechBrain's; boolean masks are true where nothing is seen."""
        # a causal mask is one of numbers, and every frame sees the first one there
        chunked = attn_mask is not None and attn_mask.dtype == torch.bool
        if chunked and key_padding_mask is not None:
            hidden = attn_mask | key_padding_mask.unsqueeze(1)  # (batch, time, time)
            # such a frame is padding, and what it sees does not matter
            hidden &= ~hidden.all(-1, keepdim=True)
            attn_mask = hidden.repeat_interleave(self.att.num_heads, 0)
            key_padding_mask = None
        return super().forward(query, key, value, attn_mask, key_padding_mask, **options)


class ConformerEncoder(LayerLoop, _ConformerEncoder):
    """Conformer layers and a last normalisation (Gulati et al., "Conformer", arXiv 2005.08100, section 2).

    Arguments
    ---------
    num_layers, d_model, d_ffn, nhead, kernel_size, activation, bias, dropout, causal, attention_type
        Of :class:`speechbrain.lobes.models.transformer.Conformer.ConformerEncoder`.
    fidelity : str
        ``corrected`` keeps padding out of the convolution modules; ``upstream`` lets it in, as SpeechBrain does.
    gradient_checkpointing : bool
        Whether layers recompute their activations for the gradients, see :class:`modules.encoder.LayerLoop`.

    Raises
    ------
    ValueError
        If ``fidelity`` is neither.

    Example
    -------
    >>> import torch
    >>> encoder = ConformerEncoder(2, d_model=16, d_ffn=32, nhead=2, kernel_size=7, attention_type="RoPEMHA")
    >>> out, _ = encoder(torch.randn(2, 10, 16), lengths=torch.tensor([10, 6]))
    >>> out.shape
    torch.Size([2, 10, 16])
    """

    def __init__(
        self,
        num_layers,
        d_model,
        d_ffn,
        nhead,
        kernel_size=31,
        activation=Swish,
        bias=True,
        dropout=0.0,
        causal=False,
        attention_type="RelPosMHAXL",
        fidelity="corrected",
        gradient_checkpointing=False,
    ):
        super().__init__(
            num_layers,
            d_model,
            d_ffn,
            nhead,
            kernel_size=kernel_size,
            activation=activation,
            bias=bias,
            dropout=dropout,
            causal=causal,
            attention_type=attention_type,
        )
        self.fidelity = check_fidelity(fidelity)
        self.gradient_checkpointing = gradient_checkpointing
        for layer in self.layers:
            # the same weights, drawn already
            if isinstance(layer.mha_layer, RelPosMHAXL):
                layer.mha_layer.__class__ = RelativeAttention
            elif isinstance(layer.mha_layer, MultiheadAttention):
                layer.mha_layer.__class__ = AbsoluteAttention
            if fidelity == "corrected":
                layer.convolution_module = MaskedConvolutionModule(
                    d_model, kernel_size, bias, activation, dropout, causal=causal
                )

    def layer_options(self, src, src_mask, padding, pos_embs, dynchunktrain_config, lengths):
        """Masks, positions and chunks, as SpeechBrain's layers take them."""
        if pos_embs is not None:
            # SpeechBrain makes the table in float32
            pos_embs = pos_embs.to(torch.promote_types(pos_embs.dtype, src.dtype))
        if lengths is not None:
            padding = ~valid_frames(lengths, src.shape[1], src.device)
        return {
            "src_mask": src_mask,
            "src_key_padding_mask": padding,
            "pos_embs": pos_embs,
            "dynchunktrain_config": dynchunktrain_config,
        }

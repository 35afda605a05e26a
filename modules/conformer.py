"""SpeechBrain's Conformer encoder under the interface of this collection's own: the baseline of every recogniser.

Frame counts keep padding out of the convolution modules, where SpeechBrain's masks their output only; a middle
layer's output and gradient checkpointing are as in :class:`modules.conmamba.ConmambaEncoder`.
"""

from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder as _ConformerEncoder
from speechbrain.nnet.activations import Swish

from modules.conmamba import MaskedConvolutionModule, run_layer
from modules.fidelity import check_fidelity
from modules.ssm.lengths import valid_frames


class ConformerEncoder(_ConformerEncoder):
    """Conformer layers and a last normalisation (Gulati et al., "Conformer", arXiv 2005.08100, section 2).

    Arguments
    ---------
    num_layers, d_model, d_ffn, nhead, kernel_size, activation, bias, dropout, causal, attention_type
        Of :class:`speechbrain.lobes.models.transformer.Conformer.ConformerEncoder`.
    fidelity : str
        ``corrected`` keeps padding out of the convolution modules; ``upstream`` lets it in, as SpeechBrain does.
    gradient_checkpointing : bool
        See :class:`modules.conmamba.ConmambaEncoder`.

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
        if fidelity == "corrected":
            for layer in self.layers:
                layer.convolution_module = MaskedConvolutionModule(
                    d_model, kernel_size, bias, activation, dropout, causal=causal
                )

    def forward(
        self,
        src,
        src_mask=None,
        src_key_padding_mask=None,
        pos_embs=None,
        dynchunktrain_config=None,
        *,
        lengths=None,
        hidden_after=None,
    ):
        """Encode whole utterances.

        Arguments
        ---------
        src : torch.Tensor
            (batch, time, d_model).
        src_mask : torch.Tensor, optional
            (time, time), which frames may not attend to which.
        src_key_padding_mask : torch.Tensor, optional
            (batch, time), true on padding: another way to give the lengths.
        pos_embs : torch.Tensor, optional
            Of the relative positions, for ``RelPosMHAXL``.
        dynchunktrain_config : optional
            Chunks for the convolution modules.
        lengths : torch.Tensor, optional
            (batch,) integer frame counts.
        hidden_after : int, optional
            Also return the normalised output of this layer, counted from 1.

        Returns
        -------
        (torch.Tensor, torch.Tensor or None)
            (batch, time, d_model) twice; the second is that of ``hidden_after``.
        """
        if lengths is not None:
            src_key_padding_mask = ~valid_frames(lengths, src.shape[1], src.device)
        hidden = None
        for index, layer in enumerate(self.layers, start=1):
            src, _ = run_layer(
                layer,
                src,
                src_mask=src_mask,
                src_key_padding_mask=src_key_padding_mask,
                pos_embs=pos_embs,
                dynchunktrain_config=dynchunktrain_config,
                checkpointed=self.gradient_checkpointing,
            )
            if index == hidden_after:
                hidden = self.norm(src)
        return self.norm(src), hidden

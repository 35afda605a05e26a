"""What ConMamba's and Conformer's encoders share: the loop over their layers.

SpeechBrain's transformer calls an encoder with masks and positions. The recognisers add frame counts, a middle
layer's output for an intermediate loss, and layers that recompute their activations to save memory.
"""

import torch
from torch.utils.checkpoint import checkpoint


class LayerLoop:
    """The ``forward`` of an encoder with ``layers``, a last ``norm`` and the flag ``gradient_checkpointing``.

    A subclass says in ``layer_options`` what each layer takes besides the frames. A layer that returns a tuple
    returns the frames first. With ``gradient_checkpointing``, a layer keeps its input only in training and computes
    what lies within again for the gradients: less memory, more time, the same gradients.
    """

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
            (time, time), which frames may not attend to which; Mamba has no use for it.
        src_key_padding_mask : torch.Tensor, optional
            (batch, time), true on padding: another way to give the lengths.
        pos_embs : torch.Tensor, optional
            Relative positions for ``RelPosMHAXL``; Mamba has no use for them.
        dynchunktrain_config : speechbrain.utils.dynamic_chunk_training.DynChunkTrainConfig, optional
            Chunks whose end hides the future: from convolutions, and from Mamba's backward branch.
        lengths : torch.Tensor, optional
            (batch,) integer frame counts.
        hidden_after : int, optional
            Number of a layer, counted from 1, whose normalised output is returned too.

        Returns
        -------
        (torch.Tensor, torch.Tensor or None)
            (batch, time, d_model) of the last layer and of layer ``hidden_after``.
        """
        options = self.layer_options(
            src, src_mask, src_key_padding_mask, pos_embs, dynchunktrain_config, lengths
        )
        hidden = None
        for number, layer in enumerate(self.layers, start=1):
            src = self._run(layer, src, options)
            if number == hidden_after:
                hidden = self.norm(src)
        return self.norm(src), hidden

    def _run(self, layer, src, options):
        if self.gradient_checkpointing and layer.training and torch.is_grad_enabled():
            # dropout draws the same masks again
            out = checkpoint(layer, src, use_reentrant=False, **options)
        else:
            out = layer(src, **options)
        return out[0] if isinstance(out, tuple) else out

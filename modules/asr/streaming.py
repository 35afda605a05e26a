"""Encoding speech chunk by chunk: what a transformer carries from one chunk to the next.

A Conformer streams as SpeechBrain's does, by attention over the chunks before; a causal ConMamba carries its states.
"""

from dataclasses import dataclass

from speechbrain.lobes.models.transformer.TransformerASR import TransformerASRStreamingContext

from modules.conformer import ConformerEncoder


@dataclass
class ConmambaStreamingContext:
    """What a causal ConMamba encoder carries from chunk to chunk: frames read, and the layers' states."""

    frames: int = 0
    state: list | None = None


class StreamingEncoding:
    """The streaming half of a TransformerASR whose encoder is a Conformer or a ConMamba."""

    def make_streaming_context(self, dynchunktrain_config, encoder_kwargs=None):
        """A context for :meth:`encode_streaming`, before the first chunk.

        Raises
        ------
        ValueError
            If the encoder is a ConMamba that sees the future.
        """
        if isinstance(self.encoder, ConformerEncoder):
            return super().make_streaming_context(dynchunktrain_config, encoder_kwargs or {})
        if not self.causal:
            raise ValueError(
                "a bidirectional ConMamba encoder reads whole utterances and cannot stream: build it with causal: True"
            )
        return TransformerASRStreamingContext(dynchunktrain_config, ConmambaStreamingContext())

    def encode_streaming(self, src, context):
        """Encode the next chunk of each utterance.

        Arguments
        ---------
        src : torch.Tensor
            (batch, time, input_size).
        context : speechbrain.lobes.models.transformer.TransformerASR.TransformerASRStreamingContext
            From :meth:`make_streaming_context`; moved on to the chunk's end.

        Returns
        -------
        torch.Tensor
            (batch, time, d_model); of ConMamba the frames that the whole utterance would give.
        """
        if isinstance(self.encoder, ConformerEncoder):
            return super().encode_streaming(src, context)
        past = context.encoder_context
        encoded, past.state = self.encoder.forward_chunk(
            self._project(src, past.frames), past.state
        )
        past.frames += src.shape[1]
        return encoded

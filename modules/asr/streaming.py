"""Encoding speech chunk by chunk: what a transformer carries from one chunk to the next.

A Conformer streams as SpeechBrain's does, by attention over the chunks before. A ConMamba carries its states: frame by
frame where it is causal, and otherwise chunk by chunk.
"""

from dataclasses import dataclass

from speechbrain.lobes.models.transformer.TransformerASR import TransformerASRStreamingContext

from modules.conformer import ConformerEncoder


@dataclass
class ConmambaStreamingContext:
    """What a ConMamba encoder carries from chunk to chunk: frames read, and the layers' states."""

    frames: int = 0
    state: list | None = None


class StreamingEncoding:
    """The streaming half of a transformer whose encoder is a Conformer or a ConMamba."""

    def make_streaming_context(self, dynchunktrain_config=None, encoder_kwargs=None):
        """A context for :meth:`encode_streaming`, before the first chunk.

        Arguments
        ---------
        dynchunktrain_config : speechbrain.utils.dynamic_chunk_training.DynChunkTrainConfig, optional
            Chunks of an encoder that is not causal; a causal ConMamba has none and does not read them.
        encoder_kwargs : dict, optional
            Of a Conformer.

        Raises
        ------
        ValueError
            If the encoder is a ConMamba that sees the future, and there are no chunks.
        """
        if isinstance(self.encoder, ConformerEncoder):
            return super().make_streaming_context(dynchunktrain_config, encoder_kwargs or {})
        if not self.causal and dynchunktrain_config is None:
            raise ValueError(
                "a bidirectional ConMamba encoder reads whole utterances and cannot stream: give it chunks, or build "
                "it with causal: True"
            )
        return TransformerASRStreamingContext(dynchunktrain_config, ConmambaStreamingContext())

    def encode_streaming(self, src, context):
        """Encode the next frames of each utterance.

        Arguments
        ---------
        src : torch.Tensor
            (batch, time, input_size): any number of frames for a causal ConMamba, whole chunks otherwise. A last chunk
            may be shorter, and nothing follows it.
        context : speechbrain.lobes.models.transformer.TransformerASR.TransformerASRStreamingContext
            From :meth:`make_streaming_context`; moved on to the end of these frames.

        Returns
        -------
        torch.Tensor
            (batch, time, d_model); of ConMamba the frames that the whole utterance would give.
        """
        if isinstance(self.encoder, ConformerEncoder):
            return super().encode_streaming(src, context)
        past = context.encoder_context
        encoded, past.state = self.encoder.forward_chunk(
            self._project(src, past.frames),
            past.state,
            dynchunktrain_config=None if self.causal else context.dynchunktrain_config,
        )
        past.frames += src.shape[1]
        return encoded

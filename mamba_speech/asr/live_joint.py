"""Live decoding with a sequence-to-sequence model, in two passes.

While an utterance goes on, CTC's best path gives its partial text. A Mamba decoder absorbs the encoder's frames as
they come, and carries one state of constant size. At the utterance's end the joint search of
:class:`mamba_speech.asr.decoders.S2SDecoder` reads that state and CTC's scores, and its text is final. So the text of
an utterance is the text that the search gives offline.

A search that runs earlier would have to guess where the decoder's tokens end in time. A Mamba decoder reads the whole
utterance before its first token: with every new frame, all its scores change.

Source: Zhang et al., "Unified streaming and non-streaming two-pass end-to-end model for speech recognition" (arXiv
2012.05481), whose second pass also begins at the utterance's end.
"""

from dataclasses import dataclass, replace

import torch

from mamba_speech.asr.alignment import align_roughly, words_of
from mamba_speech.asr.best_path import GreedyDecoder
from mamba_speech.asr.live_decoder import LiveDecoder


@dataclass(frozen=True)
class JointState:
    """An utterance that goes on.

    The frame at which it begins, the best path's state and the words that it has ended, the encoder's output of the
    utterance in parts (frames, d_model), and a Mamba decoder's state behind them.
    """

    start: int
    path: object
    heard: tuple = ()
    encoded: tuple = ()
    absorbed: object = None


class JointDecoder(LiveDecoder):
    """Joint CTC/attention search at each utterance's end; until then, CTC's best path as partial text.

    Words are final at the endpoint. Their times come from CTC's alignment.

    Arguments
    ---------
    decode : mamba_speech.asr.decoders.S2SDecoder
        Its tokenizer is taken.
    frame_seconds : float
        Time between two frames.
    endpoint : mamba_speech.asr.endpoint.EndpointOptions, optional

    Example
    -------
    Not run here, since it needs a trained run; :class:`mamba_speech.asr.live.LiveRecognizer` makes one::

        live = LiveRecognizer.load("results/S2S/conmamba_streaming_mini/1", decoding="joint")
    """

    reads_encoded = True

    def __init__(self, decode, frame_seconds, endpoint=None):
        self.decode = decode
        super().__init__(decode.tokenizer, frame_seconds, endpoint)
        self._path = GreedyDecoder(decode.tokenizer, frame_seconds, endpoint)
        self._absorbs = decode.model.Transformer.has_stateful_decoder

    def _told(self):
        return (self.decode.options, self.decode.model.seq_lin.w.weight.shape)

    def _begin(self, start):
        return JointState(start, self._path._begin(start))

    def _read(self, state, log_probs, encoded):
        if not len(log_probs):
            return state, []
        path, words = self._path._read(state.path, log_probs, None)
        absorbed = state.absorbed
        if self._absorbs:
            network = self.decode.model.Transformer
            absorbed = network.start_decoding(encoded[None], state=absorbed)
        # a copy, since a view would keep the whole piece
        parts = (*state.encoded, encoded.clone())
        heard = (*state.heard, *(word.text for word in words))
        return replace(state, path=path, heard=heard, encoded=parts, absorbed=absorbed), []

    def _partial(self, state):
        return " ".join((*state.heard, self._path._partial(state.path))).strip()

    def _end(self, state):
        encoded = torch.cat(state.encoded)[None]
        lengths = torch.tensor([encoded.shape[1]], device=encoded.device)
        (tokens,) = self.decode.tokens(encoded, lengths, state.absorbed)
        log_probs = self.decode.model.ctc_log_probs(encoded)[0, :, : len(self.tokenizer)]
        spans = align_roughly(log_probs.cpu().numpy(), tokens, self.tokenizer.blank)
        offset = state.start * self.frame_seconds
        return words_of(spans, self.tokenizer, self.frame_seconds, offset)

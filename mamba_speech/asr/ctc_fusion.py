"""CTC beam search of whole utterances with a language model that is a network, as `transcribe --lm` runs it."""

from mamba_speech.asr.nbest import Hypothesis, check_nbest, distinct_texts
from mamba_speech.asr.prefix_beam import PrefixBeamDecoder


class FusedCTCDecoder:
    """From CTC's log-probabilities to text by a prefix beam search with a Mamba language model.

    A hypothesis scores log p of CTC + lm_weight log p of the language model. The live decoding `beam` runs the same
    search along a stream.

    Arguments
    ---------
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    fusion : mamba_speech.asr.fusion.MambaFusion
    **options
        Options of :class:`mamba_speech.asr.prefix_beam.BeamOptions`.

    Raises
    ------
    ValueError
        If an option is outside its range.

    Example
    -------
    Not run here, since it needs a trained language model::

        lm, _ = load_language_model("results/LM/mamba_mini/1", tokenizer)
        decoder = FusedCTCDecoder(tokenizer, MambaFusion(lm, tokenizer, weight=0.5), beam_size=16)
        texts = decoder(log_probs, lengths)
    """

    def __init__(self, tokenizer, fusion, **options):
        self.tokenizer = tokenizer
        # the time of a frame places words in a stream, and no text depends on it
        self._search = PrefixBeamDecoder(tokenizer, frame_seconds=1.0, fusion=fusion, **options)

    def __call__(self, log_probs, lengths):
        """Decode a batch; see :meth:`mamba_speech.asr.decoders.CTCDecoder.__call__`.

        Returns
        -------
        texts : list of str
        """
        return [one[0].text for one in self.nbest(log_probs, lengths, 1)]

    def check_nbest(self, count):
        """Refuse to look for more texts than the beam holds, with a ValueError."""
        check_nbest(count, self._search.options.beam_size, "a beam_size")

    def nbest(self, log_probs, lengths, count):
        """The best texts of a batch; see :meth:`mamba_speech.asr.decoders.CTCDecoder.nbest`.

        Returns
        -------
        list of list of Hypothesis
        """
        self.check_nbest(count)
        known = log_probs[..., : len(self.tokenizer)].float().cpu()
        found = []
        for item, frames in zip(known, lengths.tolist(), strict=True):
            hypotheses = self._search.search(item[:frames])
            texts = ((self.tokenizer.decode(list(tokens)), score) for tokens, score in hypotheses)
            found.append(distinct_texts(texts)[:count] or [Hypothesis("", float("-inf"))])
        return found

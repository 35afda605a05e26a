"""CTC's best path along a stream."""

from dataclasses import dataclass

from mamba_speech.asr.alignment import token_span, words_of
from mamba_speech.asr.live_decoder import LiveDecoder


@dataclass(frozen=True)
class _BestPath:
    """State of the best path: frames read, spans behind the final words, and the token that goes on.

    ``going`` holds the token, its first frame, and its log-probabilities.
    """

    frame: int
    spans: tuple = ()
    going: tuple | None = None


class GreedyDecoder(LiveDecoder):
    """CTC's best path. A word is final when the next one begins, or at the utterance's end.

    The best path never changes its mind, so that partial text only grows.
    Source: Graves et al., "Connectionist temporal classification", ICML 2006, section 3.2.

    Arguments
    ---------
    tokenizer, frame_seconds, endpoint
        See :class:`LiveDecoder`.

    Example
    -------
    >>> import tempfile
    >>> import torch
    >>> from mamba_speech.asr.tokenizer import Tokenizer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tokenizer = Tokenizer.train(["a b"], f"{folder}/tokenizer.model", "char", size=10)
    >>> best = torch.tensor([tokenizer.labels().index(token) for token in "▁aa▁b"])
    >>> log_probs = torch.nn.functional.one_hot(best, len(tokenizer)).float().clamp(min=1e-3).log()
    >>> decoder = GreedyDecoder(tokenizer, frame_seconds=0.04)
    >>> context = decoder.make_context()
    >>> (update,) = decoder.step(log_probs, None, context)
    >>> update.final_text, update.partial, decoder.finish(context)[0].final_text
    ('a', 'b', 'b')
    """

    def _begin(self, start):
        return _BestPath(start)

    def _read(self, state, log_probs, encoded):
        values, best = log_probs.max(-1)
        frame, spans, going = state.frame, list(state.spans), state.going
        for token, value in zip(best.tolist(), values.tolist(), strict=True):
            if going is not None and going[0] == token:
                going = (token, going[1], (*going[2], value))
            else:
                if going is not None:
                    spans.append(token_span(*going))
                going = None if token in self.silent_tokens else (token, frame, (value,))
            frame += 1
        heard = spans if going is None else [*spans, token_span(*going)]
        starts = [at for at, span in enumerate(heard) if self._starts[span.token]]
        done = starts[-1] if starts else 0
        return _BestPath(frame, tuple(spans[done:]), going), self._words(heard[:done])

    def _heard(self, state):
        return [*state.spans, *([] if state.going is None else [token_span(*state.going)])]

    def _words(self, spans):
        return words_of(spans, self.tokenizer, self.frame_seconds)

    def _partial(self, state):
        return " ".join(word.text for word in self._words(self._heard(state)))

    def _end(self, state):
        return self._words(self._heard(state))

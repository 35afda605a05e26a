"""Beam search by SpeechBrain's searcher: for the Transformer decoder, and for the Mamba decoder that keeps its state.

In a batch each utterance is searched as it would be alone, which SpeechBrain's searcher does not promise: it takes
the numbers of steps from the longest utterance. The Mamba decoder reads the encoder's output once
an utterance and then carries one state a hypothesis, so that a step costs the same at any length.
"""

from typing import NamedTuple

import torch
from speechbrain.decoders.seq2seq import S2SBeamSearcher

from modules.asr.transformer import DecodingState
from modules.ssm.precision import at_least_float32


class UtteranceBeamSearcher(S2SBeamSearcher):
    """SpeechBrain's beam search, with each utterance of a batch ended as if it were alone.

    An utterance of T frames is decoded for ``int(T * max_decode_ratio)`` steps at most, and for at least one; its
    hypotheses may end after ``int(T * min_decode_ratio)`` steps. Those open at its last step are closed there as
    SpeechBrain closes them: the last token counts as the end. Hypotheses of probability 0, which fill a
    beam that is wider than the vocabulary, are never results, and none is a result twice.

    Arguments
    ---------
    modules : list of torch.nn.Module
        A network with the decoder, and the layer from decoder states to the vocabulary.
    temperature : float
        Divides the logits; over 1 is softer.
    **options
        Of :class:`speechbrain.decoders.seq2seq.S2SBeamSearcher`: bos_index, eos_index, min_decode_ratio,
        max_decode_ratio, beam_size, scorer, return_topk, topk, using_eos_threshold, eos_threshold,
        length_normalization and so on.

    Raises
    ------
    ValueError
        If an option is outside its range.
    """

    def __init__(self, modules, temperature=1.0, **options):
        _check_options(temperature=temperature, **options)
        super().__init__(**options)
        self.model, self.fc = modules
        self.temperature = temperature
        if self.scorer is not None and not self.scorer.partial_scorers:
            # there is nobody to read the candidates that ScorerBuilder would sort out at every step
            self.scorer.scorer_beam_scale = 0

    @torch.no_grad()
    def forward(self, enc_states, wav_len):
        """Search.

        Arguments
        ---------
        enc_states : torch.Tensor
            (batch, time, d_model), output of the encoder.
        wav_len : torch.Tensor
            (batch,) relative lengths, see :func:`modules.lengths.relative_lengths`.

        Returns
        -------
        (list of list of int, torch.Tensor, torch.Tensor, torch.Tensor)
            The best hypothesis of each utterance; its relative length, its score, and (batch, steps) the
            decoder's share in the score. If ``return_topk``, (batch, topk, steps) padded hypotheses and the rest
            with an axis more; what an utterance lacks has length 0 and score minus infinity.
        """
        return super().forward(enc_states, wav_len)

    def init_beam_search_data(self, enc_states, wav_len):
        """Set up the start of the search; it takes the arguments of :meth:`forward`."""
        self.device, self.batch_size = enc_states.device, len(enc_states)
        self.n_bh = self.batch_size * self.beam_size
        self.n_out = self.set_n_out()
        self.beam_offset = torch.arange(0, self.n_bh, self.beam_size, device=self.device)
        enc_lens = torch.round(enc_states.shape[1] * wav_len).int().to(self.device)
        self._set_steps(enc_lens.tolist())
        memory, scorer_memory = self._update_reset_memory(enc_states, enc_lens)
        return (
            self.init_hypotheses(),
            torch.full((self.n_bh,), self.bos_index, device=self.device),
            torch.zeros(self.n_bh, self.n_out, device=self.device),
            [[] for _ in range(self.batch_size)],
            memory,
            scorer_memory,
            None,
            torch.zeros(self.n_bh, device=self.device),
            self._repeat_encoded(enc_states),
            enc_lens.repeat_interleave(self.beam_size),
        )

    def set_n_out(self):
        """Return the number of outputs."""
        return self.fc.w.out_features

    def reset_mem(self, batch_size, device):
        """Return the decoder's memory of no token at all."""
        return

    def _set_steps(self, lengths):
        limits = [
            self.change_max_decoding_length(
                int(n * self.min_decode_ratio), int(n * self.max_decode_ratio)
            )
            for n in lengths
        ]
        self._last_steps = [max(1, most) for _, most in limits]
        self._open = [True] * len(limits)
        self.max_decode_steps = max(self._last_steps)
        self.min_decode_steps = torch.tensor([least for least, _ in limits], device=self.device)
        self.min_decode_steps = self.min_decode_steps.repeat_interleave(self.beam_size)

    def _repeat_encoded(self, enc_states):
        return enc_states.repeat_interleave(self.beam_size, dim=0)

    def _log_probs(self, prediction):
        logits = at_least_float32(self.fc(prediction))
        return torch.log_softmax(logits / self.temperature, dim=-1)

    def _attn_weight_step(self, inp_tokens, memory, enc_states, enc_lens, attn, log_probs):
        if self.attn_weight > 0:
            return super()._attn_weight_step(
                inp_tokens, memory, enc_states, enc_lens, attn, log_probs
            )
        # a step begins from 0: SpeechBrain would begin from the scores of the last one
        return torch.zeros_like(log_probs), memory, attn

    def _set_eos_minus_inf_step(self, log_probs, step, min_decode_steps):
        log_probs[min_decode_steps > step, self.eos_index] = self.minus_inf
        return log_probs

    def _eos_threshold_step(self, log_probs):
        # it compares the decoder's probabilities: there are none where the decoder has no weight
        return super()._eos_threshold_step(log_probs) if self.attn_weight > 0 else log_probs

    def _update_hyps_and_scores_if_eos_token(self, inp_tokens, alived_hyps, finished, scores):
        """Keep what has ended at this step, and all hypotheses of an utterance whose last step this is."""
        is_eos = inp_tokens.eq(self.eos_index)
        step = alived_hyps.alived_seq.shape[1]
        last = torch.tensor([last == step for last in self._last_steps], device=self.device)
        last = last.repeat_interleave(self.beam_size)
        possible = scores != float("-inf")
        for kept in (is_eos & possible, last & ~is_eos & possible):
            for index in kept.nonzero().squeeze(1).tolist():
                utterance = index // self.beam_size
                found = finished[utterance]
                if step <= self._last_steps[utterance] and len(found) < self.beam_size:
                    hypothesis, log_probs, _ = alived_hyps[index]
                    found.append((hypothesis, log_probs, scores[index].clone()))
        self._open = [
            step < last and len(found) < self.beam_size
            for last, found in zip(self._last_steps, finished, strict=True)
        ]
        return is_eos

    def _check_full_beams(self, finished):
        return not any(self._open)

    def _fill_alived_hyps_with_eos_token(self, alived_hyps, finished, scores):
        # every utterance was closed at its own last step
        return finished

    def _get_topk_prediction(self, finished):
        """The best ``topk`` of each utterance, padded; as SpeechBrain's, but for differing numbers of hypotheses."""
        nothing = (
            torch.full((1,), self.eos_index, device=self.device),
            torch.zeros(1, device=self.device),
            torch.tensor(float("-inf"), device=self.device),
        )
        best = []
        for found in finished:
            found = found + [nothing] * (self.topk - len(found))
            order = torch.stack([score for *_, score in found]).topk(self.topk).indices.tolist()
            best += [found[i] for i in order]
        hypotheses, log_probs, scores = zip(*best, strict=True)
        lengths = torch.tensor([len(h) - 1.0 for h in hypotheses], device=self.device)
        hypotheses = torch.nn.utils.rnn.pad_sequence(hypotheses, batch_first=True)
        log_probs = torch.nn.utils.rnn.pad_sequence(log_probs, batch_first=True)
        shape = (self.batch_size, self.topk)
        return (
            hypotheses.view(*shape, -1),
            (lengths / hypotheses.shape[1]).view(shape),
            torch.stack(scores).view(shape),
            log_probs.view(*shape, -1),
        )


class TransformerBeamSearcher(UtteranceBeamSearcher):
    """Beam search that gives the decoder the whole prefix at every step; for any decoder.

    It takes the arguments of :class:`UtteranceBeamSearcher`. The network has ``decode(tokens, encoded, lengths)``.

    Example
    -------
    >>> import torch
    >>> from speechbrain.nnet.linear import Linear
    >>> from modules.asr.transformer import S2STransformer
    >>> model = S2STransformer(10, 16, 16, 2, 1, 1, 32, decoder_module="transformer").eval()
    >>> search = TransformerBeamSearcher(
    ...     [model, Linear(input_size=16, n_neurons=10)], bos_index=1, eos_index=2, min_decode_ratio=0.0,
    ...     max_decode_ratio=1.0, beam_size=3)
    >>> hypotheses, *_ = search(torch.randn(2, 6, 16), torch.tensor([1.0, 0.5]))
    >>> len(hypotheses)
    2
    """

    def forward_step(self, inp_tokens, memory, enc_states, enc_lens):
        """Log-probabilities after one token more: inp_tokens (batch * beam,), memory (batch * beam, steps)."""
        tokens = inp_tokens.unsqueeze(1)
        memory = tokens if memory is None else torch.cat([memory, tokens], dim=1)
        prediction, attn = self.model.decode(memory, enc_states, enc_lens)
        return self._log_probs(prediction[:, -1]), memory, attn

    def permute_mem(self, memory, index):
        """Select the prefixes of the hypotheses that were kept."""
        return memory[index]


class CarriedState(NamedTuple):
    """What :class:`MambaBeamSearcher` carries: a state, who goes on from where in it, and a state to write over.

    ``is_own`` tells whether the search itself made the state.
    """

    state: DecodingState
    parents: torch.Tensor
    spare: DecodingState
    is_own: bool


class MambaBeamSearcher(UtteranceBeamSearcher):
    """Beam search with the decoder's state carried from step to step.

    The encoder's output is absorbed once an utterance, before the state is repeated for the beam; it is not
    repeated itself. The network has ``start_decoding`` and ``decode_step``.

    Arguments
    ---------
    modules, temperature, **options
        Those of :class:`UtteranceBeamSearcher`.
    absorbed : modules.asr.transformer.DecodingState, optional
        The state of ``start_decoding`` behind the encoder's output, where somebody has it already.

    Raises
    ------
    ValueError
        If an option is outside its range or asks for attention weights, which this decoder does not have.

    Example
    -------
    >>> import torch
    >>> from speechbrain.nnet.linear import Linear
    >>> from modules.asr.transformer import S2STransformer
    >>> model = S2STransformer(10, 16, 16, 2, 1, 1, 32, decoder_module="mamba").eval()
    >>> search = MambaBeamSearcher(
    ...     [model, Linear(input_size=16, n_neurons=10)], bos_index=1, eos_index=2, min_decode_ratio=0.0,
    ...     max_decode_ratio=1.0, beam_size=3)
    >>> hypotheses, *_ = search(torch.randn(2, 6, 16), torch.tensor([1.0, 0.5]))
    >>> len(hypotheses)
    2
    """

    def __init__(self, modules, temperature=1.0, absorbed=None, **options):
        super().__init__(modules, temperature, **options)
        self.absorbed = absorbed
        if self.using_max_attn_shift:
            raise ValueError(
                "using_max_attn_shift needs attention weights: a Mamba decoder has none"
            )
        if self.scorer is not None and self.scorer.weights["coverage"] > 0:
            raise ValueError(
                "the coverage scorer needs attention weights: a Mamba decoder has none"
            )

    def forward_step(self, inp_tokens, memory, enc_states, enc_lens):
        """Log-probabilities after one token more: inp_tokens (batch * beam,), memory the decoder's state."""
        state, parents, spare, is_own = memory
        if not all(self._open):
            # nobody reads what would follow in an utterance that has ended
            is_open = torch.tensor(self._open, device=self.device).repeat_interleave(self.beam_size)
            parents = torch.where(is_open, parents, -1)
        prediction, new_state = self.model.decode_step(inp_tokens, state, parents, spare)
        # two states take turns; the one that the search began with may be somebody else's
        memory = CarriedState(new_state, None, state if is_own else None, True)
        return self._log_probs(prediction), memory, None

    def permute_mem(self, memory, index):
        """Say which hypotheses' states go on; the next step reads them where they are."""
        return memory._replace(parents=index)

    def _update_reset_memory(self, enc_states, enc_lens):
        _, scorer_memory = super()._update_reset_memory(enc_states, enc_lens)
        if not self.attn_weight > 0:
            return None, scorer_memory
        state = self.absorbed
        if state is None:
            state = self.model.start_decoding(enc_states, enc_lens)
        hypotheses = torch.arange(self.n_bh, device=self.device) // self.beam_size
        return CarriedState(state, hypotheses, None, False), scorer_memory

    def _repeat_encoded(self, enc_states):
        # all that the decoder needs of it is in its state
        return None


def _check_options(beam_size, topk=1, temperature=1.0, **options):
    if beam_size < 1:
        raise ValueError(f"beam_size must be at least 1; got {beam_size}")
    if not 1 <= topk <= beam_size:
        raise ValueError(f"topk must be between 1 and beam_size, {beam_size}; got {topk}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0; got {temperature}")
    least, most = options["min_decode_ratio"], options["max_decode_ratio"]
    if not 0 <= least <= most:
        raise ValueError(
            "min_decode_ratio must be between 0 and max_decode_ratio; "
            f"got min_decode_ratio {least} and max_decode_ratio {most}"
        )

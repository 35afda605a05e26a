"""CTC prefix scores for joint decoding: SpeechBrain's numbers, at the price of one matrix product a step.

SpeechBrain carries the forward variables of every hypothesis followed by every token through every frame, which
takes seconds a step at a vocabulary of 5,000. The score of a token needs no recursion, only a sum over frames,
and that is a matrix product for all hypotheses and tokens; the recursion runs for the hypotheses that were kept.

Source: Hori, Watanabe and Hershey, "Joint CTC/attention decoding for end-to-end speech recognition", ACL 2017,
algorithm 2 (www.merl.com/publications/docs/TR2017-190.pdf).
"""

import torch
from speechbrain.decoders import scorer

from modules.ssm.precision import at_least_float32

# Paths so far (natural logarithm) below the most probable one of their prefix are left out of the sums over
# frames. It is felt by scores under -200 alone: no beam keeps those, and above it they leave no trace in float32.
REACH = 250.0


class CTCPrefixScore:
    """Scores of tokens after prefixes, for one batch of utterances.

    The state of a prefix is the probability, after 0, 1, ... T frames, of the paths that have emitted exactly the
    prefix, apart for those that end in its last token and those that end in a blank. Everything is kept in
    float64, where the recursion has a closed form and the product loses nothing that a beam could keep.

    Arguments
    ---------
    log_probs : torch.Tensor
        (batch, time, vocabulary), float32 or float64, which the scores have too. Not changed.
    lengths : torch.Tensor
        (batch,) numbers of valid frames; later ones are not read.
    blank_index, eos_index : int
        The output for blank, which is never a next token, and for the end of the sentence.

    Example
    -------
    >>> import torch
    >>> log_probs = torch.log(torch.tensor([[[0.5, 0.1, 0.4], [0.3, 0.1, 0.6]]]))
    >>> prefixes = CTCPrefixScore(log_probs, torch.tensor([2]), blank_index=0, eos_index=1)
    >>> scores, _ = prefixes.forward_step(torch.tensor([1]), None)
    >>> scores.exp()  # nothing at all 0.5 * 0.3; at first the token 2: 0.4 + 0.5 * 0.6
    tensor([[0.0000, 0.1500, 0.7000]])
    """

    # SpeechBrain's ScorerBuilder reads it
    minus_inf = -1e20

    def __init__(self, log_probs, lengths, blank_index, eos_index):
        self.batch_size, time, self.vocab_size = log_probs.shape
        self.blank_index, self.eos_index = blank_index, eos_index
        self.lengths = lengths.long()
        past_end = torch.arange(time, device=log_probs.device) >= self.lengths.unsqueeze(1)
        # tokens before frames, so that all frames of one token lie together: (batch, vocabulary, time)
        self.log_probs = log_probs.transpose(1, 2).masked_fill(past_end.unsqueeze(1), 0.0)
        self.log_probs = self.log_probs.contiguous()
        self.probs = self.log_probs.double().exp()
        self.past_end = past_end
        self.blanks = self.log_probs[:, blank_index].double()

    @torch.no_grad()
    def forward_step(self, inp_tokens, states, candidates=None, attn=None):
        """Score every token, or some, after each prefix.

        Arguments
        ---------
        inp_tokens : torch.Tensor
            (batch * beam,) last tokens of the prefixes.
        states : tuple or None
            From :meth:`permute_mem`; None stands for empty prefixes.
        candidates : torch.Tensor, optional
            (batch * beam, n) tokens to score. The others are given minus infinity, but for the end of the sentence.
        attn : object
            Not read.

        Returns
        -------
        (torch.Tensor, tuple)
            (batch * beam, vocabulary) log-probabilities of each token given its prefix, and what
            :meth:`permute_mem` takes.
        """
        beam = len(inp_tokens) // self.batch_size
        state, prefix = self._empty(beam) if states is None else states
        last_blank = state[:, 1]
        any_last = torch.logaddexp(state[:, 0], last_blank)
        columns = None if candidates is None else self._columns(candidates)
        scores = self._sum_over_frames(any_last[:, :-1], prefix, columns, beam)
        # a token that comes twice stands for one, unless there is a blank between
        again = last_blank[:, :-1] + self.log_probs[self._utterance(beam), inp_tokens]
        again = again.masked_fill_(self._repeat(self.past_end, beam), -torch.inf).logsumexp(1)
        scores.scatter_(1, inp_tokens.unsqueeze(1), (again - prefix).to(scores.dtype).unsqueeze(1))
        if candidates is not None:
            wanted = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, candidates, True)
            scores.masked_fill_(~wanted, -torch.inf)
        at_end = any_last.gather(1, self._repeat(self.lengths, beam).unsqueeze(1)).squeeze(1)
        scores[:, self.eos_index] = (at_end - prefix).to(scores.dtype)
        scores[:, self.blank_index] = -torch.inf
        scores.clamp_(min=self.minus_inf)
        return scores, (state, inp_tokens)

    @torch.no_grad()
    def permute_mem(self, memory, index):
        """States of the prefixes that the search has kept.

        Arguments
        ---------
        memory : tuple
            From :meth:`forward_step`.
        index : torch.Tensor
            (batch, beam) where each kept prefix is among the (beam * vocabulary) of its utterance.

        Returns
        -------
        (torch.Tensor, torch.Tensor)
            (batch * beam, 2, time + 1) log-probabilities of the paths that end in a token and in a blank;
            (batch * beam,) log-probabilities of the prefixes.
        """
        state, last_tokens = memory
        beam = index.shape[1]
        parents = torch.div(index, self.vocab_size, rounding_mode="floor")
        parents = (parents + self._offsets(beam)).view(-1)
        tokens = (index % self.vocab_size).view(-1)
        state = state[parents]
        before = torch.logaddexp(state[:, 0], state[:, 1])
        repeated = (tokens == last_tokens[parents]).unsqueeze(1)
        before = torch.where(repeated, state[:, 1], before)[:, :-1]

        token_log_probs = self.log_probs[self._utterance(beam), tokens].double()
        emitted = (before + token_log_probs).masked_fill_(
            self._repeat(self.past_end, beam), -torch.inf
        )
        prefix = emitted.logsumexp(1).clamp_(min=self.minus_inf)
        new = state.new_full(state.shape, -torch.inf)
        new[:, 0, 1:] = _carry(before, token_log_probs)
        new[:, 1, 1:] = _carry(new[:, 0, :-1], self._repeat(self.blanks, beam))
        return new, prefix

    def _empty(self, beam):
        """State and log-probability of the empty prefix, for every hypothesis."""
        n, time = self.batch_size * beam, self.log_probs.shape[2]
        state = self.probs.new_full((n, 2, time + 1), -torch.inf)
        state[:, 1, 0] = 0.0
        state[:, 1, 1:] = self._repeat(self.blanks.cumsum(1), beam)
        return state, self.probs.new_zeros(n)

    def _sum_over_frames(self, before, prefix, columns, beam):
        """log sum_t p_t(token) exp(before_t - prefix): (batch * beam, vocabulary), of ``columns`` if given."""
        before = before.masked_fill(self._repeat(self.past_end, beam), -torch.inf)
        peak = before.amax(1, keepdim=True)
        peak = torch.where(peak.isfinite(), peak, 0.0)
        before -= peak
        reached = before > -REACH
        weights = before.masked_fill_(~reached, -torch.inf).exp_()
        weights = weights.view(self.batch_size, beam, -1)
        # the prefixes of a beam end near one another: few frames count for any of them
        live = reached.any(0).nonzero()
        first, end = (int(live[0]), int(live[-1]) + 1) if len(live) else (0, 0)
        weights, probs = weights[:, :, first:end], self.probs[:, :, first:end]
        if columns is not None:
            probs = probs.gather(1, columns.unsqueeze(2).expand(-1, -1, end - first))
        # the logarithm before float32, whose range would end at -103
        scores = torch.bmm(weights, probs.transpose(1, 2)).log_().to(self.log_probs.dtype)
        if columns is not None:
            known = scores
            scores = known.new_full((self.batch_size, beam, self.vocab_size), -torch.inf)
            scores.scatter_(2, columns.unsqueeze(1).expand_as(known), known)
        return scores.view(-1, self.vocab_size).add_(
            peak.squeeze(1).sub(prefix).to(scores.dtype).unsqueeze(1)
        )

    def _columns(self, candidates):
        """Tokens that are a candidate of any hypothesis, for each utterance: (batch, at most n * beam)."""
        wanted = candidates.new_zeros(self.batch_size, self.vocab_size)
        wanted.scatter_(1, candidates.reshape(self.batch_size, -1), 1)
        # utterances with fewer than the most are filled up with others
        return wanted.topk(int(wanted.sum(1).max()), dim=1).indices

    def _offsets(self, beam):
        return torch.arange(self.batch_size, device=self.probs.device).unsqueeze(1) * beam

    def _utterance(self, beam):
        return self._repeat(torch.arange(self.batch_size, device=self.probs.device), beam)

    @staticmethod
    def _repeat(tensor, beam):
        return tensor.repeat_interleave(beam, dim=0)


def _carry(entering, log_probs):
    """y_t = p_t (y_{t-1} + x_{t-1}) in logarithms, time last: paths that come in and stay.

    With the running sum S of log p, log y_t = S_t + logcumsumexp_t(log x - S before), which float64 can afford.
    """
    total = log_probs.cumsum(-1)
    return total + torch.logcumsumexp(entering - (total - log_probs), dim=-1)


# SpeechBrain's ScorerBuilder reads the name of the class: it has to be this one.
class CTCScorer(scorer.CTCScorer):
    """CTC scores for SpeechBrain's beam search, in the place of SpeechBrain's class of this name.

    As a full scorer it scores the whole vocabulary exactly; as a partial one, the candidates that it is given,
    at the price of the columns that some hypothesis asks for.

    Arguments
    ---------
    ctc_fc : torch.nn.Module
        Layer from encoder states to the vocabulary.
    blank_index, eos_index : int
        As in the targets; they differ.

    Raises
    ------
    ValueError
        If blank and the end of the sentence are the same output.

    Example
    -------
    >>> import torch
    >>> from speechbrain.decoders.scorer import ScorerBuilder
    >>> from speechbrain.nnet.linear import Linear
    >>> ctc = CTCScorer(Linear(input_size=16, n_neurons=10), blank_index=0, eos_index=2)
    >>> builder = ScorerBuilder(full_scorers=[ctc], weights={"ctc": 0.4})
    >>> memory = builder.reset_scorer_mem(torch.randn(2, 7, 16), torch.tensor([7, 5]))
    >>> ctc.score(torch.tensor([1, 1]), memory["ctc"], None, None)[0].shape
    torch.Size([2, 10])
    """

    def __init__(self, ctc_fc, blank_index, eos_index):
        if blank_index == eos_index:
            raise ValueError(f"blank_index and eos_index must differ; both are {blank_index}")
        super().__init__(ctc_fc, blank_index, eos_index)

    def reset_mem(self, x, enc_lens):
        """Begin a batch: x (batch, time, d_model) encoder states, enc_lens (batch,) their numbers of frames."""
        weight = next(self.ctc_fc.parameters())
        # whatever the encoder ran in, the scores of long prefixes add up many frames
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            log_probs = at_least_float32(self.ctc_fc(x.to(weight.dtype))).log_softmax(-1)
        self.ctc_score = self.prefix_scores(log_probs)(
            log_probs, enc_lens, self.blank_index, self.eos_index
        )

    def permute_mem(self, memory, index):
        """The state of the prefixes that the search has kept: index (batch, beam) among (beam * vocabulary)."""
        return self.ctc_score.permute_mem(memory, index)

    def prefix_scores(self, log_probs):
        """The class that scores prefixes over these (batch, time, vocabulary): the kernel's where it can."""
        # it builds on the class above
        from modules.asr.decoding.prefix_kernel import KernelPrefixScore, takes_prefixes

        return KernelPrefixScore if takes_prefixes(log_probs) else CTCPrefixScore

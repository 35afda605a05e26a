"""CTC prefix scores with the recursion over frames in one compiled call (``modules/ssm/cpu/prefixes.c``).

The plain way, and the reference, is :class:`modules.asr.decoding.ctc_scorer.CTCPrefixScore`.
"""

from typing import NamedTuple

import torch

from modules.asr.decoding.ctc_scorer import CTCPrefixScore
from modules.ssm.backends import forced_backend
from modules.ssm.cpu import build
from modules.ssm.cpu.tensors import call

# a state's numbers lie as x 2^(-512 scale), so that the least probable path has its place in a double
_LOG_UP = 512 * 0.6931471805599453


class PrefixState(NamedTuple):
    """Forward variables (hypotheses, time + 1): of paths that end in a blank, of all paths, and their scale.

    ``weights`` (hypotheses, time) are all paths before each frame over the most probable of them. ``told``
    (hypotheses, 4) holds logarithms: of the prefix, of that most probable one, of the last token again, of the end.
    ``window`` (2,) holds the first frame with a weight that is felt, and the one behind the last.
    """

    blank: torch.Tensor
    any: torch.Tensor
    scale: torch.Tensor
    weights: torch.Tensor
    told: torch.Tensor
    window: torch.Tensor


class KernelPrefixScore(CTCPrefixScore):
    """:class:`CTCPrefixScore` by the compiled kernel, for probabilities in the processor's memory.

    It takes that class's arguments; :func:`takes_prefixes` tells where it may stand in.

    Example
    -------
    >>> log_probs = torch.log(torch.tensor([[[0.5, 0.1, 0.4], [0.3, 0.1, 0.6]]]))
    >>> prefixes = KernelPrefixScore(log_probs, torch.tensor([2]), blank_index=0, eos_index=1)
    >>> scores, memory = prefixes.forward_step(torch.tensor([1]), None)
    >>> scores, _ = prefixes.forward_step(torch.tensor([2]), prefixes.permute_mem(memory, torch.tensor([[2]])))
    >>> scores.exp()  # after the token 2 nothing: (0.5 * 0.6 + 0.4 * 0.3 + 0.4 * 0.6) / 0.7
    tensor([[0.0000, 0.9429, 0.0000]])
    """

    @torch.no_grad()
    def forward_step(self, inp_tokens, states, candidates=None, attn=None):
        """Score tokens after each prefix; see :meth:`CTCPrefixScore.forward_step`."""
        if states is None:
            scores, (state, tokens) = super().forward_step(inp_tokens, None, candidates, attn)
            return scores, (_from_logs(*state.unbind(1)), tokens)
        beam = len(inp_tokens) // self.batch_size
        prefix, peak, again, at_end = states.told.unbind(1)
        first, end = states.window.tolist()
        if end <= first:
            first = end = 0
        weights = states.weights.view(self.batch_size, beam, -1)[:, :, first:end]
        if candidates is None:
            scores = (
                torch.bmm(weights, self._frames_first[:, first:end]).log_().to(self.log_probs.dtype)
            )
            scores = scores.view(-1, self.vocab_size)
        else:
            columns = self._columns(candidates)
            probs = self.probs[:, :, first:end].gather(
                1, columns.unsqueeze(2).expand(-1, -1, end - first)
            )
            known = torch.bmm(weights, probs.transpose(1, 2)).log_().to(self.log_probs.dtype)
            scores = known.new_full((self.batch_size, beam, self.vocab_size), -torch.inf)
            scores.scatter_(2, columns.unsqueeze(1).expand_as(known), known)
            scores = scores.view(-1, self.vocab_size)
        ends = torch.stack((peak, again, at_end)).sub_(prefix).to(scores.dtype).unsqueeze(-1)
        scores.add_(ends[0]).scatter_(1, inp_tokens.unsqueeze(1), ends[1])
        if candidates is not None:
            wanted = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, candidates, True)
            scores.masked_fill_(~wanted, -torch.inf)
        scores[:, self.eos_index] = ends[2].squeeze(1)
        scores[:, self.blank_index] = -torch.inf
        return scores.clamp_(min=self.minus_inf), (states, inp_tokens)

    @torch.no_grad()
    def permute_mem(self, memory, index):
        """The state of the prefixes that the search has kept; see :meth:`CTCPrefixScore.permute_mem`."""
        state, last_tokens = memory
        beam, time = index.shape[1], self.probs.shape[2]
        parents = torch.div(index, self.vocab_size, rounding_mode="floor")
        parents = (parents + self._offsets(beam)).view(-1)
        tokens, count = (index % self.vocab_size).view(-1), index.numel()
        if not (0 <= int(index.min()) and int(parents.max()) < len(state.any)):
            raise IndexError(f"no prefix has this index: {int(index.min())} to {int(index.max())}")
        last_tokens = last_tokens.contiguous()
        new = PrefixState(
            *(one.new_empty(count, time + 1) for one in state[:3]),
            self.probs.new_empty(count, time),
            self.probs.new_empty(count, 4),
            self.lengths.new_empty(2),
        )
        call(
            "prefixes_advance",
            count,
            beam,
            time,
            self.vocab_size,
            self.blank_index,
            *(one.data_ptr() for one in (self.probs, self.lengths, parents, tokens, last_tokens)),
            *(one.data_ptr() for one in (*state[:3], *new)),
        )
        new.told[:, 0].clamp_(min=self.minus_inf)
        return new

    def __init__(self, log_probs, lengths, blank_index, eos_index):
        super().__init__(log_probs, lengths, blank_index, eos_index)
        self.lengths = self.lengths.contiguous()
        # frames past the end count for nothing: the kernel does not read them, the product has 0 there
        self._frames_first = self.probs.transpose(1, 2)


def takes_prefixes(log_probs):
    """Whether :class:`KernelPrefixScore` may stand in for :class:`CTCPrefixScore` over (batch, time, vocabulary)."""
    return (
        log_probs.device.type == "cpu"
        and forced_backend() in (None, "cpu")
        and build.refusal() is None
    )


def _from_logs(token, blank):
    """A state from the logarithms of paths that end in a token and in a blank; nothing was asked of it yet."""
    total = torch.logaddexp(token, blank)
    scale = torch.where(total.isfinite(), -total / _LOG_UP, 0.0).floor_().clamp_(min=0)
    shift = scale * _LOG_UP
    nothing = total.new_empty(0)
    return PrefixState(
        (blank + shift).exp_(), (total + shift).exp_(), scale.long(), nothing, nothing, nothing
    )

"""A Mamba language model as a scorer of SpeechBrain's beam search, with its state carried along.

SpeechBrain's ``TransformerLMScorer`` runs its model over the whole prefix at every step; here every
hypothesis keeps the state of its own prefix, and a step costs the same however long that is.
"""

import torch
from speechbrain.decoders.scorer import BaseScorerInterface, ScorerBuilder

from modules.asr.mamba_decoder import reorder_state
from modules.ssm.precision import at_least_float32


class MambaLMScorer(BaseScorerInterface):
    """Log-probabilities of the next token by a :class:`modules.asr.lm.MambaLM`.

    A full scorer; its name in the weights of :class:`LMScorerBuilder` is ``mambalm``.

    Arguments
    ---------
    language_model : modules.asr.lm.MambaLM
        It is put into evaluation mode.
    temperature : float
        Divides the logits; over 1 the probabilities are softer.

    Raises
    ------
    ValueError
        If the temperature is not over 0.

    Example
    -------
    >>> import torch
    >>> from modules.asr.decoding.lm_scorer import LMScorerBuilder, MambaLMScorer
    >>> from modules.asr.lm import MambaLM
    >>> scorer = MambaLMScorer(MambaLM(vocab=20, d_model=16, n_layers=1))
    >>> builder = LMScorerBuilder(full_scorers=[scorer], weights={"mambalm": 0.6})
    >>> log_probs, memory = scorer.score(torch.tensor([1, 1]), None, None, None)
    >>> memory = scorer.permute_mem(memory, torch.tensor([1, 0]))
    >>> log_probs.shape
    torch.Size([2, 20])
    """

    def __init__(self, language_model, temperature=1.0):
        if not temperature > 0:
            raise ValueError(
                f"the language model's temperature must be over 0; got {temperature}: set temperature_lm"
            )
        self.lm = language_model.eval()
        self.temperature = temperature

    @torch.no_grad()
    def score(self, inp_tokens, memory, candidates, attn):
        """Score every token of the vocabulary as the one after ``inp_tokens``.

        Arguments
        ---------
        inp_tokens : torch.Tensor
            (hypotheses,): the last token of each.
        memory : list of MambaState or None
            What the step before returned, permuted; none before the first.
        candidates, attn
            Not used.

        Returns
        -------
        (torch.Tensor, list of MambaState)
            (hypotheses, vocab) log-probabilities, float32 at least, and the state.
        """
        del candidates, attn
        if memory is None:
            memory = self.lm.initial_state(len(inp_tokens))
        logits, memory = self.lm.step(inp_tokens, memory)
        return (at_least_float32(logits) / self.temperature).log_softmax(dim=-1), memory

    def permute_mem(self, memory, index):
        """The states of the hypotheses that go on: those at ``index`` (hypotheses,)."""
        return reorder_state(memory, index)

    def reset_mem(self, x, enc_lens):
        """Begin a search: put the model where the encoded speech ``x`` is; there is no state yet."""
        del enc_lens
        self.lm.to(x.device)


class LMScorerBuilder(ScorerBuilder):
    """SpeechBrain's ``ScorerBuilder``, which knows its own scorers' names only, with ``mambalm`` added.

    It takes the arguments of :class:`speechbrain.decoders.scorer.ScorerBuilder`.
    """

    def _validate_scorer(self, scorer_names):
        super()._validate_scorer([*scorer_names, "mambalm"])

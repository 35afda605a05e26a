"""Language models of a live search: each hypothesis carries the state of its own text.

A node stands for a text. Nodes are plain values, so that a search with its nodes may be pickled.
"""

import importlib
import os

import torch

from modules.asr.lm import MambaLM
from modules.asr.mamba_decoder import reorder_state
from modules.asr.streaming_network import fingerprint
from modules.ssm.precision import at_least_float32


class MambaNode:
    """A text and the Mamba language model's state behind it; computed when a token's score is first wanted.

    Arguments
    ---------
    token : int
        The text's last token.
    before : list of MambaState
        States before that token, of a batch of one.
    """

    __slots__ = ("before", "log_probs", "state", "token")

    def __init__(self, token, before):
        self.token, self.before, self.state, self.log_probs = token, before, None, None


class MambaFusion:
    """Shallow fusion with a Mamba language model, token by token.

    Source: Gulcehre et al., "On using monolingual corpora in neural machine translation" (arXiv 1503.03535).

    Arguments
    ---------
    lm : modules.asr.lm.MambaLM
        In evaluation mode, of the recogniser's tokens.
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    weight : float
        Weight of the logarithm of a token's probability, 0 or more.

    Raises
    ------
    ValueError
        If the model is of another kind, or the weight is under 0.
    """

    def __init__(self, lm, tokenizer, weight):
        if not isinstance(lm, MambaLM):
            raise ValueError(  # noqa: TRY004 - a run's parts are values to its user
                f"a live search carries the state of a Mamba language model, of train_LM.py; a {type(lm).__name__} "
                "would read all text again"
            )
        if not weight >= 0:
            raise ValueError(f"lm_weight must be 0 or more; got {weight!r}")
        self.lm, self.weight = lm, weight
        self.start_token, self.end_token = tokenizer.control

    def told(self):
        """What tells one from another, in the fingerprint of contexts."""
        return ("mamba", self.weight, fingerprint("", self.lm.state_dict()))

    def start(self):
        """The node of no text."""
        return MambaNode(self.start_token, self.lm.initial_state(1))

    def after(self, node, token):
        """The node of a text and a token more."""
        return MambaNode(token, node.state)

    @torch.no_grad()
    def prepare(self, nodes):
        """Compute what :meth:`score` and :meth:`after` read, of all nodes at once."""
        nodes = list({id(node): node for node in nodes if node.log_probs is None}.values())
        if not nodes:
            return
        device = self.lm.embedding.weight.device
        states = [
            type(one[0])(*(torch.cat(parts) for parts in zip(*one, strict=True)))
            for one in zip(*(node.before for node in nodes), strict=True)
        ]
        tokens = torch.tensor([node.token for node in nodes], device=device)
        logits, states = self.lm.step(tokens, states)
        log_probs = at_least_float32(logits).log_softmax(-1).cpu()
        for index, node in enumerate(nodes):
            # clones, since a view would carry all hypotheses' states along
            node.state = reorder_state(states, torch.tensor([index], device=device))
            node.log_probs, node.before = log_probs[index].numpy().copy(), None

    def score(self, node, token):
        """What a token adds to a hypothesis; the node is prepared."""
        return self.weight * float(node.log_probs[token])

    def end(self, node):
        """What the end of the sentence adds."""
        return self.score(node, self.end_token)


class NgramFusion:
    """Shallow fusion with a KenLM n-gram of words, scored when a word ends.

    A node holds the words that the n-gram still reads, and the tokens of the word that goes on. A word scores
    ``weight * log p + word_bonus``, and one that the n-gram does not know 10 less, as in SpeechBrain's search.

    Arguments
    ---------
    path : str or Path
        A KenLM file, `.arpa` or `.bin`.
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    weight : float
        Weight of the logarithm of a word's probability.
    word_bonus : float
        What each word adds.

    Raises
    ------
    RuntimeError
        If the package kenlm is not installed.
    FileNotFoundError
        If the file cannot be read.
    """

    _UNKNOWN = -10.0

    def __init__(self, path, tokenizer, weight=0.5, word_bonus=1.5):
        try:
            self._kenlm = importlib.import_module("kenlm")
        except ImportError as error:
            raise RuntimeError("ngram_lm needs the package kenlm: pip install kenlm") from error
        try:
            self.model = self._kenlm.Model(str(path))
        except OSError as error:
            raise FileNotFoundError(
                f"ngram_lm {path} cannot be read; give a KenLM file ({error})"
            ) from error
        self.tokenizer, self.weight, self.word_bonus = tokenizer, weight, word_bonus
        # tells n-grams apart: to read all of one would take long
        self._size = os.path.getsize(path)
        self._starts = [label.startswith("\u2581") for label in tokenizer.labels()]

    def told(self):
        """What tells one from another, in the fingerprint of contexts."""
        return ("ngram", self.weight, self.word_bonus, self.model.order, self._size)

    def start(self):
        """The node of no text."""
        return (("<s>",), ())

    def after(self, node, token):
        """The node of a text and a token more."""
        words, tokens = node
        if not self._starts[token]:
            return (words, (*tokens, token))
        if word := self._word(tokens):
            words = (*words, word)[-max(1, self.model.order - 1) :]
        return (words, (token,))

    def prepare(self, nodes):
        """Nothing to compute ahead."""

    def score(self, node, token):
        """What a token adds: the score of the word that it ends, if it begins one."""
        return self._score_word(node) if self._starts[token] else 0.0

    def end(self, node):
        """What the end of the sentence adds: the last word's score, and the end's."""
        words, tokens = node
        word = self._word(tokens)
        return self._score_word(node) + self.weight * self._log_prob(
            (*words, word) if word else words, "</s>"
        )

    def _word(self, tokens):
        return self.tokenizer.decode(tokens).strip() if tokens else ""

    def _score_word(self, node):
        words, tokens = node
        word = self._word(tokens)
        if not word:
            return 0.0
        unknown = 0.0 if word in self.model else self._UNKNOWN
        return self.weight * self._log_prob(words, word) + self.word_bonus + unknown

    def _log_prob(self, words, word):
        """Natural logarithm of a word's probability behind others."""
        state, out = self._kenlm.State(), self._kenlm.State()
        if words[0] == "<s>":
            self.model.BeginSentenceWrite(state)
            words = words[1:]
        else:
            self.model.NullContextWrite(state)
        for one in words:
            self.model.BaseScore(state, one, out)
            state, out = out, state
        # log10 to log
        return self.model.BaseScore(state, word, out) * 2.302585092994046

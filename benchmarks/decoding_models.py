"""What ``decoding.py`` measures: decoders, language models and scorers of the published sizes, with random weights.

Sizes are as in Mamba-ASR, hparams/S2S/conmambamamba_small.yaml and conmamba_small.yaml. The
encoder does not take part: the models here have one layer of it, and its output is random.
"""

from dataclasses import dataclass
from functools import partial

import torch
from speechbrain.decoders import S2STransformerBeamSearcher
from speechbrain.decoders import scorer as speechbrain_scorer
from speechbrain.lobes.models.transformer.TransformerLM import TransformerLM
from speechbrain.nnet.linear import Linear
from torch import nn

from modules.asr.decoding.beam_search import MambaBeamSearcher, TransformerBeamSearcher
from modules.asr.decoding.ctc_scorer import CTCScorer
from modules.asr.decoding.lm_scorer import LMScorerBuilder, MambaLMScorer
from modules.asr.lm import MambaLM
from modules.asr.transformer import S2STransformer

START, END, BLANK = 1, 2, 0
STATEFUL = "Mamba, state carried"
STATELESS = "Mamba, prefix re-run"
PUBLISHED_STATELESS = "Mamba, prefix re-run by SpeechBrain's searcher"
TRANSFORMER = "Transformer, prefix re-run"
# decoder, and class; SpeechBrain's own computes the probabilities at all positions of the prefix
SEARCHERS = {
    STATEFUL: ("mamba", MambaBeamSearcher),
    STATELESS: ("mamba", TransformerBeamSearcher),
    PUBLISHED_STATELESS: ("mamba", S2STransformerBeamSearcher),
    TRANSFORMER: ("transformer", TransformerBeamSearcher),
}
EXACT, PRUNED = "CTC exact", "CTC pruned"
THEIR_FULL, THEIR_PRUNED = "CTC, SpeechBrain's full", "CTC, SpeechBrain's pruned"
CTC = {EXACT: (CTCScorer, False), PRUNED: (CTCScorer, True)}
CTC[THEIR_PRUNED] = (speechbrain_scorer.CTCScorer, True)
CTC[THEIR_FULL] = (speechbrain_scorer.CTCScorer, False)
TRANSFORMER_LM, MAMBA_LM = "TransformerLM", "MambaLM"
# as published: weights, and how many candidates a hypothesis a pruned scorer looks at, over the beam
CTC_WEIGHT, LM_WEIGHT, CANDIDATES = 0.4, 0.6, 1.5
# scores of what is compared in speed may differ by rounding only
MOST_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class LanguageModelSizes:
    """Channels, layers, and for the Transformer its heads and feed-forward channels."""

    d_model: int = 384
    layers: int = 6
    heads: int = 6
    d_ffn: int = 1536

    def __str__(self):
        return f"{self.layers} layers of {self.d_model}"


@dataclass(frozen=True)
class Sizes:
    """The network, the search, and the points at which they are measured."""

    d_model: int = 144
    heads: int = 4
    layers: int = 4
    d_ffn: int = 1024
    vocabulary: int = 5000
    beam: int = 66
    frames: int = 250  # 10 s of audio
    steps: int = 60
    flat_steps: tuple = (5, 20, 50, 100, 200, 500)
    # beyond, the probabilities of all positions that SpeechBrain's searcher computes take gigabytes
    last_stateless_step: int = 100
    vocabularies: tuple = (500, 5000)
    scorer_steps: int = 3
    # CTC scorers whose memory is measured, each in a fresh process at the last of the vocabularies
    weighed: tuple = tuple(CTC)
    lm: LanguageModelSizes = LanguageModelSizes()
    # the language model published with SpeechBrain's LibriSpeech recipes
    large_lm: LanguageModelSizes = LanguageModelSizes(768, 12, 12, 3072)
    lm_steps: tuple = (1, 20, 60)


PUBLISHED = Sizes()
_TINY = LanguageModelSizes(16, 1, 2, 32)
QUICK = Sizes(
    d_model=16,
    heads=2,
    layers=1,
    d_ffn=32,
    vocabulary=40,
    beam=4,
    frames=20,
    steps=5,
    flat_steps=(2, 4, 8),
    last_stateless_step=4,
    vocabularies=(20, 40),
    scorer_steps=2,
    weighed=(EXACT,),
    lm=_TINY,
    large_lm=_TINY,
    lm_steps=(1, 3),
)


def network(decoder, sizes):
    """Transformer with that decoder, and the layer from its output to tokens, in evaluation mode.

    Arguments
    ---------
    decoder : str
        ``mamba`` or ``transformer``.
    sizes : Sizes

    Returns
    -------
    list of torch.nn.Module
    """
    torch.manual_seed(0)
    transformer = S2STransformer(
        tgt_vocab=sizes.vocabulary,
        input_size=640,
        d_model=sizes.d_model,
        nhead=sizes.heads,
        num_encoder_layers=1,
        num_decoder_layers=sizes.layers,
        d_ffn=sizes.d_ffn,
        dropout=0.1,
        activation=nn.GELU,
        encoder_module="conmamba",
        decoder_module=decoder,
        mamba_config={"d_state": 16, "expand": 2, "d_conv": 4, "bidirectional": True},
    )
    seq_lin = Linear(input_size=sizes.d_model, n_neurons=sizes.vocabulary)
    return [transformer.eval(), seq_lin.eval()]


def searcher(name, sizes, modules, steps, builder=None):
    """A beam searcher that runs for just so many steps on :func:`memory`.

    Arguments
    ---------
    name : str
        A key of :data:`SEARCHERS`.
    sizes : Sizes
    modules : list of torch.nn.Module
        From :func:`network`.
    steps : int
    builder : speechbrain.decoders.scorer.ScorerBuilder, optional
    """
    ratio = (steps + 0.5) / sizes.frames
    return SEARCHERS[name][1](
        modules=modules,
        bos_index=START,
        eos_index=END,
        min_decode_ratio=ratio,
        max_decode_ratio=ratio,
        beam_size=sizes.beam,
        using_eos_threshold=False,
        scorer=builder,
    )


def memory(sizes):
    """What an encoder would give for one utterance: random (1, frames, d_model)."""
    return torch.randn(1, sizes.frames, sizes.d_model, generator=torch.Generator().manual_seed(1))


def random_tokens(sizes, steps):
    """For every step the tokens read (beam,) and the hypotheses kept (beam,)."""
    generator = torch.Generator().manual_seed(3)
    draw = partial(torch.randint, size=(steps, sizes.beam), generator=generator)
    return list(zip(draw(END + 1, sizes.vocabulary), draw(0, sizes.beam), strict=True))


def ctc_scorer(kind, d_model, vocabulary):
    """A CTC scorer of that kind, a key of :data:`CTC`, on an output layer that is the same for all.

    Its probabilities are uneven, as a trained layer's are: the best of 5,000 has a third in the median.
    """
    layer = Linear(input_size=d_model, n_neurons=vocabulary)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        layer.w.weight.copy_(torch.randn(vocabulary, d_model, generator=generator))
        layer.w.weight.mul_(4 / d_model**0.5)
        layer.w.bias.zero_()
    return CTC[kind][0](layer.eval(), blank_index=BLANK, eos_index=END)


def language_model(kind, sizes, vocabulary):
    """A language model in evaluation mode: :data:`TRANSFORMER_LM` or :data:`MAMBA_LM`."""
    torch.manual_seed(0)
    if kind == MAMBA_LM:
        return MambaLM(vocabulary, d_model=sizes.d_model, n_layers=sizes.layers).eval()
    return TransformerLM(
        vocabulary,
        d_model=sizes.d_model,
        nhead=sizes.heads,
        num_encoder_layers=sizes.layers,
        d_ffn=sizes.d_ffn,
        activation=nn.GELU,
    ).eval()


def language_model_scorer(model):
    """The scorer that goes with a language model."""
    if isinstance(model, MambaLM):
        return MambaLMScorer(model)
    return speechbrain_scorer.TransformerLMScorer(model)


def builder(ctc, sizes, model=None):
    """SpeechBrain's collection of scorers: CTC of a kind, and a language model if one is given."""
    scorer, pruned = ctc_scorer(ctc, sizes.d_model, sizes.vocabulary), CTC[ctc][1]
    weights = {"ctc": CTC_WEIGHT}
    full, partial = ([], [scorer]) if pruned else ([scorer], [])
    if model is not None:
        full.append(language_model_scorer(model))
        weights["mambalm" if isinstance(model, MambaLM) else "transformerlm"] = LM_WEIGHT
    return LMScorerBuilder(weights, full, partial, scorer_beam_scale=CANDIDATES)

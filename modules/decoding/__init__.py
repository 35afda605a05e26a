"""Decoding with a trained sequence-to-sequence recogniser: beam search, and scorers that join in."""

from modules.decoding.beam_search import MambaBeamSearcher, TransformerBeamSearcher
from modules.decoding.ctc_scorer import CTCScorer

__all__ = ["CTCScorer", "MambaBeamSearcher", "TransformerBeamSearcher"]

"""Decoding with a trained sequence-to-sequence recogniser: beam search, and scorers that join in."""

from modules.asr.decoding.beam_search import MambaBeamSearcher, TransformerBeamSearcher
from modules.asr.decoding.ctc_scorer import CTCScorer

__all__ = ["CTCScorer", "MambaBeamSearcher", "TransformerBeamSearcher"]

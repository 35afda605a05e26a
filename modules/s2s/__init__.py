"""Sequence-to-sequence recognisers: an encoder, a decoder over tokens, and CTC beside it.

Source: Jiang et al., "Speech Slytherin" (arXiv 2407.09732, section 2.3) and its published recipes.
"""

from modules.s2s.recognizer import S2SOutput, S2SRecognizer
from modules.s2s.transformer import DecodingState, S2STransformer

__all__ = ["DecodingState", "S2SOutput", "S2SRecognizer", "S2STransformer"]

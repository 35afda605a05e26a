"""How to cite a run: this project, and the works whose models it has. CITATION.cff says the same with more fields."""

LICENCE = "MIT for the code; the licence of a model's training data decides on the use of the model"
PROJECT = "the mamba-speech authors: Mamba recipes for SpeechBrain"
_MAMBA = "Gu, Dao: Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023, https://arxiv.org/abs/2312.00752"
_SLYTHERIN = (
    "Jiang, Li, Florea, Han, Mesgarani: Speech Slytherin: Examining the Performance and Efficiency of Mamba for "
    "Speech Separation, Recognition, and Synthesis, 2024, https://arxiv.org/abs/2407.09732"
)
_DUAL_PATH = (
    "Jiang, Han, Mesgarani: Dual-path Mamba: Short and Long-term Bidirectional Selective Structured State Space "
    "Models for Speech Separation, 2024, https://arxiv.org/abs/2403.18257"
)
_KEYWORDS = (
    "Makarov, Levi: Mamba-based Network Design for Keyword Spotting, 2024, "
    "https://github.com/Zig302/KWS-Mamba-Project"
)
_MIXER = (
    "Heo, Shin, Lim, Koo, Kim, Son, Yu: SV-Mixer: Replacing the Transformer Encoder with Lightweight MLPs for "
    "Self-Supervised Model Compression in Speaker Verification, 2025, https://arxiv.org/abs/2509.14136"
)
WORKS = {
    "recognition": (_SLYTHERIN, _MAMBA),
    "streaming": (_SLYTHERIN, _MAMBA),
    "language model": (_SLYTHERIN, _MAMBA),
    "separation": (_SLYTHERIN, _DUAL_PATH, _MAMBA),
    "keywords": (_KEYWORDS, _MAMBA),
    "speaker": (_MIXER, _MAMBA),
}


def citations(task):
    """What a paper that uses a run of a task should cite, a sentence a work.

    Example
    -------
    >>> citations("keywords")[0]
    'the mamba-speech authors: Mamba recipes for SpeechBrain'
    """
    return [PROJECT, *WORKS[task]]

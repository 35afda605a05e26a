"""Small speech corpora spoken by eSpeak NG, for trying recipes where no recorded speech is at hand.

The package has one module for each thing that a corpus is made of: `engine` and `synthesiser` turn
a voice and a text into a waveform, `voices` holds the speaker tables, `texts` the grammars,
`acoustics` the trimming, reverberation and noise. `corpus` plans and speaks in parallel, and
`librispeech_layout` writes; a new layout is one more module like the last.
"""

from data_prep.spoken.librispeech_layout import generate_librispeech

__all__ = ["generate_librispeech"]

"""Small speech corpora spoken by eSpeak NG, for trying recipes where no recorded speech is at hand.

The package has one module for each thing that a corpus is made of: `engine` and `synthesiser` turn
a voice and a text into a waveform, `voices` holds the speaker tables, `texts` the grammars,
`acoustics` the trimming, reverberation and noise. `corpus` plans and speaks in parallel, and
the modules `*_layout` write: sentences as LibriSpeech, words as Speech Commands with the help of
`keywords` and `backgrounds`, and a long recording with keywords among sentences.
"""

from data_prep.spoken.librispeech_layout import generate_librispeech
from data_prep.spoken.speechcommands_layout import generate_speechcommands
from data_prep.spoken.stream_layout import generate_stream

__all__ = ["generate_librispeech", "generate_speechcommands", "generate_stream"]

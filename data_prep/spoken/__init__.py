"""Small speech corpora spoken by eSpeak NG, for trying recipes where no recorded speech is at hand.

The package has one module for each thing that a corpus is made of: `engine` and `synthesiser` turn
a voice and a text into a waveform, `voices` holds the speaker tables, `texts` the grammars,
`acoustics` the trimming, reverberation and noise. `corpus` plans and speaks in parallel, and
the modules `*_layout` write: sentences as LibriSpeech, words as Speech Commands with the help of
`keywords` and `backgrounds`, a long recording with keywords among sentences, and many speakers in
several sessions as VoxCeleb with the help of `people`.
"""

from data_prep.spoken.librispeech_layout import generate_librispeech
from data_prep.spoken.speechcommands_layout import generate_speechcommands
from data_prep.spoken.stream_layout import generate_stream
from data_prep.spoken.voxceleb_layout import generate_voxceleb

__all__ = [
    "generate_librispeech",
    "generate_speechcommands",
    "generate_stream",
    "generate_voxceleb",
]

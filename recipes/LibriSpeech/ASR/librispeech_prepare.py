"""The published name of `data_prep.librispeech_prepare`, for `from librispeech_prepare import prepare_librispeech`.

Source: xi-j/Mamba-ASR and SpeechBrain, whose scripts import it from the recipe's folder.
"""

from data_prep.librispeech_prepare import prepare_librispeech

__all__ = ["prepare_librispeech"]

"""The published name `kws_mamba`, which says what to write here; see docs/coming_from.md.

Only a clone answers to it: no wheel holds this file. Source of the name: Zig302/KWS-Mamba-Project.
"""

# with its own name, so that `python -m kws_mamba.train` prints the sentence and no traceback
raise ImportError(
    "kws_mamba is modules.kws here: from modules.kws.mamba import mamba_mel_medium; to train, go to "
    "recipes/SpeechCommands/KWS and run python train.py hparams/mamba_mel_medium.yaml --data_folder "
    "speech_commands_v0.02 (docs/coming_from.md has the other names); to measure, mamba-speech benchmark RUN",
    name="kws_mamba",
)

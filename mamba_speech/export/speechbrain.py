"""The format `speechbrain`: a folder that SpeechBrain's own inference classes load."""

import mamba_speech.kws.export
import mamba_speech.separation.export
import mamba_speech.speaker.export
from mamba_speech.run_task import KEYWORDS, SEPARATION, SPEAKER, task_of

_WRITERS = {
    KEYWORDS: mamba_speech.kws.export,
    SEPARATION: mamba_speech.separation.export,
    SPEAKER: mamba_speech.speaker.export,
}


def export(run_folder, folder, options):
    """Write a run into an empty folder; see :func:`mamba_speech.export.export_run`."""
    _WRITERS[task_of(run_folder)].save_for_speechbrain(run_folder, folder)

"""A trained speaker model for SpeechBrain's ``SpeakerRecognition``."""

from mamba_speech.export.content import Content, copy_keys, dump
from mamba_speech.files import copy_file
from mamba_speech.run import read_options
from mamba_speech.speaker.verifier import SpeakerVerifier

_THRESHOLD = "threshold.json"
# what SpeakerRecognition asks of a YAML
_INTERFACE = """\
embedding_model: !new:modules.speaker.windows.RecordingEmbedding
    model: !ref <model>
compute_features: !new:modules.speaker.windows.Unchanged
mean_var_norm: !new:modules.speaker.windows.Unchanged
mean_var_norm_emb: !new:modules.speaker.windows.Unchanged
audio_normalizer: !new:speechbrain.dataio.preprocess.AudioNormalizer
    sample_rate: !ref <sample_rate>
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>
"""


def content_of(run_folder):
    """The content of a folder for SpeechBrain.

    ``verify_batch`` and ``verify_files`` give the scores of
    :meth:`mamba_speech.speaker.verifier.SpeakerVerifier.verify`. They decide by the ``threshold`` that they are
    given, 0.25 by default; the run's stands in the YAML as ``threshold``.

    Arguments
    ---------
    run_folder : str or Path

    Returns
    -------
    mamba_speech.export.content.Content

    Raises
    ------
    FileNotFoundError, ValueError
        As :meth:`mamba_speech.speaker.verifier.SpeakerVerifier.load`.
    """
    verifier = SpeakerVerifier.load(run_folder, "cpu")
    limit = None if verifier.threshold is None else verifier.threshold.value
    plain = {
        "sample_rate": verifier.sample_rate,
        "threshold": limit,
        "threshold_file": _THRESHOLD,
    }
    writers = {}
    if limit is not None:
        source = read_options(run_folder, ["threshold_file"])["threshold_file"]
        writers[_THRESHOLD] = lambda path: copy_file(source, path)
    return Content(
        interface="SpeakerRecognition",
        options=dump(plain) + copy_keys(run_folder, ("model",)) + _INTERFACE,
        networks={"model": verifier.model},
        writers=writers,
        limits=[
            "SpeechBrain decides by the `threshold` that a call gives, 0.25 by default; give `hparams.threshold`.",
            "SpeechBrain refuses no silence.",
            "SpeechBrain's `verify_files` takes two files of one name in two folders for one file.",
        ],
    )

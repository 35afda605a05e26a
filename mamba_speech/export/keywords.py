"""A trained keyword spotter for SpeechBrain's ``EncoderClassifier``."""

from speechbrain.dataio.encoder import CategoricalEncoder

from mamba_speech.export.content import Content, copy_keys, dump
from mamba_speech.files import write_json
from mamba_speech.kws.spotter import KeywordSpotter

_NETWORKS = ("compute_features", "model", "clip_seconds", "pad_clips", "causal", "fidelity")
_LABELS, _ENCODER = "labels.json", "label_encoder.txt"
# what EncoderClassifier asks of a YAML
_INTERFACE = """\
embedding_model: !new:modules.kws.classifier.WaveformClassifier
    compute_features: !ref <compute_features>
    model: !ref <model>
    window: {window}
features: !new:modules.kws.classifier.Unchanged
mean_var_norm: !new:modules.kws.classifier.Unchanged
classifier: !new:torch.nn.LogSoftmax
    dim: -1
modules:
    compute_features: !ref <features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
"""


def content_of(run_folder):
    """The content of a folder for SpeechBrain.

    ``classify_batch`` and ``classify_file`` give words and the logarithms of the probabilities, see
    :meth:`mamba_speech.kws.spotter.KeywordSpotter.class_probabilities`. The embedding that ``encode_batch`` gives is
    the logits.

    Arguments
    ---------
    run_folder : str or Path

    Returns
    -------
    mamba_speech.export.content.Content

    Raises
    ------
    FileNotFoundError, ValueError
        As :class:`mamba_speech.kws.spotter.KeywordSpotter`.
    """
    spotter = KeywordSpotter.load(run_folder, "cpu")
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(spotter.labels)
    encoder.expect_len(len(spotter.labels))
    plain = {"sample_rate": spotter.sample_rate, "labels_file": _LABELS}
    window = spotter.window if spotter.pad_clips else 0
    return Content(
        interface="EncoderClassifier",
        options=dump(plain) + copy_keys(run_folder, _NETWORKS) + _INTERFACE.format(window=window),
        networks={"model": spotter.model},
        loadables={"label_encoder": _ENCODER},
        writers={
            _LABELS: lambda path: write_json(path, spotter.labels),
            _ENCODER: lambda path: encoder.save(str(path)),
        },
    )

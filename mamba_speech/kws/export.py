"""A trained keyword spotter as a folder that SpeechBrain's own ``EncoderClassifier`` loads."""

from pathlib import Path

import torch
import yaml
from speechbrain.dataio.encoder import CategoricalEncoder

from mamba_speech.files import whole_file, whole_path, write_text
from mamba_speech.kws.spotter import KeywordSpotter
from mamba_speech.run import OPTIONS_FILE, check_export_folder
from modules.kws.classifier import WaveformClassifier

# what EncoderClassifier asks of a YAML; the files that it loads stand beside it under the keys' names
_ENCODER_CLASSIFIER = """\
embedding_model: !new:modules.kws.classifier.WaveformClassifier
    compute_features: !ref <features>
    model: !ref <model>
    window: {window}
compute_features: !new:modules.kws.classifier.Unchanged
mean_var_norm: !new:modules.kws.classifier.Unchanged
classifier: !new:torch.nn.LogSoftmax
    dim: -1
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        label_encoder: !ref <label_encoder>
"""


def save_for_speechbrain(run_folder, folder):
    """Write a trained run as a folder that SpeechBrain's ``EncoderClassifier.from_hparams`` loads.

    Its ``classify_batch`` and ``classify_file`` give words and the logarithms of the probabilities, see
    :meth:`mamba_speech.kws.spotter.KeywordSpotter.class_probabilities`. The embedding that
    ``encode_batch`` gives is the logits.

    Arguments
    ---------
    run_folder : str or Path
        Output folder of a run of the keyword recipe.
    folder : str or Path
        Where ``hyperparams.yaml``, ``model.ckpt`` and ``label_encoder.txt`` go; made if it is not there.

    Raises
    ------
    FileExistsError
        If the folder holds a run, or another model.
    FileNotFoundError, ValueError
        As :class:`mamba_speech.kws.spotter.KeywordSpotter`.

    Example
    -------
    Not run here, since it needs a trained run::

        save_for_speechbrain("results/mini/1", "exported")
        classifier = EncoderClassifier.from_hparams(source="exported", savedir="loaded")
        words = classifier.classify_file("yes.wav")[-1]
    """
    check_export_folder(folder, "embedding_model.ckpt")
    spotter = KeywordSpotter.load(run_folder, "cpu")
    window = spotter.window if spotter.pad_clips else 0
    text = (Path(run_folder) / OPTIONS_FILE).read_text(encoding="utf-8")
    options = yaml.compose(text, Loader=yaml.SafeLoader)
    # as the run describes them, without being built
    options.value = [one for one in options.value if one[0].value in ("compute_features", "model")]
    content = f"sample_rate: {spotter.sample_rate}\n"
    content += yaml.serialize(options).replace("compute_features:", "features:", 1)
    content += _ENCODER_CLASSIFIER.format(window=window)
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(spotter.labels)
    encoder.expect_len(len(spotter.labels))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    whole = WaveformClassifier(spotter.compute_features, spotter.model, window)
    with whole_file(folder / "embedding_model.ckpt", "wb") as file:
        torch.save(whole.state_dict(), file)
    with whole_path(folder / "label_encoder.ckpt") as temporary:
        encoder.save(str(temporary))
    # last: without it the folder is no model
    write_text(folder / "hyperparams.yaml", content)

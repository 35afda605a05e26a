"""A trained speaker model as a folder that SpeechBrain's own ``SpeakerRecognition`` loads."""

from pathlib import Path

import torch
import yaml

from mamba_speech.files import whole_file, write_text
from mamba_speech.run import OPTIONS_FILE, check_export_folder
from mamba_speech.speaker.verifier import SpeakerVerifier
from modules.speaker.windows import RecordingEmbedding

WEIGHTS_FILE = "embedding_model.ckpt"
# what SpeakerRecognition asks of a YAML; the file that it loads stands beside it under the key's name
_SPEAKER_RECOGNITION = """\
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
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
"""


def save_for_speechbrain(run_folder, folder):
    """Write a trained run as a folder that ``SpeakerRecognition.from_hparams(source=folder)`` loads.

    Its ``verify_batch`` and ``verify_files`` give the scores of
    :meth:`mamba_speech.speaker.verifier.SpeakerVerifier.verify`. They decide by the ``threshold`` that they are
    given, 0.25 by default; the run's stands in the YAML as ``threshold``. They refuse no silence, and
    SpeechBrain's ``verify_files`` takes two files of one name in two folders for one file.

    Arguments
    ---------
    run_folder : str or Path
        Output folder of a run of the speaker recipe.
    folder : str or Path
        Where ``hyperparams.yaml`` and ``embedding_model.ckpt`` go; made if it is not there.

    Raises
    ------
    FileExistsError
        If the folder holds a run, or another model.
    FileNotFoundError, ValueError
        As :meth:`mamba_speech.speaker.verifier.SpeakerVerifier.load`.

    Example
    -------
    Not run here, since it needs a trained run::

        save_for_speechbrain("results/mamba_fbank/1", "exported")
        recognition = SpeakerRecognition.from_hparams(source="exported", savedir="loaded")
        limit = recognition.hparams.threshold
        score, same = recognition.verify_batch(wavs1, wavs2, threshold=limit)
    """
    folder = Path(folder)
    check_export_folder(folder, WEIGHTS_FILE)
    verifier = SpeakerVerifier.load(run_folder, "cpu")
    text = (Path(run_folder) / OPTIONS_FILE).read_text(encoding="utf-8")
    options = yaml.compose(text, Loader=yaml.SafeLoader)
    # as the run describes it, without being built
    options.value = [one for one in options.value if one[0].value == "model"]
    limit = "null" if verifier.threshold is None else repr(verifier.threshold.value)
    content = f"sample_rate: {verifier.sample_rate}\nthreshold: {limit}\n"
    content += yaml.serialize(options) + _SPEAKER_RECOGNITION
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / WEIGHTS_FILE, "wb") as file:
        torch.save(RecordingEmbedding(verifier.model).state_dict(), file)
    # last: without it the folder is no model
    write_text(folder / OPTIONS_FILE, content)

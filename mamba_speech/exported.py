"""Folders that `mamba-speech export` wrote: their weights, which are safetensors and hold no code.

Such a folder serves as a run. Its hyperparams.yaml says who wrote it, and one file beside it holds the weights of
all networks, each under the name of its key in the YAML.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mamba_speech.checkpoint_files import DamagedFile
from mamba_speech.files import whole_path
from mamba_speech.plain_yaml import cut

# key of the YAML, with the version that wrote it
MARK = "exported_by"
WEIGHTS_FILE = "model.safetensors"
# what an exported YAML names beside networks: SpeechBrain's interfaces are made of them
_ASR = "mamba_speech.asr.speechbrain_"
INTERFACE_PARTS = frozenset(
    {
        f"{_ASR}parts.BeamSearcher",
        f"{_ASR}parts.Encoder",
        f"{_ASR}parts.JointDecoder",
        f"{_ASR}parts.LoadedTokenizer",
        f"{_ASR}parts.greedy_tokens",
        f"{_ASR}streaming.DecoderContext",
        f"{_ASR}streaming.Encoder",
        f"{_ASR}streaming.GreedyDecoder",
        f"{_ASR}streaming.Samples",
        f"{_ASR}streaming.decode_more",
        "mamba_speech.export.pretrainer.FolderPretrainer",
        "speechbrain.dataio.encoder.CategoricalEncoder",
        "speechbrain.dataio.preprocess.AudioNormalizer",
        "speechbrain.tokenizers.SentencePiece.SentencePieceDecoderStreamingContext",
    }
)
# names in the statistics of a normalisation
_STATISTICS = ("count", "glob_mean", "glob_std")


def is_exported(options_file):
    """Whether a hyperparams.yaml belongs to an exported folder.

    Arguments
    ---------
    options_file : Path
        One that is not there belongs to none.

    Example
    -------
    >>> is_exported(Path("nowhere.yaml"))
    False
    """
    if not options_file.is_file():
        return False
    with open(options_file, encoding="utf-8", errors="replace") as file:
        return any(line.startswith(f"{MARK}:") for line in file)


def save_weights(path, networks):
    """Write the weights of networks into one file.

    Arguments
    ---------
    path : str or Path
    networks : dict of str to torch.nn.Module
        Networks by name. Of a normalisation the statistics are written.
    """
    weights = {
        f"{name}.{key}": torch.as_tensor(value).detach().cpu().clone().contiguous()
        for name, network in networks.items()
        for key, value in _state_of(network).items()
    }
    with whole_path(path) as temporary:
        save_file(weights, temporary)


def _state_of(network):
    if hasattr(network, "_statistics_dict"):
        return network._statistics_dict()
    return network.state_dict()


def load_weights(path, networks):
    """Give networks their weights; nothing in the file is executed.

    Arguments
    ---------
    path : str or Path
        File that :func:`save_weights` wrote, of these networks.
    networks : dict of str to torch.nn.Module
        They may be some of those in the file.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    DamagedFile
        If it is damaged, or another kind of file.
    ValueError
        If the weights are of other networks.
    """
    weights = _read(Path(path))
    for name, network in networks.items():
        start = f"{name}."
        own = {
            key.removeprefix(start): value
            for key, value in weights.items()
            if key.startswith(start)
        }
        try:
            if hasattr(network, "_statistics_dict"):
                mean, deviation = (own[key].float() for key in _STATISTICS[1:])
                count = own[_STATISTICS[0]].item()
                network._load_statistics_dict(
                    dict(zip(_STATISTICS, (count, mean, deviation), strict=True))
                )
            else:
                network.load_state_dict(own, strict=True)
        except (KeyError, RuntimeError, ValueError) as error:
            lines = str(error).strip().splitlines()
            raise ValueError(
                f"{path}: is of another model than the hyperparams.yaml beside it describes "
                f"({name}: {cut(lines[-1] if lines else type(error).__name__, 300)})"
            ) from error


def _read(path):
    # what is said of a file that cannot be opened holds the file's name
    try:
        with open(path, "rb"):
            pass
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: no such file, so this exported model is not whole: copy its folder anew, or export it again"
        ) from error
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(
            path, "cannot be read as weights: the file is damaged, or no safetensors file"
        ) from error

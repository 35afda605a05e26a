"""A run as one network from waveforms to log-probabilities, and what a program without this project needs beside it."""

from dataclasses import dataclass

import torch

from mamba_speech.asr.published import is_published
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.export.waveform_networks import KeywordLogProbs, RecognitionLogProbs
from mamba_speech.files import write_json, write_text
from mamba_speech.kws.spotter import KeywordSpotter
from mamba_speech.run import load_run
from mamba_speech.run_task import KEYWORDS, task_of
from modules.asr.ctc import CTCRecognizer

_NETWORKS = ("compute_features", "normalize", "model")
CONFIG_FILE, LABELS_FILE, VOCABULARY_FILE = "config.json", "labels.json", "vocab.txt"


@dataclass
class WaveformRun:
    """A run as a network from waveforms.

    Attributes
    ----------
    network : torch.nn.Module
        From (batch, samples) and sample counts (batch,) to ``outputs``.
    outputs : list of str
        Names of what the network gives.
    least_samples : int
        Samples that a batch's longest waveform has at least.
    config : dict
        Plain facts for ``config.json``.
    labels : list of str
        Names of the classes or tokens.
    """

    network: torch.nn.Module
    outputs: list
    least_samples: int
    config: dict
    labels: list


def waveform_run(run_folder):
    """A keyword run or a CTC recogniser's run as one network.

    Raises
    ------
    FileNotFoundError, ValueError
        If the run cannot be loaded, or is a recogniser with a decoder.
    """
    return _keywords(run_folder) if task_of(run_folder) == KEYWORDS else _recognition(run_folder)


def _keywords(run_folder):
    spotter = KeywordSpotter.load(run_folder, "cpu")
    window = spotter.window if spotter.pad_clips else 0
    network = KeywordLogProbs(spotter.compute_features, spotter.model, window)
    config = {
        "sample_rate": spotter.sample_rate,
        "window_samples": spotter.window,
        "model_type": "keywords",
    }
    # two frames of the embedding
    least = 4 * spotter.compute_features.hop_length
    config["least_samples"] = least
    return WaveformRun(network.eval(), ["log_probs"], least, config, spotter.labels)


def _recognition(run_folder):
    if is_published(run_folder):
        raise ValueError(f"{run_folder}: is a run of xi-j/Mamba-ASR, which export does not take")
    run = load_run(
        run_folder,
        wanted=["compute_features", "normalize", "sample_rate", "fidelity", "tokenizer_file"],
        selection_key=("WER", "token_error"),
    )
    has_decoder = not isinstance(run["model"], CTCRecognizer)
    if has_decoder:
        raise ValueError(
            f"{run_folder}: has a decoder, and only CTC recognisers become one graph: take --format speechbrain"
        )
    tokenizer = Tokenizer(run["tokenizer_file"])
    network = RecognitionLogProbs(*(run[name] for name in _NETWORKS), tokens=len(tokenizer))
    hop = run["compute_features"].hop
    stride = 1
    for one in run["model"].CNN.strides:
        stride *= one
    config = {
        "sample_rate": run["sample_rate"],
        "frame_seconds": hop * stride / run["sample_rate"],
        "subsampling_factor": stride,
        "blank": Tokenizer.blank,
        "control": list(Tokenizer.control),
        "model_type": "ctc",
    }
    # two frames of the encoder
    least = 2 * hop * stride
    config["least_samples"] = least
    return WaveformRun(network.eval(), ["log_probs", "lengths"], least, config, tokenizer.labels())


def write_labels(folder, run):
    """Write the names of the classes or tokens and ``config.json`` into a folder.

    Keywords are a JSON list. Tokens are lines ``TOKEN NUMBER``, as the package onnx-asr has them, with ``<blk>`` for
    CTC's blank.
    """
    if run.config["model_type"] == "keywords":
        write_json(folder / LABELS_FILE, run.labels)
    else:
        names = ["<blk>" if i == run.config["blank"] else name for i, name in enumerate(run.labels)]
        lines = "".join(f"{name} {number}\n" for number, name in enumerate(names))
        write_text(folder / VOCABULARY_FILE, lines)
    write_json(folder / CONFIG_FILE, run.config)

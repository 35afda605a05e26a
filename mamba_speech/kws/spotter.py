"""Keyword classification with a trained run: one clip, or the course of every word's probability along a stream.

A causal model carries its state along the stream; any other is run anew on each window.
"""

import json
from pathlib import Path

import torch
import yaml
from speechbrain.dataio.encoder import CategoricalEncoder

from mamba_speech.run import OPTIONS_FILE, choose_device, load_run
from modules.lengths import sample_counts

# windows that a non-causal model takes at a time
WINDOWS_AHEAD = 64
MODES = ("sliding", "streaming")
# what EncoderClassifier asks of a YAML; the files that it loads stand beside it under the keys' names
_ENCODER_CLASSIFIER = """\
embedding_model: !new:mamba_speech.kws.spotter.ClassifierModel
    compute_features: !ref <features>
    model: !ref <model>
    window: {window}
compute_features: !new:mamba_speech.kws.spotter.Unchanged
mean_var_norm: !new:mamba_speech.kws.spotter.Unchanged
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


class KeywordSpotter:
    """A trained keyword spotter.

    Arguments
    ---------
    run_folder : str or Path
        Output folder of a run of the keyword recipe, wherever it lies now.
    device : str or torch.device, optional
        A CUDA device if there is one, else the CPU.

    Attributes
    ----------
    labels : list of str
        The classes, in the order of the model's outputs; those that are no words begin with ``_``.
    sample_rate : int
    window : int
        Samples of a clip as the model was trained on.
    causal : bool
        Whether it can run along a stream.

    Raises
    ------
    FileNotFoundError, ValueError
        If the run cannot be loaded, see :func:`mamba_speech.run.load_run`.
    RuntimeError
        If the device is not there.

    Example
    -------
    Not run here, since it needs a trained run::

        classifier = KeywordSpotter("results/mini/1")
        probabilities = classifier.classify([load_audio("yes.wav", classifier.sample_rate)])
        print(classifier.labels[int(probabilities[0].argmax())])
    """

    def __init__(self, run_folder, device=None):
        self.device = choose_device(device)
        wanted = ["compute_features", "sample_rate", "clip_seconds", "pad_clips", "labels_file"]
        run = load_run(run_folder, wanted, optional=["causal"], selection_key="error")
        self.sample_rate, self.pad_clips = run["sample_rate"], run["pad_clips"]
        self.window = round(run["clip_seconds"] * self.sample_rate)
        self.causal = bool(run.get("causal", False))
        self.labels = read_labels(run["labels_file"], run["model"].n_classes)
        self.compute_features = run["compute_features"].to(self.device)
        self.model = run["model"].to(self.device)

    @torch.inference_mode()
    def classify(self, waveforms):
        """Probabilities of the classes for clips.

        Arguments
        ---------
        waveforms : list of torch.Tensor
            (samples,) each, at least one. Clips longer than the window are taken whole, and shorter ones are
            brought to it where the model was trained so.

        Returns
        -------
        torch.Tensor
            (clips, classes), on the CPU.
        """
        if self.pad_clips:
            waveforms = [_centre(one, self.window) for one in waveforms]
        samples = torch.tensor([len(one) for one in waveforms], device=self.device)
        wavs = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True).to(self.device)
        features, lengths = self.compute_features(wavs, samples)
        return self.model(features, lengths).softmax(-1).cpu()

    def probabilities(self, blocks, mode=None, hop_seconds=0.1):
        """The course of the classes' probabilities along a stream.

        The stream is taken to begin after half a window of silence, and to end before as much.

        Arguments
        ---------
        blocks : iterable of torch.Tensor
            The stream in pieces (samples,) of any lengths.
        mode : str, optional
            ``sliding``: the model is run on the last window every ``hop_seconds``. ``streaming``, for causal models
            and their default: state is carried, each sample is read once, and the mean that is classified
            goes over the last window.
        hop_seconds : float
            Of ``sliding``; ``streaming`` gives every frame of the model.

        Yields
        ------
        (torch.Tensor, torch.Tensor)
            Times (n,) in seconds at the middle of the window, and probabilities (n, classes), on the CPU.

        Raises
        ------
        ValueError
            If the mode is unknown or not the model's, or the hop is not positive.
        """
        mode = mode or ("streaming" if self.causal else "sliding")
        if mode not in MODES:
            raise ValueError(f"mode must be {' or '.join(MODES)}; got {mode!r}")
        if not hop_seconds > 0:
            raise ValueError(f"hop_seconds must be more than 0; got {hop_seconds}")
        if mode == "sliding":
            return self._slide(blocks, max(1, round(hop_seconds * self.sample_rate)))
        if not self.causal:
            raise ValueError(
                "this model reads ahead and cannot run along a stream: take mode sliding, or train with --causal True"
            )
        return self._stream(blocks)

    @torch.inference_mode()
    def _slide(self, blocks, hop):
        half = self.window // 2
        # the first window's middle is the stream's first sample
        buffer, done, skipped = torch.zeros(half), 0, 0
        for block in _with_end(blocks, half):
            # a hop longer than the window leaves samples out
            buffer = torch.cat([buffer, block[skipped:]])
            skipped = max(0, skipped - len(block))
            count = (len(buffer) - self.window) // hop + 1
            for first in range(0, count, WINDOWS_AHEAD):
                windows = buffer[first * hop :].unfold(0, self.window, hop)[: count - first]
                wavs = windows[:WINDOWS_AHEAD].to(self.device)
                times = (done + first + torch.arange(len(wavs))) * hop / self.sample_rate
                features, lengths = self.compute_features(wavs)
                yield times, self.model(features, lengths).softmax(-1).cpu()
            if count > 0:
                skipped = max(0, count * hop - len(buffer))
                buffer, done = buffer[count * hop :], done + count

    @torch.inference_mode()
    def _stream(self, blocks):
        half = self.window // 2
        hop = self.compute_features.hop_length * self.model.subsampling
        heard = self.compute_features.initial_state(1)
        state = self.model.initial_state(1, window=max(1, self.window // hop))
        done = 0
        for block in _with_end(blocks, half):
            wavs = block.to(self.device).unsqueeze(0)
            features, heard = self.compute_features.forward_chunk(wavs, heard)
            if features.shape[1] == 0:
                continue
            logits, state = self.model.stream(features, state)
            ends = (done + 1 + torch.arange(logits.shape[1])) * hop
            done += logits.shape[1]
            kept = ends >= half
            if kept.any():
                probabilities = logits[0].softmax(-1).cpu()
                yield (ends[kept] - half) / self.sample_rate, probabilities[kept]


class ClassifierModel(torch.nn.Module):
    """A keyword model as the ``embedding_model`` of SpeechBrain's ``EncoderClassifier``: waveforms to logits.

    Arguments
    ---------
    compute_features : torch.nn.Module
        See :class:`modules.kws.features.KeywordFeatures`.
    model : torch.nn.Module
    window : int
        Samples to which shorter clips are brought; 0 leaves them.

    Example
    -------
    >>> import torch
    >>> from modules.kws.features import KeywordFeatures
    >>> from modules.kws.mamba import MambaKeywordSpotter
    >>> model = MambaKeywordSpotter(n_classes=5, d_model=16, n_layers=1)
    >>> ClassifierModel(KeywordFeatures(), model)(torch.randn(2, 16000), torch.ones(2)).shape
    torch.Size([2, 5])
    """

    def __init__(self, compute_features, model, window=0):
        super().__init__()
        self.compute_features, self.model, self.window = compute_features, model, window

    def forward(self, wavs, wav_lens):
        """Logits (batch, classes) of ``wavs`` (batch, samples) with relative lengths ``wav_lens`` (batch,)."""
        samples = sample_counts(wav_lens, wavs.shape[1]).tolist()
        clips = [wav[:count] for wav, count in zip(wavs, samples, strict=True)]
        clips = [_centre(clip, self.window) for clip in clips]
        samples = torch.tensor([len(clip) for clip in clips], device=wavs.device)
        wavs = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        return self.model(*self.compute_features(wavs, samples))


class Unchanged(torch.nn.Module):
    """Its first argument; the steps of ``EncoderClassifier`` that a keyword model does itself."""

    def forward(self, x, *_):
        """``x``."""
        return x


def read_labels(file, n_classes):
    """The classes of a run, from its ``labels.json``.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, no list of words, or not as long as the model has outputs.
    """
    try:
        labels = json.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file}: no such file; training writes it") from error
    except ValueError as error:
        raise ValueError(f"{file}: cannot be read as JSON ({error})") from error
    if not isinstance(labels, list) or len(labels) != n_classes:
        raise ValueError(f"{file}: must list the {n_classes} classes of the model's outputs")
    return [str(label) for label in labels]


def _centre(waveform, samples):
    """The clip in the middle of so many samples, if it is shorter."""
    missing = max(0, samples - len(waveform))
    return torch.nn.functional.pad(waveform, (missing // 2, missing - missing // 2))


def _with_end(blocks, silence):
    yield from blocks
    yield torch.zeros(silence)


def save_for_speechbrain(run_folder, folder):
    """Write a trained run as a folder that SpeechBrain's ``EncoderClassifier.from_hparams`` loads.

    Its ``classify_batch`` and ``classify_file`` give words and the logarithms of what
    :meth:`KeywordSpotter.classify` gives; the embedding of ``encode_batch`` is the logits.

    Arguments
    ---------
    run_folder : str or Path
        Output folder of a run of the keyword recipe.
    folder : str or Path
        Where ``hyperparams.yaml``, ``model.ckpt`` and ``label_encoder.txt`` go; made if it is not there.

    Raises
    ------
    FileNotFoundError, ValueError
        As :class:`KeywordSpotter`.
    """
    classifier = KeywordSpotter(run_folder, "cpu")
    window = classifier.window if classifier.pad_clips else 0
    text = (Path(run_folder) / OPTIONS_FILE).read_text(encoding="utf-8")
    options = yaml.compose(text, Loader=yaml.SafeLoader)
    # as the run describes them, without being built
    options.value = [one for one in options.value if one[0].value in ("compute_features", "model")]
    content = f"sample_rate: {classifier.sample_rate}\n"
    content += yaml.serialize(options).replace("compute_features:", "features:", 1)
    content += _ENCODER_CLASSIFIER.format(window=window)
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(classifier.labels)
    encoder.expect_len(len(classifier.labels))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    whole = ClassifierModel(classifier.compute_features, classifier.model, window)
    for name, write in {
        "embedding_model.ckpt": lambda path: torch.save(whole.state_dict(), path),
        "label_encoder.ckpt": lambda path: encoder.save(str(path)),
        # last: without it the folder is no model
        "hyperparams.yaml": lambda path: path.write_text(content, encoding="utf-8"),
    }.items():
        partial = folder / f"{name}.partial"
        write(partial)
        partial.replace(folder / name)

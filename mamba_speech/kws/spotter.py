"""Keyword classification with a trained run: one clip, or the course of every word's probability along a stream.

A causal model carries its state along the stream; any other is run anew on each window.
"""

import torch

from mamba_speech.files import read_json
from mamba_speech.run import choose_device, load_run
from modules.kws.classifier import centred

# windows that a non-causal model takes at a time
WINDOWS_AHEAD = 64
MODES = ("sliding", "streaming")


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
            waveforms = [centred(one, self.window) for one in waveforms]
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


def read_labels(file, n_classes):
    """The classes of a run, from its ``labels.json``.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, no list of words, or not as long as the model has outputs.
    """
    try:
        labels = read_json(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file}: no such file; training writes it") from error
    if not isinstance(labels, list) or len(labels) != n_classes:
        raise ValueError(f"{file}: must list the {n_classes} classes of the model's outputs")
    return [str(label) for label in labels]


def _with_end(blocks, silence):
    yield from blocks
    yield torch.zeros(silence)

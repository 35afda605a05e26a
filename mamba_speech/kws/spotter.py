"""Keyword classification with a trained run: one clip, or the course of every word's probability along a stream.

A causal model carries its state along the stream; any other is run anew on each window.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from mamba_speech.device import choose_device
from mamba_speech.files import read_json
from mamba_speech.kws.events import (
    REFRACTORY,
    SMOOTHING,
    SUPPRESSION,
    THRESHOLD,
    EventFinder,
    absent_classes,
)
from mamba_speech.option_types import NUMBER, TRUTH, check_types
from mamba_speech.recordings import RecordingResult, each_result, one_or_each, recordings_of
from mamba_speech.run import OPTIONS_FILE, load_run
from mamba_speech.run_errors import names_run
from modules.kws.classifier import centred

# windows that a non-causal model takes at a time
WINDOWS_AHEAD = 64
MODES = ("sliding", "streaming")
OPTION_TYPES = {"clip_seconds": NUMBER, "pad_clips": TRUTH, "causal": TRUTH}
HOP_SECONDS = 0.1
# a shorter hop takes a thousand times as long as the recording
HOP_RANGE = (0.001, 3600.0)


@dataclass(frozen=True, kw_only=True)
class Classification(RecordingResult):
    """The word of one clip; ``str()`` of it is the word.

    Attributes
    ----------
    label : str or None
        The most probable class; classes that are no words begin with ``_``. None where there is an error.
    confidence : float
        Its probability.
    probabilities : dict of str to float
        Of every class, the most probable one first.
    path, seconds, error, warnings
        See :class:`mamba_speech.recordings.RecordingResult`.

    Example
    -------
    >>> print(Classification(path="yes.wav", label="yes", confidence=0.9))
    yes
    """

    label: str | None = None
    confidence: float = 0.0
    probabilities: dict = field(default_factory=dict)

    def __str__(self):
        return self.label or ""


@dataclass(frozen=True, kw_only=True)
class Spotting(RecordingResult):
    """The keywords of one recording; a loop over it goes through the events.

    Attributes
    ----------
    events : list of mamba_speech.kws.events.Event
        In the order of time; each has ``label``, ``start`` and ``end`` in seconds, and ``confidence``.
    path, seconds, error, warnings
        See :class:`mamba_speech.recordings.RecordingResult`.
    """

    events: list = field(default_factory=list)

    def __iter__(self):
        return iter(self.events)

    def __len__(self):
        return len(self.events)


class KeywordSpotter:
    """A trained keyword spotter: :meth:`load` a run, then :meth:`classify` clips or :meth:`spot` keywords.

    Arguments
    ---------
    options : dict
        Networks and plain values of a run, see :func:`mamba_speech.run.load_run`.
    labels : list of str
        The classes, in the order of the model's outputs; those that are no words begin with ``_``.
    device : torch.device

    Attributes
    ----------
    labels : list of str
    sample_rate : int
        Samples a second that the model takes; recordings of another rate are resampled.
    window : int
        Samples of a clip as the model was trained on.
    causal : bool
        Whether it can run along a stream.
    shortcoming : str or None
        A sentence on the classes that the model lacks, see :func:`mamba_speech.kws.events.absent_classes`.

    Example
    -------
    Not run here, since it needs a trained run::

        spotter = KeywordSpotter.load("results/mini/1")
        print(spotter.classify("yes.wav"))
        for event in spotter.spot("meeting.wav"):
            print(event.label, event.start)
    """

    def __init__(self, options, labels, device):
        self.device, self.labels = device, labels
        self.shortcoming = absent_classes(labels)
        self.sample_rate, self.pad_clips = options["sample_rate"], options["pad_clips"]
        self.window = round(options["clip_seconds"] * self.sample_rate)
        self.causal = bool(options.get("causal", False))
        self.compute_features = options["compute_features"].to(device)
        self.model = options["model"].to(device)

    @classmethod
    @names_run
    def load(cls, run, device=None):
        """The keyword spotter of a run.

        Arguments
        ---------
        run : str or Path
            Output folder of a run of the keyword recipe, wherever it lies now.
        device : str or torch.device, optional
            A CUDA device if there is one, else the CPU.

        Raises
        ------
        FileNotFoundError, ValueError
            If the run cannot be loaded, see :func:`mamba_speech.run.load_run`.
        RuntimeError
            If the device is not there.
        """
        device = choose_device(device)
        wanted = ["compute_features", "sample_rate", "clip_seconds", "pad_clips", "labels_file"]
        options = load_run(run, wanted, optional=["causal"], selection_key="error")
        check_types(options, Path(run) / OPTIONS_FILE, OPTION_TYPES)
        labels = read_labels(options["labels_file"], options["model"].n_classes)
        return cls(options, labels, device)

    def classify(self, audio, sample_rate=None):
        """Say which word a clip is; one clip or many.

        Arguments
        ---------
        audio, sample_rate
            One clip or many, see :func:`mamba_speech.recordings.recordings_of`. Clips longer than the model's window
            are taken whole.

        Returns
        -------
        result : Classification or iterator of Classification
            For many clips, an iterator in their order, of results as they become ready. An unusable clip gives a
            result with ``error``, and the others go on.

        Raises
        ------
        mamba_speech.audio.AudioError
            If a single clip is no usable audio.
        ValueError
            If a waveform has no sample rate.
        """

        def classify(recording):
            clip = recording.load(self.sample_rate)
            ranked = self.class_probabilities([clip])[0].sort(descending=True)
            classes = [self.labels[index] for index in ranked.indices.tolist()]
            values = ranked.values.tolist()
            return Classification(
                path=recording.path,
                seconds=len(clip) / self.sample_rate,
                label=classes[0],
                confidence=values[0],
                probabilities=dict(zip(classes, values, strict=True)),
            )

        recordings, many = recordings_of(audio, sample_rate)
        return one_or_each(each_result(recordings, classify, Classification), many)

    def spot(self, audio, sample_rate=None, **options):
        """Find keywords in one recording or many, of any length.

        Arguments
        ---------
        audio, sample_rate
            See :meth:`classify`. Files are read piece by piece, so that length takes no memory.
        **options
            See :meth:`stream`.

        Returns
        -------
        result : Spotting or iterator of Spotting
            As of :meth:`classify`.

        Raises
        ------
        mamba_speech.audio.AudioError
            If a single recording is no usable audio.
        ValueError
            If an option is out of its range, or a waveform has no sample rate.
        """
        # refuses wrong options before anything is read
        self.stream([], **options)

        def spot(recording):
            samples = 0

            def counted():
                nonlocal samples
                for block in recording.blocks(self.sample_rate):
                    samples += len(block)
                    yield block

            events = list(self._of_part(recording, self.stream(counted(), **options)))
            return Spotting(path=recording.path, seconds=samples / self.sample_rate, events=events)

        recordings, many = recordings_of(audio, sample_rate)
        return one_or_each(each_result(recordings, spot, Spotting), many)

    def events(self, recording, **options):
        """The keywords of one recording, as they are found.

        Arguments
        ---------
        recording : mamba_speech.recordings.Recording
        **options
            See :meth:`stream`.

        Returns
        -------
        events : iterator of mamba_speech.kws.events.Event
            Their times are of the file, also where the recording is a part of it.
        """
        found = self.stream(recording.blocks(self.sample_rate), **options)
        return self._of_part(recording, found)

    @staticmethod
    def _of_part(recording, events):
        """Events with times of the file."""
        for event in events:
            offset = recording.start or 0.0
            yield replace(event, start=event.start + offset, end=event.end + offset)

    def stream(
        self,
        blocks,
        *,
        threshold=THRESHOLD,
        smoothing=SMOOTHING,
        suppression=SUPPRESSION,
        refractory=REFRACTORY,
        mode=None,
        hop_seconds=HOP_SECONDS,
    ):
        """Find keywords in a stream, such as a microphone's, while it lasts.

        Arguments
        ---------
        blocks : iterable of torch.Tensor
            Pieces (samples,) of any lengths at ``sample_rate``.
        threshold, smoothing, suppression, refractory : float
            See :class:`mamba_speech.kws.events.EventFinder`.
        mode, hop_seconds
            See :meth:`probabilities`.

        Returns
        -------
        events : iterator of mamba_speech.kws.events.Event
            Each ``suppression`` seconds after the keyword. None begins before the stream or ends after it.

        Raises
        ------
        ValueError
            If an option is out of its range.
        """
        window = self.window / self.sample_rate
        finder = EventFinder(self.labels, window, threshold, smoothing, suppression, refractory)
        samples = 0

        def counted():
            nonlocal samples
            for block in blocks:
                samples += len(block)
                yield block

        course = self.probabilities(counted(), mode, hop_seconds)

        def events():
            for times, probabilities in course:
                yield from map(within, finder(times, probabilities))
            yield from map(within, finder.finish())

        def within(event):
            # only an event at the end of the stream reaches beyond what was heard
            end = min(event.end, math.floor(1000 * samples / self.sample_rate) / 1000)
            return replace(event, start=min(event.start, end), end=end)

        return events()

    @torch.inference_mode()
    def class_probabilities(self, clips):
        """Probabilities of the classes for a batch of clips.

        Arguments
        ---------
        clips : list of torch.Tensor
            (samples,) each at ``sample_rate``, at least one. Clips longer than the window are taken whole, and shorter
            ones are brought to it where the model was trained so.

        Returns
        -------
        torch.Tensor
            (clips, classes), on the CPU.
        """
        if self.pad_clips:
            clips = [centred(one, self.window) for one in clips]
        samples = torch.tensor([len(one) for one in clips], device=self.device)
        wavs = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True).to(self.device)
        features, lengths = self.compute_features(wavs, samples)
        return _probabilities(self.model(features, lengths))

    def probabilities(self, blocks, mode=None, hop_seconds=HOP_SECONDS):
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
            If the mode is unknown or not the model's, or the hop is out of ``HOP_RANGE``.
        """
        mode = mode or ("streaming" if self.causal else "sliding")
        if mode not in MODES:
            raise ValueError(f"mode must be {' or '.join(MODES)}; got {mode!r}")
        if not HOP_RANGE[0] <= hop_seconds <= HOP_RANGE[1]:
            raise ValueError(
                f"hop_seconds must be from {HOP_RANGE[0]:g} to {HOP_RANGE[1]:g}; got {hop_seconds}"
            )
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
                yield times, _probabilities(self.model(features, lengths))
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
                probabilities = _probabilities(logits[0])
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


def _probabilities(logits):
    """The classes' probabilities, on the CPU; values that are not finite have none."""
    probabilities = logits.softmax(-1).cpu()
    if not torch.isfinite(probabilities).all():
        raise ValueError("the model made of it values that are not finite")
    return probabilities


def _with_end(blocks, silence):
    yield from blocks
    yield torch.zeros(silence)

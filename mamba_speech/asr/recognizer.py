"""Speech recognition with a trained run: text from audio files, and when each token was heard.

A run of `train_CTC.py` or `train_S2S.py` will do, and one of the published recipes of that name
(:mod:`mamba_speech.asr.published`); :mod:`mamba_speech.asr.decoders` turns its outputs into text.
"""

import math
from dataclasses import dataclass
from itertools import groupby

import torch

from mamba_speech.asr.decoders import DECODING_OPTIONS, S2SDecoder, decoder_of_run
from mamba_speech.asr.published import is_published, load_published_recogniser
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.audio import AudioError, load_audio
from mamba_speech.run import choose_device, load_run
from modules.asr.s2s import S2SRecognizer
from modules.lengths import relative_lengths

# What checkpoints are compared by, in runs of train_CTC.py and of train_S2S.py.
_SELECTION_KEYS = ("WER", "token_error")

BATCH_SECONDS = 60.0
# Files are read so many batches ahead, to put those of like length together.
BATCHES_AHEAD = 8


@dataclass(frozen=True)
class Transcript:
    """What became of one file.

    Attributes
    ----------
    path : str
    text : str or None
        None where there is an error.
    seconds : float
        Duration of the audio; 0 where there is an error.
    error : str or None
        Why the file could not be transcribed; the sentence names it.
    """

    path: str
    text: str | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Alignment:
    """Where the most probable path through an utterance puts its tokens.

    Attributes
    ----------
    path : str
    text : str
        Best-path text.
    seconds : float
        Duration of the audio.
    tokens : list of (str, float, float)
        Each token with the start and the end, in seconds, of the frames that carry it. CTC leaves
        most frames blank, so these are marks near the sounds rather than their extent.
    features : torch.Tensor
        Log-mel energies in dB, (frames, mels).
    frame_seconds : float
        Time between two frames of the features; the first is centred on 0.
    """

    path: str
    text: str
    seconds: float
    tokens: list
    features: torch.Tensor
    frame_seconds: float


class Recognizer:
    """A trained recogniser.

    An utterance is recognised as a whole, so that memory grows with its length: on the CPU about
    100 MB for each minute of audio with the CTC recipe's `conmamba_mini` and 150 MB with its
    `conmamba_large`, which for an hour comes to 6 and 9 GB. Cut longer recordings into parts first.

    Arguments
    ---------
    run_folder : str or Path
        Output folder of a run of `train_CTC.py` or `train_S2S.py`, this project's or those of xi-j/Mamba-ASR,
        wherever it lies now.
    device : str or torch.device, optional
        A CUDA device if there is one, else the CPU.
    decoding : str, optional
        Of a CTC run, `greedy` or `beam`; by default the run's `test_decoding`.
    beam_size : int, optional
        Of the beam search; by default the run's.
    lm : str or Path, optional
        Of an S2S run, the language model to search with, see
        :func:`mamba_speech.asr.language_model.load_language_model`; by default the run's, if it has one.
    no_lm : bool
        Search without the run's language model.
    ctc_only : bool
        Of an S2S run, take the best path of its CTC output: fast, and less accurate than the search.

    Raises
    ------
    FileNotFoundError, ValueError
        If the run or its language model cannot be loaded, see :func:`mamba_speech.run.load_run`; if an
        option is unknown, or not one of the run's kind.
    RuntimeError
        If the device is not there.

    Example
    -------
    Not run here, since it needs a trained run::

        recognizer = Recognizer("results/demo/run")
        for result in recognizer.transcribe(["a.wav", "b.flac"]):
            print(result.path, result.error or result.text)
    """

    def __init__(
        self,
        run_folder,
        device=None,
        decoding=None,
        *,
        beam_size=None,
        lm=None,
        no_lm=False,
        ctc_only=False,
    ):
        self.device = choose_device(device)
        run = _load_recogniser(run_folder)
        self.sample_rate, self.fidelity = run["sample_rate"], run["fidelity"]
        self.tokenizer = Tokenizer(run["tokenizer_file"])
        self.compute_features = run["compute_features"].to(self.device)
        self.normalize = run["normalize"].to(self.device)
        self.model = run["model"].to(self.device)
        self.decode = decoder_of_run(
            run, run_folder, self.tokenizer, decoding, beam_size, lm, no_lm, ctc_only
        )

    def transcribe(self, paths, batch_seconds=BATCH_SECONDS):
        """Recognise files, in batches of like length; in the files' order, as they become ready.

        With `fidelity: upstream`, where an utterance's result depends on its neighbours in the
        batch, files are taken one at a time.

        Arguments
        ---------
        paths : iterable of str or Path
            Audio of any format, rate and number of channels that soundfile reads.
        batch_seconds : float
            Audio in a batch, padding included; a longer file is a batch of its own.

        Yields
        ------
        Transcript

        Raises
        ------
        ValueError
            If `batch_seconds` is not positive.
        """
        if not batch_seconds > 0:
            raise ValueError(f"batch_seconds must be more than 0; got {batch_seconds}")
        for window in self._windows(paths, batch_seconds):
            waveforms = {index: one for index, (_, one) in enumerate(window) if _is_audio(one)}
            found = dict(enumerate(one for _, one in window))
            for batch in self._batches(waveforms, batch_seconds):
                found |= self._recognise_each(batch, waveforms)
            for (path, one), result in zip(window, found.values(), strict=True):
                if isinstance(result, str):
                    yield Transcript(path, result, len(one) / self.sample_rate)
                elif isinstance(result, AudioError):
                    yield Transcript(path, None, 0.0, str(result))
                else:
                    yield Transcript(path, None, 0.0, f"{path}: {result}")

    @torch.inference_mode()
    def align(self, path):
        """Recognise one file by its best path, with times.

        Arguments
        ---------
        path : str or Path

        Returns
        -------
        alignment : Alignment

        Raises
        ------
        mamba_speech.audio.AudioError
            If the file is no usable audio.
        """
        waveform = load_audio(path, self.sample_rate)
        inputs, features = self._inputs([waveform])
        log_probs, lengths = self._ctc_log_probs(*inputs)
        best = log_probs[0, : lengths[0], : len(self.tokenizer)].argmax(-1).tolist()
        seconds = len(waveform) / self.sample_rate
        frame_seconds = self.compute_features.hop / self.sample_rate
        step = frame_seconds * math.prod(self.model.CNN.strides)
        silent = (self.tokenizer.blank, *self.tokenizer.control)
        labels, tokens, indices, start = self.tokenizer.labels(), [], [], 0
        for index, run in groupby(best):
            end = start + sum(1 for _ in run)
            if index not in silent:
                # frame t stands for the time around t * step
                span = (max(0.0, (start - 0.5) * step), min(seconds, (end - 0.5) * step))
                tokens.append((labels[index], *span))
                indices.append(index)
            start = end
        text = self.tokenizer.decode(indices)
        return Alignment(str(path), text, seconds, tokens, features[0].cpu(), frame_seconds)

    def _windows(self, paths, batch_seconds):
        """Lists of (path, waveform or AudioError), each about as long as `BATCHES_AHEAD` batches."""
        window, samples = [], 0
        for path in paths:
            try:
                waveform = load_audio(path, self.sample_rate)
                samples += len(waveform)
            except AudioError as error:
                waveform = error
            window.append((str(path), waveform))
            if samples >= BATCHES_AHEAD * batch_seconds * self.sample_rate:
                yield window
                window, samples = [], 0
        if window:
            yield window

    def _batches(self, waveforms, batch_seconds):
        """Keys of waveforms, grouped by length."""
        limit = 0 if self.fidelity == "upstream" else batch_seconds * self.sample_rate
        batches, batch = [], []
        for key in sorted(waveforms, key=lambda key: len(waveforms[key])):
            if batch and len(waveforms[key]) * (len(batch) + 1) > limit:
                batches.append(batch)
                batch = []
            batch.append(key)
        return [*batches, batch] if batch else batches

    def _recognise_each(self, keys, waveforms):
        """Texts by key; of one that the model's positional table is too short for, the error."""
        try:
            texts = self._recognise([waveforms[key] for key in keys])
            return dict(zip(keys, texts, strict=True))
        except ValueError as error:
            if len(keys) == 1:
                return {keys[0]: error}
        results = [self._recognise_each([key], waveforms) for key in keys]
        return {key: result for one in results for key, result in one.items()}

    @torch.inference_mode()
    def _recognise(self, waveforms):
        inputs, _ = self._inputs(waveforms)
        if isinstance(self.decode, S2SDecoder):
            return self.decode(*self.model.encode(*inputs))
        log_probs, lengths = self._ctc_log_probs(*inputs)
        return self.decode(log_probs.cpu(), lengths.cpu())

    def _inputs(self, waveforms):
        """What the model takes: normalised features, their counts, relative lengths; and plain features."""
        samples = torch.tensor([len(waveform) for waveform in waveforms])
        wavs = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True).to(self.device)
        wav_lens = (samples / wavs.shape[1]).to(self.device)
        features, lengths = self.compute_features(wavs, samples=samples)
        normalised = self.normalize(features, relative_lengths(lengths, features.shape[1]))
        return (normalised, lengths, wav_lens), features

    def _ctc_log_probs(self, *inputs):
        """Log-probabilities (batch, time, vocabulary) of the CTC output, and counts of frames."""
        if isinstance(self.model, S2SRecognizer):
            encoded, lengths = self.model.encode(*inputs)
            return self.model.ctc_log_probs(encoded), lengths
        return self.model(*inputs)


def _load_recogniser(folder):
    """The options of a run of this project, or of the published recipes."""
    if is_published(folder):
        return load_published_recogniser(folder)
    return load_run(
        folder,
        wanted=["compute_features", "normalize", "sample_rate", "fidelity", "tokenizer_file"],
        optional=DECODING_OPTIONS,
        selection_key=_SELECTION_KEYS,
    )


def _is_audio(value):
    return isinstance(value, torch.Tensor)

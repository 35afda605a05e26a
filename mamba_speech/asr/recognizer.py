"""Speech recognition with a trained run: text from audio files, and when each token was heard.

A run of `train_CTC.py` or `train_S2S.py` will do, and one of the published recipes of that name
(:mod:`mamba_speech.asr.published`); :mod:`mamba_speech.asr.decoders` turns its outputs into text.
"""

import math

import torch

from mamba_speech.asr.alignment import Alignment, align_tokens, best_path
from mamba_speech.asr.batches import batches_of, check_finite, read_ahead
from mamba_speech.asr.decoders import S2SDecoder
from mamba_speech.asr.long_recordings import check_window, transcribe_long
from mamba_speech.asr.nbest import Hypothesis
from mamba_speech.asr.run_decoder import decoder_of_run
from mamba_speech.asr.run_recogniser import load_recogniser, set_chunks
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.asr.transcript import Transcript
from mamba_speech.asr.voice_activity import drop_unsupported, make_gates
from mamba_speech.asr.windows import LONGEST_WINDOW
from mamba_speech.asr.word_times import time_words
from mamba_speech.audio import AudioError, recording_fault
from mamba_speech.device import choose_device
from mamba_speech.memory import return_freed_memory
from mamba_speech.recordings import Recording, one_or_each, recordings_of
from mamba_speech.run_errors import names_run
from modules.asr.s2s import S2SRecognizer
from modules.lengths import relative_lengths

BATCH_SECONDS = 60.0
# Files are read so many batches ahead, to put those of like length together.
BATCHES_AHEAD = 8
# LibriSpeech's utterances last 35 s at most
MAX_WINDOW_SECONDS = 40.0


class Recognizer:
    """A trained recogniser: :meth:`load` a run, then :meth:`transcribe` recordings.

    A recording of up to `max_window_seconds` is recognised as a whole. A longer one is read and recognised in windows,
    so that memory does not grow with its length; see :mod:`mamba_speech.asr.windows`.

    Arguments
    ---------
    options : dict
        Networks and plain values of a run, see :func:`mamba_speech.run.load_run`.
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    decode : mamba_speech.asr.decoders.CTCDecoder or mamba_speech.asr.decoders.S2SDecoder
    device : torch.device

    Attributes
    ----------
    sample_rate : int
        Samples a second that the model takes; recordings of another rate are resampled.
    fidelity : str
        `corrected`, or `upstream`, where a result depends on the neighbours in a batch.

    Example
    -------
    Not run here, since it needs a trained run::

        recognizer = Recognizer.load("results/demo/run")
        print(recognizer.transcribe("a.wav"))
        for result in recognizer.transcribe(["a.wav", "b.flac"]):
            print(result.path, result.error or result.text)
    """

    def __init__(self, options, tokenizer, decode, device):
        self.device, self.tokenizer, self.decode = device, tokenizer, decode
        self.sample_rate, self.fidelity = options["sample_rate"], options["fidelity"]
        self.compute_features = options["compute_features"].to(device)
        self.normalize = options["normalize"].to(device)
        self.model = options["model"].to(device)
        self._gates = {}
        # a head that no loss has trained knows no times
        self._has_ctc = options.get("ctc_weight") != 0

    @classmethod
    @names_run
    def load(
        cls,
        run,
        device=None,
        *,
        decoding=None,
        beam_size=None,
        lm=None,
        no_lm=False,
        ctc_only=False,
        chunk_size=None,
        lm_weight=None,
    ):
        """The recogniser of a run.

        Arguments
        ---------
        run : str or Path
            Output folder of `train_CTC.py` or `train_S2S.py`, this project's or those of xi-j/Mamba-ASR, wherever it
            lies now.
        device : str or torch.device, optional
            A CUDA device if there is one, else the CPU.
        decoding : str, optional
            Decoding of a CTC run, `greedy` or `beam`; by default the run's `test_decoding`.
        beam_size : int, optional
            Hypotheses of the beam search; by default the run's.
        lm : str or Path, optional
            Language model of the search, see :func:`mamba_speech.asr.language_model.load_language_model`; by default
            an S2S run's own, if it has one. A CTC run takes a run of `train_LM.py`, and decodes by `beam`.
        no_lm : bool
            Search without the run's language model.
        ctc_only : bool
            Best path of an S2S run's CTC output, which is fast and less accurate than the search.
        chunk_size : int, optional
            Frames of the encoder in a chunk, of a streaming run that is not causal; by default the run's own. A
            recording that is shorter than a chunk is heard whole.
        lm_weight : float, optional
            Weight of the language model, 0 or more; by default an S2S run's own, and 0.5 for a CTC run.

        Raises
        ------
        FileNotFoundError, ValueError
            If the run or its language model cannot be loaded, see :func:`mamba_speech.run.load_run`; if an
            option is unknown, or not one of the run's kind; if a chunk has no frame.
        RuntimeError
            If the device is not there.
        """
        device = choose_device(device)
        options = load_recogniser(run)
        if chunk_size is not None:
            set_chunks(options, chunk_size)
        tokenizer = Tokenizer(options["tokenizer_file"])
        options["model"].to(device)
        decode = decoder_of_run(
            options, run, tokenizer, decoding, beam_size, lm, no_lm, ctc_only, lm_weight
        )
        return cls(options, tokenizer, decode, device)

    def transcribe(
        self,
        audio,
        sample_rate=None,
        *,
        batch_seconds=BATCH_SECONDS,
        word_times=False,
        nbest=1,
        max_window_seconds=MAX_WINDOW_SECONDS,
        vad="auto",
        progress=None,
    ):
        """Recognise one recording or many.

        Many are taken in batches of like length; with `fidelity: upstream`, one at a time.

        Arguments
        ---------
        audio, sample_rate
            One recording or many, see :func:`mamba_speech.recordings.recordings_of`.
        batch_seconds : float
            Audio in a batch, padding included; a longer recording is a batch of its own.
        word_times : bool
            Whether the words are told with their times, see :func:`mamba_speech.asr.word_times.time_words`.
        nbest : int
            Most texts of one recording that are told with their scores; a beam search finds more than one.
        max_window_seconds : float
            Longest recording that is recognised as a whole, and longest window of longer ones.
        vad : str
            Gate that gives recordings and windows without speech an empty text: `auto`, `silero`, `energy` or `off`,
            see :func:`mamba_speech.asr.voice_activity.make_gates`. A text of the search is dropped too where the CTC
            output is sure of silence in every frame.
        progress : callable, optional
            What is called with a long :class:`mamba_speech.recordings.Recording` and the seconds of it that are done.

        Returns
        -------
        result : Transcript or iterator of Transcript
            For many recordings, an iterator in their order, of results as they become ready. An unusable recording
            gives a result with ``error``, and the others go on.

        Raises
        ------
        mamba_speech.audio.AudioError
            If a single recording is no usable audio.
        ValueError
            If `batch_seconds` is not positive, or a waveform has no sample rate; see also :meth:`check_details` and
            :func:`mamba_speech.asr.long_recordings.check_window`.
        RuntimeError
            If the package of a gate is not installed.
        """
        if not batch_seconds > 0:
            raise ValueError(f"batch_seconds must be more than 0; got {batch_seconds}")
        self.check_details(word_times, nbest)
        recordings, many = recordings_of(audio, sample_rate)
        chunk = getattr(self.model, "chunk_size", None) or 0
        chunk_seconds = chunk * self._frame_seconds if chunk else 0.0
        if max_window_seconds == MAX_WINDOW_SECONDS:
            # who has not asked for windows gets one that holds the chunk
            max_window_seconds = min(LONGEST_WINDOW, max(max_window_seconds, chunk_seconds))
            chunk_seconds = 0.0
        check_window(max_window_seconds, chunk_seconds)
        gates = self._gates[vad] = self._gates.get(vad) or make_gates(vad)
        wanted = {"word_times": word_times, "nbest": nbest}
        results = self._transcribe(
            recordings, batch_seconds, max_window_seconds, wanted, gates, progress
        )
        return one_or_each(results, many)

    def check_details(self, word_times=False, nbest=1):
        """Refuse details that the run cannot give: word times of an S2S run without a CTC loss, more than a beam holds.

        Raises
        ------
        ValueError
        """
        if word_times and not self._has_ctc:
            raise ValueError(
                "the run was trained with ctc_weight 0, and times come from the CTC output: leave out word_times and "
                "confidence, and of the formats take txt"
            )
        self.decode.check_nbest(nbest)

    def _transcribe(self, recordings, batch_seconds, longest, wanted, gates, progress):
        def recognise(waveforms, details):
            found, details = {}, details | {"gate": gates[1]}
            for some in self._heard(dict(enumerate(waveforms)), batch_seconds, details):
                found |= some
            return [found[key] for key in range(len(waveforms))]

        each = 0 if self.fidelity == "upstream" else batch_seconds
        ahead = BATCHES_AHEAD * batch_seconds
        for window in read_ahead(recordings, self.sample_rate, ahead, longest):
            if isinstance(window, Recording):
                yield transcribe_long(
                    recognise, window, self.sample_rate, longest, each, wanted, progress
                )
                continue
            yield from self._transcribe_window(window, batch_seconds, wanted | {"gate": gates[0]})
            window.clear()

    def _transcribe_window(self, window, batch_seconds, wanted):
        waveforms = {
            index: one for index, (_, one, _) in enumerate(window) if isinstance(one, torch.Tensor)
        }
        found, stopped = dict(enumerate(one for _, one, _ in window)), None
        try:
            for some in self._heard(waveforms, batch_seconds, wanted):
                found |= some
        except KeyboardInterrupt as interrupt:
            # what is done is told first
            stopped = interrupt
        for (recording, one, odd), result in zip(window, found.values(), strict=True):
            if isinstance(result, dict):
                seconds = len(one) / self.sample_rate
                told = {"seconds": seconds, "warnings": tuple(odd)}
                yield Transcript(**result, **recording.place(), **told)
            elif not isinstance(result, torch.Tensor):
                error = recording_fault(recording.name, result)
                yield Transcript(**recording.place(), error=error)
        if stopped is not None:
            raise stopped

    def _heard(self, waveforms, batch_seconds, wanted):
        """Dictionaries of results, or errors, by the keys of waveforms, batch by batch."""
        gate, silent = wanted["gate"], {"text": ""}
        if wanted["word_times"]:
            silent["words"] = ()
        if wanted["nbest"] > 1:
            silent["nbest"] = (Hypothesis("", 0.0),)
        speech = {}
        for key, waveform in waveforms.items():
            if gate is None or gate(waveform, self.sample_rate):
                speech[key] = waveform
            else:
                yield {key: dict(silent)}
        limit = 0 if self.fidelity == "upstream" else batch_seconds * self.sample_rate
        for batch in batches_of(speech, limit):
            yield self._recognise_each(batch, speech, wanted)
            return_freed_memory()

    @torch.inference_mode()
    def align(self, audio, sample_rate=None, text=None):
        """Recognise one recording by its best path, with times; or tell when a known text is said.

        Arguments
        ---------
        audio : str, Path, numpy.ndarray or torch.Tensor
        sample_rate : int, optional
            Samples a second of a waveform.
        text : str, optional
            Another text than the best path's, such as that of :meth:`transcribe`.

        Returns
        -------
        alignment : Alignment

        Raises
        ------
        mamba_speech.audio.AudioError
            If the recording is no usable audio, or the model made of it values that are not finite.
        ValueError
            If the recording is too short for the text.
        """
        recording = Recording(audio, sample_rate)
        waveform = recording.load(self.sample_rate)
        inputs, features = self._inputs([waveform])
        try:
            log_probs, lengths = self._ctc_log_probs(*inputs)
        except ValueError as error:
            raise AudioError(recording_fault(recording.name, error)) from error
        log_probs = log_probs[0, : lengths[0], : len(self.tokenizer)].cpu()
        seconds = len(waveform) / self.sample_rate
        frame_seconds = self._hop_seconds
        step = self._frame_seconds
        if text is None:
            silent = (self.tokenizer.blank, *self.tokenizer.control)
            spans = best_path(log_probs, silent)
            text = self.tokenizer.decode([span.token for span in spans])
        else:
            spans = align_tokens(log_probs, self.tokenizer.encode(text), self.tokenizer.blank)
        # frame t stands for the time around t * step
        labels, offset = self.tokenizer.labels(), -0.5 * step
        tokens = [
            (
                labels[span.token],
                max(0.0, span.start * step + offset),
                min(seconds, span.end * step + offset),
            )
            for span in spans
        ]
        features = features[0].cpu()
        words = list(time_words(log_probs, text, self.tokenizer, step, seconds, features))
        return Alignment(recording.path, text, seconds, tokens, words, features, frame_seconds)

    def _recognise_each(self, keys, waveforms, wanted):
        """What :meth:`_recognise` gives, by key; of a recording on which the model fails, the error.

        It may be too long for the model's positional table, or a batch for the memory.
        """
        try:
            found = self._recognise([waveforms[key] for key in keys], **wanted)
            return dict(zip(keys, found, strict=True))
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            if len(keys) == 1:
                return {keys[0]: error}
        results = [self._recognise_each([key], waveforms, wanted) for key in keys]
        return {key: result for one in results for key, result in one.items()}

    @torch.inference_mode()
    def _recognise(self, waveforms, word_times=False, nbest=1, gate=None):
        """A dictionary a waveform, with some fields of its Transcript."""
        word_times = word_times and self._has_ctc
        inputs, features = self._inputs(waveforms)
        if isinstance(self.decode, S2SDecoder):
            outputs, lengths = self.model.encode(*inputs)
            check_finite(outputs, lengths)
            checked = gate is not None and self._has_ctc
            log_probs = self.model.ctc_log_probs(outputs) if word_times or checked else None
        else:
            outputs, lengths = (one.cpu() for one in self._ctc_log_probs(*inputs))
            log_probs, checked = outputs, False
        if nbest == 1:
            found = [{"text": text} for text in self.decode(outputs, lengths)]
        else:
            several = self.decode.nbest(outputs, lengths, nbest)
            found = [{"text": one[0].text, "nbest": tuple(one)} for one in several]
        if checked:
            drop_unsupported(found, log_probs[..., self.tokenizer.blank], lengths)
        if word_times:
            for one, *heard in zip(found, log_probs, lengths, waveforms, features, strict=True):
                one["words"] = self._words(one["text"], *heard)
        return found

    def _words(self, text, log_probs, frames, waveform, features):
        """Timed words; log_probs (time, outputs) and features (time, mels) may be padded."""
        log_probs = log_probs[:frames, : len(self.tokenizer)].cpu()
        features = features[: 1 + len(waveform) // self.compute_features.hop]
        seconds = len(waveform) / self.sample_rate
        step = self._frame_seconds
        return time_words(log_probs, text, self.tokenizer, step, seconds, features)

    @property
    def _hop_seconds(self):
        return self.compute_features.hop / self.sample_rate

    @property
    def _frame_seconds(self):
        return self._hop_seconds * math.prod(self.model.CNN.strides)

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
            log_probs = self.model.ctc_log_probs(encoded)
        else:
            log_probs, lengths = self.model(*inputs)
        check_finite(log_probs, lengths)
        return log_probs, lengths

"""Speech recognition with a trained run: text from audio files, and when each unit was heard.

Also the command `mamba-speech transcribe`, registered in :mod:`inference.cli`.

Source of best-path decoding: Graves et al., "Connectionist temporal classification", ICML 2006,
section 3.2.
"""

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import soundfile
import torch
from speechbrain.decoders import ctc_greedy_decode
from speechbrain.decoders.ctc import CTCBeamSearcher

from inference.audio import AudioError, load_audio
from inference.run import choose_device, load_run
from inference.units import Units
from modules.lengths import relative_lengths

DECODINGS = ("greedy", "beam")
# The options of beam search, by the names that SpeechBrain's searcher has for them.
BEAM_OPTIONS = {
    "ngram_lm": "kenlm_model_path",
    "ngram_weight": "alpha",
    "word_bonus": "beta",
    "beam_size": "beam_size",
    "beam_prune_logp": "beam_prune_logp",
    "token_prune_min_logp": "token_prune_min_logp",
    "prune_history": "prune_history",
}
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
    """Where the most probable path through an utterance puts its units.

    Attributes
    ----------
    path : str
    text : str
        Best-path text.
    seconds : float
        Duration of the audio.
    units : list of (str, float, float)
        Each unit with the start and the end, in seconds, of the frames that carry it. CTC leaves
        most frames blank, so these are marks near the sounds rather than their extent.
    features : torch.Tensor
        Log-mel energies in dB, (frames, mels).
    frame_seconds : float
        Time between two frames of the features; the first is centred on 0.
    """

    path: str
    text: str
    seconds: float
    units: list
    features: torch.Tensor
    frame_seconds: float


class CTCDecoder:
    """From log-probabilities to text: the best path, or SpeechBrain's beam search.

    Arguments
    ---------
    units : inference.units.Units
    decoding : str
        `greedy` or `beam`.
    **options
        Of beam search, see :data:`BEAM_OPTIONS`; `ngram_lm`, a KenLM file, may be None.

    Raises
    ------
    ValueError
        If the decoding is unknown or the beam is empty.
    FileNotFoundError
        If there is no such n-gram file.
    RuntimeError
        If an n-gram is given and the package kenlm is not installed.
    """

    def __init__(self, units, decoding="greedy", **options):
        if decoding not in DECODINGS:
            raise ValueError(f"decoding must be {' or '.join(DECODINGS)}; got {decoding!r}")
        self.units, self.decoding = units, decoding
        self._search = _beam_searcher(units, options) if decoding == "beam" else None

    def __call__(self, log_probs, frames):
        """Decode a batch.

        Arguments
        ---------
        log_probs : torch.Tensor
            (batch, time, units); wider than there are units is allowed.
        frames : torch.Tensor
            (batch,) frame counts.

        Returns
        -------
        texts : list of str
        """
        known = log_probs[..., : len(self.units)]
        if self._search is None:
            relative = relative_lengths(frames, known.shape[1])
            best = ctc_greedy_decode(known, relative, blank_id=self.units.blank)
            return [self.units.decode(indices) for indices in best]
        # start and end of a sentence are never targets, and have no text
        known = known.clone()
        known[..., list(self.units.control)] = -torch.inf
        # one utterance at a time and cut to its frames: the searcher rounds relative lengths down
        pairs = zip(known, frames, strict=True)
        return [self._search(item[None, :count])[0][0].text for item, count in pairs]


def _beam_searcher(units, options):
    options = {BEAM_OPTIONS[name]: value for name, value in options.items()}
    if options.get("beam_size", 1) < 1:
        raise ValueError(f"beam_size must be 1 or more; got {options['beam_size']}")
    try:
        return CTCBeamSearcher(blank_index=units.blank, vocab_list=units.labels(), **options)
    except ImportError as error:
        raise RuntimeError("ngram_lm needs the package kenlm: pip install kenlm") from error
    except OSError as error:
        raise FileNotFoundError(
            f"ngram_lm {options['kenlm_model_path']} can not be read; give a KenLM file ({error})"
        ) from error


class Recognizer:
    """A trained recogniser.

    An utterance is recognised as a whole, so that memory grows with its length: on the CPU about
    100 MB for each minute of audio with `conmamba_mini` and 150 MB with `conmamba_large`, which for
    an hour comes to 6 and 9 GB. Cut longer recordings into parts first.

    Arguments
    ---------
    run_folder : str or Path
        Output folder of a run of `train_CTC.py`, wherever it lies now.
    device : str or torch.device, optional
        A CUDA device if there is one, else the CPU.
    decoding : str, optional
        `greedy` or `beam`; by default the run's `test_decoding`.

    Raises
    ------
    FileNotFoundError, ValueError
        If the run can not be loaded, see :func:`inference.run.load_run`, or an option is unknown.
    RuntimeError
        If the device is not there.

    Example
    -------
    Not run here, since it needs a trained run::

        recognizer = Recognizer("results/demo/run")
        for result in recognizer.transcribe(["a.wav", "b.flac"]):
            print(result.path, result.error or result.text)
    """

    def __init__(self, run_folder, device=None, decoding=None):
        self.device = choose_device(device)
        run = load_run(
            run_folder,
            wanted=["compute_features", "normalize", "sample_rate", "fidelity", "units_file"],
            optional=["test_decoding", *BEAM_OPTIONS],
        )
        self.sample_rate, self.fidelity = run["sample_rate"], run["fidelity"]
        self.units = Units(run["units_file"])
        options = {name: run[name] for name in BEAM_OPTIONS if name in run}
        self.decode = CTCDecoder(
            self.units, decoding or run.get("test_decoding", "greedy"), **options
        )
        self.compute_features = run["compute_features"].to(self.device)
        self.normalize = run["normalize"].to(self.device)
        self.model = run["model"].to(self.device)

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
            texts = {}
            for batch in self._batches(waveforms, batch_seconds):
                texts |= zip(batch, self._recognise([waveforms[i] for i in batch]), strict=True)
            for index, (path, one) in enumerate(window):
                if index in texts:
                    yield Transcript(path, texts[index], len(one) / self.sample_rate)
                else:
                    yield Transcript(path, None, 0.0, str(one))

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
        inference.audio.AudioError
            If the file is no usable audio.
        """
        waveform = load_audio(path, self.sample_rate)
        log_probs, frames, features = self._forward([waveform])
        best = log_probs[0, : frames[0], : len(self.units)].argmax(-1).tolist()
        seconds = len(waveform) / self.sample_rate
        frame_seconds = self.compute_features.hop / self.sample_rate
        step = frame_seconds * math.prod(self.model.CNN.strides)
        labels, units, indices, start = self.units.labels(), [], [], 0
        for index, run in groupby(best):
            end = start + sum(1 for _ in run)
            if index != self.units.blank:
                # frame t stands for the time around t * step
                span = (max(0.0, (start - 0.5) * step), min(seconds, (end - 0.5) * step))
                units.append((labels[index], *span))
                indices.append(index)
            start = end
        text = self.units.decode(indices)
        return Alignment(str(path), text, seconds, units, features[0].cpu(), frame_seconds)

    def _windows(self, paths, batch_seconds):
        """Lists of (path, waveform or AudioError), each about as long as `BATCHES_AHEAD` batches."""
        window, samples = [], 0
        for path in paths:
            try:
                if Path(path).is_dir():
                    raise AudioError(f"{path}: a folder in which there is no audio file")
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

    @torch.inference_mode()
    def _recognise(self, waveforms):
        log_probs, frames, _ = self._forward(waveforms)
        return self.decode(log_probs.cpu(), frames.cpu())

    def _forward(self, waveforms):
        """Log-probabilities (batch, time, units), their counts, and features (batch, frames, mels)."""
        samples = torch.tensor([len(waveform) for waveform in waveforms])
        wavs = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True).to(self.device)
        wav_lens = (samples / wavs.shape[1]).to(self.device)
        features, frames = self.compute_features(wavs, samples=samples)
        normalised = self.normalize(features, relative_lengths(frames, features.shape[1]))
        log_probs, out_frames, _ = self.model(normalised, frames, wav_lens)
        return log_probs, out_frames, features


def _is_audio(value):
    return isinstance(value, torch.Tensor)


def add_arguments(parser):
    """Give the parser of `mamba-speech transcribe` its arguments."""
    parser.add_argument("run_folder", metavar="RUN_FOLDER", help="output folder of a training run")
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="audio file, or folder to search for audio"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: cuda, else cpu")
    parser.add_argument("--decoding", choices=DECODINGS, help="default: the run's test_decoding")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")
    parser.add_argument(
        "--batch_seconds",
        type=positive_number,
        default=BATCH_SECONDS,
        help="audio in a batch: less needs less memory, more may be faster (default: %(default)g)",
    )
    parser.epilog = (
        "Prints a line a file: its path, a tab, and the text. Files that can not be read are left "
        "out, and listed on stderr at the end; then the exit status is 1."
    )


def run_command(arguments):
    """Run `mamba-speech transcribe`; returns the exit status, 0 if every file was good."""
    recognizer = Recognizer(arguments.run_folder, arguments.device, arguments.decoding)
    bad = []
    files = find_audio(arguments.files)
    for result in recognizer.transcribe(files, arguments.batch_seconds):
        if result.error is not None:
            bad.append(result.error)
        if arguments.json:
            shown = {key: value for key, value in asdict(result).items() if value is not None}
            print(json.dumps(shown, ensure_ascii=False), flush=True)
        elif result.error is None:
            print(f"{result.path}\t{result.text}", flush=True)
    if bad:
        count = "1 file was" if len(bad) == 1 else f"{len(bad)} files were"
        print(f"mamba-speech: {count} not transcribed:", *bad, sep="\n  ", file=sys.stderr)
    return 1 if bad else 0


def find_audio(paths):
    """The given files, and the audio files under the given folders, sorted within each.

    Arguments
    ---------
    paths : list of str or Path

    Returns
    -------
    files : list of Path
        A folder without audio stands for itself, so that its error is not lost.
    """
    suffixes = {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"}
    suffixes |= {".aif", ".oga", ".opus"}
    files = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        # names that begin with a dot are other systems' notes about a file
        found = (one for one in path.rglob("[!.]*") if one.suffix.lower() in suffixes)
        files += sorted(one for one in found if one.is_file()) or [path]
    return files


def positive_number(text):
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be more than 0, not {text}")
    return value

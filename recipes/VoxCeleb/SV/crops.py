"""Training crops: pieces of recordings at a drawn speed, with noise and the sound of a room.

Sources: Snyder et al., "X-vectors: robust DNN embeddings for speaker recognition" (ICASSP 2018), for noise and rooms;
Yamamoto et al., "Speaker augmentation and bandwidth extension for deep speaker embedding" (Interspeech 2019), for
speeds as further speakers.
"""

import logging
import math
from functools import partial

import numpy as np
import torch
import torchaudio
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import SpeedPerturb
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.processing.signal_processing import reverberate
from torch.utils.data import Dataset

from mamba_speech.audio import AudioError, load_audio, open_audio
from training.replaced import ReplacedFiles

logger = logging.getLogger(__name__)

# draws in turn that may give no file that can be read
ATTEMPTS = 300


class TrainingCrops(Dataset):
    """A crop of each recording, of its longest length, drawn from the global generators.

    An item has ``id``, ``sig`` (samples,), ``target`` (class), and ``chance``, by which :class:`CropBatch` decides.

    Arguments
    ---------
    rows : Recordings
        Recordings of the training speakers.
    sample_rate, samples : int
        Rate of a crop, and its length.
    speeds : list of int
        Speeds in %; one speed is drawn. Each but 100 is another voice, so a speaker has a class a speed.
    augment : callable, optional
        Function of a crop (1, samples) and its relative length (1,), which returns both.
    crops : int
        Crops of each recording in an epoch.
    crops_of_speaker : int, optional
        Crops of each speaker in an epoch instead, of recordings that are drawn.
    drawn : iterable of DrawnFiles, optional
        What ``augment`` draws, to tell which of it could not be read.
    """

    def __init__(
        self,
        rows,
        sample_rate,
        samples,
        speeds=(100,),
        augment=None,
        crops=1,
        crops_of_speaker=None,
        drawn=(),
    ):
        self.drawn = list(drawn)
        self.rows, self.crops, self.crops_of_speaker = rows, crops, crops_of_speaker
        # recordings in the order of their speakers, and where each speaker's begin
        self.order = np.argsort(rows.speaker, kind="stable")
        self.first = np.searchsorted(rows.speaker[self.order], np.arange(rows.n_speakers + 1))
        self.sample_rate, self.samples = sample_rate, samples
        self.speeds, self.augment = list(speeds), augment
        self.perturb = [SpeedPerturb(sample_rate, [speed]) for speed in self.speeds]

    def __len__(self):
        if self.crops_of_speaker is not None:
            return self.rows.n_speakers * self.crops_of_speaker
        return len(self.rows) * self.crops

    @property
    def unreadable(self):
        """Noises and rooms that could not be read and were replaced: path to a sentence that says why."""
        return {path: why for one in self.drawn for path, why in one.replaced.unreadable.items()}

    def _choose(self, index):
        """The recording of an item."""
        if self.crops_of_speaker is None:
            return index % len(self.rows)
        first, end = self.first[index % self.rows.n_speakers :][:2]
        return self.order[first + int(torch.randint(int(end - first), ()))]

    def __getitem__(self, index):
        index = self._choose(index)
        chance = float(torch.rand(()))
        # without a draw where there is no choice
        voice = int(torch.randint(len(self.speeds), ())) if len(self.speeds) > 1 else 0
        crop = self._read(index, voice)
        if self.augment is not None:
            crop = self.augment(crop[None], torch.ones(1))[0][0]
        target = int(self.rows.speaker[index]) + voice * self.rows.n_speakers
        return {"id": self.rows.wav[index], "sig": crop, "target": target, "chance": chance}

    def _read(self, index, voice):
        """A piece of a recording at one of the speeds, (samples,); a short recording is repeated."""
        start, stop = int(self.rows.start[index]), int(self.rows.stop[index])
        rate = int(self.rows.rate[index])
        # a few samples more, since resampling rounds
        wanted = math.ceil(self.samples * self.speeds[voice] / 100 * rate / self.sample_rate) + 16
        if stop - start > wanted:
            start += int(torch.randint(stop - start - wanted + 1, ()))
            stop = start + wanted
        crop = load_audio(self.rows.wav[index], self.sample_rate, start, stop)
        if self.speeds[voice] != 100:
            crop = self.perturb[voice](crop[None])[0]
        return repeat_to(crop, self.samples)


def repeat_to(waveform, samples):
    """The first ``samples`` of a waveform that is repeated as often as that needs.

    Example
    -------
    >>> import torch
    >>> repeat_to(torch.arange(3), 7).tolist(), repeat_to(torch.arange(3), 2).tolist()
    ([0, 1, 2, 0, 1, 2, 0], [0, 1])
    """
    return waveform.repeat(-(-samples // len(waveform)))[:samples]


class CropBatch:
    """Batches of crops of one length, which the first crop's ``chance`` draws.

    Arguments
    ---------
    shortest, longest : int
        Samples of a crop.

    Raises
    ------
    ValueError
        If the longest is shorter than the shortest, or this below 1.

    Example
    -------
    >>> import torch
    >>> items = [{"sig": torch.arange(8.0), "chance": chance} for chance in (0.5, 0.1)]
    >>> CropBatch(4, 8)(items).sig.data.shape
    torch.Size([2, 6])
    """

    def __init__(self, shortest, longest):
        if not 0 < shortest <= longest:
            raise ValueError(
                "crop_seconds must be above 0, and crop_seconds_max no less; got "
                f"{shortest} and {longest} samples"
            )
        self.shortest, self.longest = shortest, longest

    def __call__(self, items):
        """A PaddedBatch of ``items``, as the data set yields them."""
        length = self.shortest + int(items[0]["chance"] * (self.longest - self.shortest + 1))
        return PaddedBatch([item | {"sig": item["sig"][:length]} for item in items])


class SilentError(AudioError):
    """A file without a sound, where one is needed."""


class DrawnFiles:
    """Files, drawn one at a time; a file that cannot be read is replaced by another draw.

    Arguments
    ---------
    files : list of str

    Attributes
    ----------
    replaced : ReplacedFiles
    """

    def __init__(self, files):
        self.replaced = ReplacedFiles(files)

    def draw(self, read):
        """What ``read`` makes of a file that is drawn.

        Arguments
        ---------
        read : callable
            Function of a path that may raise AudioError.

        Raises
        ------
        AudioError
            Of the last file, if 300 draws in turn gave none that can be read.
        """
        for _ in range(ATTEMPTS):
            path = self.replaced.paths[int(torch.randint(len(self.replaced), ()))]
            try:
                return read(path)
            except AudioError as error:
                failed = error
                fault = "silent" if isinstance(error, SilentError) else "unreadable"
                if self.replaced.note(path, fault):
                    logger.warning("%s; another file is drawn instead", error)
        raise failed


class NoisePieces:
    """Random pieces of noise recordings, as ``noise_funct`` of SpeechBrain's AddNoise.

    SpeechBrain's own list of recordings takes them at one rate and in an order that no checkpoint holds.

    Arguments
    ---------
    files : list of str
        Noise recordings of any rate.
    sample_rate : int
        Rate of the waveforms.
    """

    def __init__(self, files, sample_rate):
        self.files, self.sample_rate = DrawnFiles(files), sample_rate

    def __call__(self, waveforms):
        """Noise of the shape (batch, samples) of ``waveforms``; a shorter recording is repeated."""
        read = partial(self._read, samples=waveforms.shape[1])
        pieces = [self.files.draw(read) for _ in waveforms]
        return torch.stack(pieces).to(waveforms)

    def _read(self, path, samples):
        with open_audio(path) as audio:
            rate, frames = audio.rate, audio.frames or audio.check_end()
        wanted = math.ceil(samples * rate / self.sample_rate) + 16
        start = int(torch.randint(max(1, frames - wanted + 1), ()))
        stop = min(frames, start + wanted)
        return repeat_to(load_audio(path, self.sample_rate, start, stop), samples)


class RoomSound(torch.nn.Module):
    """The sound of a room, by a random impulse response and SpeechBrain's ``reverberate``.

    Arguments
    ---------
    files : list of str
        Impulse responses of any rate.
    sample_rate : int
        Rate of the waveforms.
    """

    def __init__(self, files, sample_rate):
        super().__init__()
        self.files, self.sample_rate = DrawnFiles(files), sample_rate

    def forward(self, waveforms):
        """Waveforms (batch, samples) in one room, as loud as before on average."""
        response = self.files.draw(self._read)[: waveforms.shape[1]].to(waveforms)
        return reverberate(waveforms, response, rescale_amp="avg")

    def _read(self, path):
        response = load_audio(path, self.sample_rate)
        if not response.any():
            raise SilentError(f"{path}: is silent, and no room")
        return response


class TimeStretch(torch.nn.Module):
    """Another tempo at the same pitch, by a phase vocoder.

    Arguments
    ---------
    low, high : float
        Slowest and fastest tempo, 1 being the recording's own.
    n_fft : int
        Samples of a frame of its spectrum.

    Example
    -------
    >>> import torch
    >>> TimeStretch(0.8, 0.8)(torch.randn(1, 8000)).shape
    torch.Size([1, 8000])
    """

    # a whole frame of the spectrum
    min_samples = 512

    def __init__(self, low, high, n_fft=min_samples):
        super().__init__()
        self.low, self.high, self.n_fft = low, high, n_fft
        hop = n_fft // 4
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        advance = torch.linspace(0, math.pi * hop, n_fft // 2 + 1)[:, None]
        self.register_buffer("advance", advance, persistent=False)

    def forward(self, waveforms):
        """Stretch ``waveforms`` (batch, samples); the length stays, since short results are repeated."""
        tempo = self.low + (self.high - self.low) * float(torch.rand(()))
        options = {"hop_length": self.n_fft // 4, "window": self.window}
        spectrum = torch.stft(waveforms, self.n_fft, return_complex=True, **options)
        spectrum = torchaudio.functional.phase_vocoder(spectrum, tempo, self.advance)
        stretched = torch.istft(spectrum, self.n_fft, **options)
        return torch.stack([repeat_to(one, waveforms.shape[1]) for one in stretched])


def make_augmenter(changes, probability):
    """SpeechBrain's Augmenter over some changes: one or more of them are drawn, in any order.

    Arguments
    ---------
    changes : list of torch.nn.Module
    probability : float
        Part of the crops that are changed.

    Returns
    -------
    Augmenter or None
        None if there is nothing to change.
    """
    if not changes or not probability:
        return None
    return Augmenter(
        parallel_augment=False,
        concat_original=False,
        repeat_augment=1,
        shuffle_augmentations=True,
        min_augmentations=1,
        max_augmentations=len(changes),
        augment_prob=probability,
        augmentations=list(changes),
    )

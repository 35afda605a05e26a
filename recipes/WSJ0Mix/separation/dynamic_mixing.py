"""Dynamic mixing: training mixtures made as they are asked for, from recordings of single speakers.

Every epoch hears other pairs of utterances, at other levels and speeds. Each mixture follows from the seed,
the epoch and its index alone, so neither the number of workers or processes nor a resumed run changes it.
Source of the levels and of the scheme: the published recipe's utils/dynamic_mixing.py, after SpeechBrain's.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from single_speakers import find_speakers
from speechbrain.augment.time_domain import SpeedPerturb
from torchaudio.functional import loudness as measure_loudness

from mamba_speech.audio import AudioError, load_audio
from training.replaced import REASONS, ReplacedFiles

logger = logging.getLogger(__name__)

# what ITU-R BS.1770 counts as silence, in dB below full scale, and the shortest sound that it measures
SILENCE_DB = -70.0
LOUDNESS_SECONDS = 0.4
PEAK = 0.9
# as published: mean and deviation of the first speaker's level, and of the others' relative to it, in dB
FIRST_LEVEL = (-27.43, 2.57)
RELATIVE_LEVEL = (-2.51, 2.66)
LEVEL_RANGE = (-45.0, 0.0)
# of LibriMix (Cosentino et al., arXiv 2005.11262, section 2.2)
LOUDNESS_RANGE = (-33.0, -25.0)
# an example is drawn again this often before the recordings are called unusable
ATTEMPTS = 300
_, UNREADABLE, SILENT = REASONS


class DynamicMixingDataset(torch.utils.data.Dataset):
    """Mixtures of utterances of different speakers, drawn anew every epoch.

    Speakers are drawn by how much they have said, without replacement, and of each an utterance and a speed.
    The mixture is as long as the shortest of them or ``training_signal_len``, from a random place in each;
    only that part of a file is read. A recording that proves broken, or silent where it was cut, is replaced
    by another draw; `redrawn` tells which.

    Arguments
    ---------
    base_folder : str or Path
        Mono WAV or FLAC files. The speaker is the first folder below it, or what the names say where they are those
        of WSJ0 (011a0101.wav) or LibriSpeech (103-1240-0000.flac).
    num_spks : int
        Speakers a mixture.
    sample_rate : int
        Hz, of every file.
    length : int
        Mixtures an epoch.
    training_signal_len : int
        Longest mixture, in samples.
    seed : int
    speed_changes : list of float
        Speeds in %; one is drawn for each source.
    use_speedperturb : bool
        Whether to change the speed at all.
    loudness : str
        ``rms``: levels by root mean square, drawn as published (normal; the first -27.4 +- 2.6 dB, the others
        2.5 +- 2.7 dB below it), and the whole scaled to a peak of 0.9, as WSJ0-2mix is. ``lufs``: loudness by
        ITU-R BS.1770 from -33 to -25 LUFS, as in LibriMix, scaled down only where the peak would pass 0.9.

    Raises
    ------
    FileNotFoundError
        If the folder is missing or holds no audio.
    ValueError
        If most files are of another rate, or no speaker can be told from their names and places; if there are
        fewer speakers than ``num_spks``; if an option is outside its range.

    Example
    -------
    >>> import tempfile, numpy, soundfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for speaker in ("anna", "bert"):
    ...     (folder / speaker).mkdir()
    ...     noise = 0.1 * numpy.random.default_rng(len(speaker)).standard_normal(16000)
    ...     soundfile.write(folder / speaker / "1.wav", noise, 8000)
    >>> mixtures = DynamicMixingDataset(folder, 2, 8000, length=5, training_signal_len=4000)
    >>> mixtures.set_epoch(1)
    >>> example = mixtures[0]
    >>> example["samples"], torch.equal(example["mix_sig"], example["s1_sig"] + example["s2_sig"])
    (4000, True)
    """

    def __init__(
        self,
        base_folder,
        num_spks,
        sample_rate,
        length,
        training_signal_len,
        seed=0,
        speed_changes=(95, 100, 105),
        use_speedperturb=True,
        loudness="rms",
    ):
        _check_options(num_spks, sample_rate, length, training_signal_len, speed_changes, loudness)
        self.base_folder = Path(base_folder).absolute()
        self.num_spks, self.sample_rate, self.length = num_spks, sample_rate, length
        self.training_signal_len = training_signal_len
        self.seed, self.loudness = seed, loudness
        speeds = list(speed_changes) if use_speedperturb else [100]
        # its resamplers, but not its draw, which takes from torch's global generator
        self.resamplers = SpeedPerturb(sample_rate, speeds).resamplers
        self.speakers, self.skipped = find_speakers(self.base_folder, sample_rate)
        if len(self.speakers) < num_spks:
            raise ValueError(
                f"{self.base_folder}: too few speakers for dynamic mixing: {len(self.speakers)} "
                f"({', '.join(self.speakers)}) where a mixture needs {num_spks}; a speaker is a folder below "
                "--base_folder_dm: give a folder with more of them, or lower --num_spks"
            )
        self._names = list(self.speakers)
        spoken = [sum(one.frames for one in self.speakers[name]) for name in self._names]
        self._weights = np.array(spoken, dtype=np.float64) / sum(spoken)
        # shared with the workers, as is which files were found at fault: the epoch that was set
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        everyone = [one.path for name in self._names for one in self.speakers[name]]
        self._replaced = ReplacedFiles(everyone)

    def __len__(self):
        return self.length

    def set_epoch(self, epoch):
        """Say which epoch's mixtures are wanted from now on, before the loader is iterated."""
        self._epoch.fill_(epoch)

    @property
    def redrawn(self):
        """Recordings that were drawn and replaced so far, by any worker: path to reason."""
        return self._replaced.reasons

    @property
    def unreadable(self):
        """Recordings that were drawn, could not be read, and were replaced: path to a sentence that says why."""
        return self._replaced.unreadable

    def __getitem__(self, index):
        """One mixture.

        Returns
        -------
        dict
            ``id``: epoch, index, and the names of the recordings; ``mix_sig``, ``s1_sig``, ``s2_sig``, ...:
            (samples,) float32, the mixture being the sum of its sources; ``samples``: their length.

        Raises
        ------
        AudioError
            If 300 draws in turn gave nothing that can be mixed.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"mixture {index} of {self.length}")
        epoch = int(self._epoch)
        random = np.random.default_rng((self.seed, epoch, index))
        for _ in range(ATTEMPTS):
            try:
                recordings, sources = self._draw(random)
            except _UnusableError as error:
                self._note(error)
                continue
            names = "_".join(Path(one.path).stem for one in recordings)
            example = {"id": f"{epoch}-{index}_{names}", "mix_sig": sources.sum(0)}
            example |= {f"s{number}_sig": one for number, one in enumerate(sources, start=1)}
            return example | {"samples": sources.shape[1]}
        raise AudioError(
            f"{self.base_folder}: {ATTEMPTS} draws in turn gave nothing to mix; "
            f"{len(self.redrawn)} of {len(self._replaced)} recordings were found unreadable or silent: "
            "look at them, for example at " + ", ".join(list(self.redrawn)[:3])
        )

    def _draw(self, random):
        """Recordings of different speakers, and their sources (speakers, samples)."""
        chosen = random.choice(len(self._names), self.num_spks, replace=False, p=self._weights)
        utterances = [self.speakers[self._names[speaker]] for speaker in chosen]
        recordings = [files[random.integers(len(files))] for files in utterances]
        changes = [self.resamplers[random.integers(len(self.resamplers))] for _ in recordings]
        pairs = list(zip(recordings, changes, strict=True))
        samples = min(one.frames * change.new_freq // change.orig_freq for one, change in pairs)
        samples = min(samples, self.training_signal_len)
        sources = torch.stack([self._cut(*pair, samples, random) for pair in pairs])
        return recordings, self._set_levels(recordings, sources, random)

    def _cut(self, recording, change, samples, random):
        """A part of a recording from a random place that gives so many samples at its new speed."""
        wanted = -(-samples * change.orig_freq // change.new_freq)
        start = int(random.integers(recording.frames - wanted + 1))
        try:
            waveform = load_audio(recording.path, self.sample_rate, start, start + wanted)
        except AudioError as error:
            raise _UnusableError(recording, UNREADABLE, str(error)) from error
        if len(waveform) < wanted:
            raise _UnusableError(
                recording, UNREADABLE, f"{recording.path}: is shorter than when it was found"
            )
        if waveform.square().mean() < 10 ** (SILENCE_DB / 10):
            raise _UnusableError(
                recording, SILENT, f"{recording.path}: silent from sample {start} on"
            )
        return change(waveform[None])[0, :samples]

    def _set_levels(self, recordings, sources, random):
        if self.loudness == "rms":
            first = np.clip(random.normal(*FIRST_LEVEL), *LEVEL_RANGE)
            others = first + random.normal(*RELATIVE_LEVEL, self.num_spks - 1)
            wanted = np.clip([first, *others], *LEVEL_RANGE)
            found = 10 * sources.square().mean(1).log10()
        else:
            wanted = random.uniform(*LOUDNESS_RANGE, self.num_spks)
            found = torch.stack([measure_loudness(one[None], self.sample_rate) for one in sources])
            for recording, level in zip(recordings, found.tolist(), strict=True):
                # not a number where no block is louder than the gate
                if not level >= SILENCE_DB:
                    raise _UnusableError(
                        recording, SILENT, f"{recording.path}: too quiet to measure"
                    )
        gains = 10 ** ((torch.from_numpy(wanted) - found) / 20)
        sources = sources * gains[:, None].float()
        peak = max(float(sources.abs().max()), float(sources.sum(0).abs().max()))
        if self.loudness == "rms" or peak > PEAK:
            sources = sources * (PEAK / peak)
        return sources

    def _note(self, error):
        if self._replaced.note(error.recording.path, error.fault):
            level = logging.INFO if error.fault == SILENT else logging.WARNING
            logger.log(level, "%s; another recording is drawn instead", error)


class _UnusableError(Exception):
    """A recording that cannot be mixed, with its fault."""

    def __init__(self, recording, fault, message):
        super().__init__(message)
        self.recording, self.fault = recording, fault


def _check_options(num_spks, sample_rate, length, training_signal_len, speed_changes, loudness):
    if num_spks < 2 or length < 1 or training_signal_len < 1:
        raise ValueError(
            "num_spks must be 2 or more, and the mixtures of an epoch and training_signal_len 1 or more; got "
            f"{num_spks}, {length} and {training_signal_len}"
        )
    if not speed_changes or min(speed_changes) <= 0:
        raise ValueError(f"speed_changes must be percentages above 0; got {speed_changes}")
    if loudness not in ("rms", "lufs"):
        raise ValueError(f"the loudness of dynamic mixing is rms or lufs; got {loudness}")
    if loudness == "lufs" and training_signal_len < LOUDNESS_SECONDS * sample_rate:
        raise ValueError(
            f"loudness is measured on {LOUDNESS_SECONDS} s and more: set --training_signal_len to "
            f"{round(LOUDNESS_SECONDS * sample_rate)} or more; got {training_signal_len}"
        )

"""Separating the speakers of recordings with a trained run or a published checkpoint.

Recordings may be of any format, rate and length; memory does not grow with the length of a file.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from mamba_speech.audio import AudioError, BlockResampler
from mamba_speech.blocks import Spool, write_sources
from mamba_speech.device import choose_device
from mamba_speech.plain_yaml import read_scalars
from mamba_speech.recordings import (
    Recording,
    RecordingResult,
    each_result,
    one_or_each,
    recordings_of,
)
from mamba_speech.run import OPTIONS_FILE, given_folder, load_run
from mamba_speech.run_errors import names_run
from mamba_speech.separation.loudness import Loudness
from mamba_speech.separation.published import LOSSES, load_published
from mamba_speech.separation.windows import separate_stream, separate_windows, whole_frames
from modules.separation.streaming import check_causal

WINDOW_SECONDS = 10.0
OVERLAP_SECONDS = 4.0
# Part of a window that two may share: then a second is separated ten times.
MOST_SHARED = 0.9


@dataclass(frozen=True, kw_only=True, eq=False)
class Separation(RecordingResult):
    """The speakers of one recording.

    Attributes
    ----------
    sources : torch.Tensor or None
        (samples, speakers), float32, on the CPU; None where there is an error.
    sample_rate : int
        Samples a second of the sources: the model's, whatever the recording's was.
    path, seconds, error, warnings
        See :class:`mamba_speech.recordings.RecordingResult`.

    Example
    -------
    >>> import tempfile
    >>> found = Separation(path="mix.wav", sources=torch.zeros(8, 2), sample_rate=8000, seconds=0.001)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in found.save(folder)]
    ['mix_s1.wav', 'mix_s2.wav']
    """

    sources: torch.Tensor | None = None
    sample_rate: int = 0

    def save(self, folder, name=None, overwrite=False):
        """Write one WAV file of 16 bits a speaker.

        Arguments
        ---------
        folder : str or Path
            Made if it is not there.
        name : str, optional
            What the names of the files begin with, before ``_s1.wav``; by default the recording's name.
        overwrite : bool
            Replacement of files that are there.

        Returns
        -------
        paths : list of Path

        Raises
        ------
        ValueError
            If the recording has no name, or there is nothing to save.
        FileExistsError
            If one of the files is there already, as it is after another recording of the same name.
        """
        if self.sources is None:
            raise ValueError(f"there is nothing to save: {self.error}")
        if name is None and self.path is None:
            raise ValueError("a waveform has no name: give save(folder, name)")
        name = Path(self.path).stem if name is None else name
        paths = source_paths(Path(folder) / name, self.sources.shape[1])
        there = next((path for path in paths if path.exists()), None)
        if there is not None and not overwrite:
            raise FileExistsError(
                f"{there} is there already: give overwrite=True to replace it, or another name or folder"
            )
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        write_sources(paths, [self.sources.numpy()], self.sample_rate)
        return paths


class Separator:
    """A trained separator: :meth:`load` a run, then :meth:`separate` recordings.

    Arguments
    ---------
    network : modules.separation.separator.SeparationNetwork
        In evaluation mode.
    sample_rate : int
    device : torch.device

    Attributes
    ----------
    network : modules.separation.separator.SeparationNetwork
    sample_rate : int
        Samples a second that the model takes; recordings of another rate are resampled.
    num_spks : int
        Sources that it gives.
    causal : bool
        Whether it carries its state along a recording; if not, it works in windows.

    Example
    -------
    Not run here, since it needs a trained run::

        separator = Separator.load("results/mambatasnet_mini/1234")
        separator.separate("mix.wav").save("separated")
    """

    def __init__(self, network, sample_rate, device):
        self.device, self.sample_rate = device, sample_rate
        self.network = network.to(device)
        self.num_spks = network.num_spks
        self.causal = _is_causal(network)

    @classmethod
    @names_run
    def load(cls, run, device=None):
        """The separator of a run.

        Arguments
        ---------
        run : str or Path
            Output folder of a run of the separation recipe, or a folder of the published layout, see
            :func:`mamba_speech.separation.published.load_published`.
        device : str or torch.device, optional
            A CUDA device if there is one, else the CPU.

        Raises
        ------
        FileNotFoundError, ValueError
            If the folder cannot be loaded, see :func:`mamba_speech.run.load_run`.
        RuntimeError
            If the device is not there.
        """
        device = choose_device(device)
        return cls(*load_separator(run), device)

    def separate(
        self,
        audio,
        sample_rate=None,
        *,
        level="mixture",
        window_seconds=WINDOW_SECONDS,
        overlap_seconds=OVERLAP_SECONDS,
    ):
        """Separate one recording or many, each in memory; :meth:`separate_file` needs none for long files.

        Arguments
        ---------
        audio, sample_rate
            One recording or many, see :func:`mamba_speech.recordings.recordings_of`.
        level : str
            ``mixture``: each source as loud as it is in the recording, so that they sum to it as well as they can; if
            one would pass 0.99, all are turned down by one factor. ``peak``: each as loud as it goes.
        window_seconds, overlap_seconds : float
            Windows of a network that is not causal. A recording no longer than a window is separated whole.

        Returns
        -------
        result : Separation or iterator of Separation
            For many recordings, an iterator in their order, of results as they become ready. An unusable recording
            gives a result with ``error``, and the others go on.

        Raises
        ------
        mamba_speech.audio.AudioError
            If a single recording is no usable audio.
        ValueError
            If an option is out of its range, or a waveform has no sample rate.
        """
        Loudness(level, fitted=not self.causal)
        self.check_windows(window_seconds, overlap_seconds)
        recordings, many = recordings_of(audio, sample_rate)

        def separate(recording):
            sources = self._separate(recording, level, window_seconds, overlap_seconds)
            return Separation(
                path=recording.path,
                seconds=len(sources) / self.sample_rate,
                sources=sources,
                sample_rate=self.sample_rate,
            )

        return one_or_each(each_result(recordings, separate, Separation), many)

    def _separate(self, recording, level, window_seconds, overlap_seconds):
        loudness = Loudness(level, fitted=not self.causal)
        waveform = recording.load(self.sample_rate)
        block = round(WINDOW_SECONDS * self.sample_rate)
        pieces = []
        for sources, mix in self._pieces(waveform.split(block), window_seconds, overlap_seconds):
            _check_finite(sources, recording.name)
            loudness.add(sources, mix)
            loudness.hear(sources)
            pieces.append(sources)
        return torch.cat(pieces) * loudness.gains()[0]

    def separate_file(
        self,
        path,
        outputs,
        level="mixture",
        keep_rate=False,
        window_seconds=WINDOW_SECONDS,
        overlap_seconds=OVERLAP_SECONDS,
    ):
        """Separate a file of any length into one file a speaker, at bounded memory.

        What the network gives is kept on the disk of the outputs until all of it is known, and with it the
        loudest sample and, for a causal network, the level.

        Arguments
        ---------
        path : str, Path or mamba_speech.recordings.Recording
            Audio of any format, rate and number of channels.
        outputs : list of str or Path
            One a speaker, WAV of 16 bits; written under temporary names and renamed. Their folders are made.
        level, window_seconds, overlap_seconds
            See :meth:`separate`.
        keep_rate : bool
            Write at the file's rate, with as many samples as it has, in place of the network's.

        Returns
        -------
        factor : float
            By which the sources were turned down so that none clips; 1 if none would have.

        Raises
        ------
        mamba_speech.audio.AudioError
            If the file is no usable audio, or the network made of it what is not finite.
        ValueError
            If an option is out of its range, or the outputs are not one file a speaker.
        """
        recording = path if isinstance(path, Recording) else Recording(path)
        path = recording.path
        outputs = self._outputs(path, outputs)
        self.check_windows(window_seconds, overlap_seconds)
        audio = recording.blocks(self.sample_rate)
        rate = audio.file_rate if keep_rate else self.sample_rate
        resample = BlockResampler(self.sample_rate, rate)
        loudness = Loudness(level, fitted=not self.causal)
        for output in outputs:
            output.parent.mkdir(parents=True, exist_ok=True)
        with Spool(outputs[0].parent) as spool:
            for sources, mix in self._pieces(audio, window_seconds, overlap_seconds):
                _check_finite(sources, path)
                loudness.add(sources, mix)
                block = resample(sources.T).T
                loudness.hear(block)
                spool.add(block)
            block = resample.finish().T
            loudness.hear(block)
            spool.add(block)
            gains, factor = loudness.gains()
            samples = audio.file_samples if keep_rate else loudness.samples
            blocks = (block * gains.numpy() for block in spool.blocks(samples))
            write_sources(outputs, blocks, rate)
        return factor

    def _outputs(self, path, outputs):
        """The files to write, which must be as many as there are speakers, and none of them the recording."""
        outputs = [outputs] if isinstance(outputs, str | os.PathLike) else outputs
        outputs = [Path(one) for one in outputs]
        if len(outputs) != self.num_spks:
            raise ValueError(f"{len(outputs)} outputs for {self.num_spks} speakers")
        if len({one.resolve() for one in (Path(path), *outputs)}) <= len(outputs):
            raise ValueError(
                f"{path}: each output must be a file of its own, and none of them the recording; got "
                + ", ".join(map(str, outputs))
            )
        return outputs

    def check_windows(self, window_seconds, overlap_seconds):
        """Raise ``ValueError`` for windows that cannot be, before any file is read."""
        if self.causal:
            return
        if not 0 <= overlap_seconds < window_seconds < math.inf:
            raise ValueError(
                f"overlap_seconds {overlap_seconds:g} must be 0 or more and less than window_seconds {window_seconds:g}"
            )
        if overlap_seconds > MOST_SHARED * window_seconds:
            raise ValueError(
                f"overlap_seconds {overlap_seconds:g} must be at most {MOST_SHARED:g} of window_seconds "
                f"{window_seconds:g}: each second is separated again in every window that holds it"
            )
        window, overlap = (round(s * self.sample_rate) for s in (window_seconds, overlap_seconds))
        whole_frames(self.network, window, overlap)

    def _pieces(self, blocks, window_seconds, overlap_seconds):
        """Consecutive sources (samples, speakers) and mixture (samples,)."""
        if self.causal:
            return separate_stream(self.network, blocks)
        window, overlap = (round(s * self.sample_rate) for s in (window_seconds, overlap_seconds))
        return separate_windows(self.network, blocks, window, overlap)


def source_paths(stem, speakers):
    """The files of a recording's sources: ``stem`` with ``_s1.wav``, ``_s2.wav`` and so on.

    Example
    -------
    >>> source_paths(Path("out/mix"), 2)[1].as_posix()
    'out/mix_s2.wav'
    """
    return [stem.with_name(f"{stem.name}_s{number + 1}.wav") for number in range(speakers)]


def load_separator(folder):
    """The network and the sample rate of a run of this project, or of a folder of the published layout.

    Arguments
    ---------
    folder : str or Path

    Returns
    -------
    (modules.separation.separator.SeparationNetwork, int)
        The network on the CPU, in evaluation mode.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is neither, or cannot be loaded.
    """
    file = given_folder(folder) / OPTIONS_FILE
    if not file.is_file() or "model" not in read_scalars(file):
        return load_published(folder)
    run = load_run(folder, ["sample_rate"], selection_key=LOSSES)
    return run["model"], run["sample_rate"]


def _check_finite(sources, name):
    if not torch.isfinite(sources).all():
        raise AudioError(f"{name}: the network made of it what is no finite number")


def _is_causal(network):
    try:
        check_causal(network)
    except ValueError:
        return False
    return True

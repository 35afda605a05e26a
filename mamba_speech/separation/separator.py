"""Separating the speakers of recordings with a trained run or a published checkpoint.

Recordings may be of any format, rate and length; memory does not grow with the length of a file.
"""

from pathlib import Path

import torch

from mamba_speech.audio import AudioError
from mamba_speech.blocks import AudioBlocks, BlockResampler, Spool, write_sources
from mamba_speech.plain_yaml import read_scalars
from mamba_speech.run import OPTIONS_FILE, choose_device, load_run
from mamba_speech.separation.loudness import Loudness
from mamba_speech.separation.published import LOSSES, load_published
from mamba_speech.separation.windows import separate_stream, separate_windows
from modules.separation.streaming import check_causal

WINDOW_SECONDS = 10.0
OVERLAP_SECONDS = 4.0


class Separator:
    """A trained separator, ready to take recordings apart.

    Arguments
    ---------
    run_folder : str or Path
        Output folder of a run of the separation recipe, or a folder of the published layout, see
        :func:`mamba_speech.separation.published.load_published`.
    device : str or torch.device, optional
        A CUDA device if there is one, else the CPU.

    Attributes
    ----------
    network : modules.separation.separator.SeparationNetwork
    sample_rate : int
    num_spks : int
        Sources that it gives.
    causal : bool
        Whether it carries its state along a recording; if not, it works in windows.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder cannot be loaded, see :func:`mamba_speech.run.load_run`.
    RuntimeError
        If the device is not there.

    Example
    -------
    Not run here, since it needs a trained run::

        separator = Separator("results/mambatasnet_mini/1234")
        sources = separator.separate(load_audio("mix.wav", separator.sample_rate))
    """

    def __init__(self, run_folder, device=None):
        self.device = choose_device(device)
        network, self.sample_rate = load_separator(run_folder)
        self.network = network.to(self.device)
        self.num_spks = network.num_spks
        self.causal = _is_causal(network)

    def separate(
        self,
        waveform,
        level="mixture",
        window_seconds=WINDOW_SECONDS,
        overlap_seconds=OVERLAP_SECONDS,
    ):
        """Separate a recording that is in memory.

        Arguments
        ---------
        waveform : torch.Tensor
            (samples,) at ``sample_rate``.
        level : str
            ``mixture``: each source as loud as it is in the recording, so that they sum to it as well as they can; if
            one would pass 0.99, all are turned down by one factor. ``peak``: each as loud as it goes.
        window_seconds, overlap_seconds : float
            Of a network that is not causal. A recording no longer than a window is separated whole.

        Returns
        -------
        torch.Tensor
            (samples, speakers), on the CPU.

        Raises
        ------
        ValueError
            If the waveform is empty or not finite, or an option is out of its range.
        """
        if waveform.dim() != 1 or not len(waveform):
            raise ValueError(
                f"a waveform must be (samples,), not empty; got {tuple(waveform.shape)}"
            )
        if not torch.isfinite(waveform).all():
            raise ValueError("the waveform holds samples that are not finite numbers")
        loudness = Loudness(level, fitted=not self.causal)
        block = round(WINDOW_SECONDS * self.sample_rate)
        pieces = []
        for sources, mix in self._pieces(waveform.split(block), window_seconds, overlap_seconds):
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
        path : str or Path
            Audio of any format, rate and number of channels that soundfile reads.
        outputs : list of Path
            One a speaker, WAV of 16 bits; written under temporary names and renamed.
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
            If an option is out of its range, or there are not as many outputs as speakers.
        """
        if len(outputs) != self.num_spks:
            raise ValueError(f"{len(outputs)} outputs for {self.num_spks} speakers")
        audio = AudioBlocks(path, self.sample_rate)
        rate = audio.file_rate if keep_rate else self.sample_rate
        resample = BlockResampler(self.sample_rate, rate)
        loudness = Loudness(level, fitted=not self.causal)
        with Spool(Path(outputs[0]).parent) as spool:
            for sources, mix in self._pieces(audio, window_seconds, overlap_seconds):
                if not torch.isfinite(sources).all():
                    raise AudioError(f"{path}: the network made of it what is no finite number")
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
            write_sources([Path(one) for one in outputs], blocks, rate)
        return factor

    def check_windows(self, window_seconds, overlap_seconds):
        """Raise ``ValueError`` for windows that cannot be, before any file is read."""
        if not self.causal and overlap_seconds >= window_seconds:
            raise ValueError(
                f"--overlap {overlap_seconds:g} must be less than --window_seconds {window_seconds:g}"
            )

    def _pieces(self, blocks, window_seconds, overlap_seconds):
        """Consecutive sources (samples, speakers) and mixture (samples,)."""
        if self.causal:
            return separate_stream(self.network, blocks)
        window, overlap = (round(s * self.sample_rate) for s in (window_seconds, overlap_seconds))
        return separate_windows(self.network, blocks, window, overlap)


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
    file = Path(folder) / OPTIONS_FILE
    if not file.is_file() or "model" not in read_scalars(file):
        return load_published(folder)
    run = load_run(folder, ["sample_rate"], selection_key=LOSSES)
    return run["model"], run["sample_rate"]


def _is_causal(network):
    try:
        check_causal(network)
    except ValueError:
        return False
    return True

"""Recordings of any length, piece by piece: reading, and a place to keep what is not written yet.

Nothing here holds more than a few seconds in memory. The pieces together are what the whole file is: the resampler
carries the samples that its filter still needs.
"""

import os
import tempfile
from contextlib import ExitStack

import numpy as np
import soundfile
import torch

from mamba_speech.audio import AudioError, BlockResampler, check_samples, give_warnings, open_audio
from mamba_speech.audio.reading import part_verdict
from mamba_speech.files import to_pcm16, whole_path


class AudioBlocks:
    """A recording as mono blocks at a wanted rate; iterate over it once.

    Arguments
    ---------
    path : str or Path
        See :func:`mamba_speech.audio.open_audio`. Channels are averaged, or chosen as
        :func:`mamba_speech.audio.load_audio` chooses them.
    sample_rate : int
        Wanted samples a second; other rates are resampled.
    start, stop : int, optional
        The part to read, in samples of the file; by default all of it.

    Attributes
    ----------
    file_rate : int
        Samples a second of the file.
    file_samples : int
        Samples of the file that were read so far.
    warnings : tuple of mamba_speech.audio.AudioWarning
        What is odd about the file, as far as it was read. :func:`mamba_speech.audio.collected_warnings` get it too.

    Raises
    ------
    AudioError
        If the file is missing or no audio; while iterating, if it is damaged, empty, or holds samples that
        :func:`mamba_speech.audio.check_samples` refuses.

    Example
    -------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> soundfile.write(f"{folder.name}/tone.wav", np.zeros((32000, 2)), 16000)
    >>> sum(len(block) for block in AudioBlocks(f"{folder.name}/tone.wav", 8000))
    16000
    """

    def __init__(self, path, sample_rate, start=0, stop=None):
        self.path, self.sample_rate, self.file_samples, self.warnings = path, sample_rate, 0, ()
        self.start, self.stop = start, stop
        with open_audio(path) as audio:
            self.file_rate = audio.rate

    def __iter__(self):
        resample = BlockResampler(self.file_rate, self.sample_rate)
        with open_audio(self.path) as audio:
            for block in self._mono(audio):
                self.file_samples += len(block)
                self._warn(audio.warnings)
                yield resample(torch.from_numpy(block)[None])[0]
            self._warn(audio.warnings)
        yield resample.finish()[0]

    def _mono(self, audio):
        """Blocks (samples,) of the file, or of the part."""
        if self.start == 0 and self.stop is None:
            yield from audio.mono_blocks()
            return
        verdict, heard = part_verdict(audio), 0
        self._warn(verdict.warnings(self.path))
        for block in audio.blocks(self.start, self.stop):
            check_samples(block, self.path)
            heard += len(block)
            yield verdict.apply(block)
        if not heard:
            raise AudioError(f"{self.path}: holds no samples from sample {self.start} on")

    def _warn(self, found):
        """Give the warnings that are new."""
        kinds = {one.kind for one in self.warnings}
        new = [one for one in found if one.kind not in kinds]
        if new:
            self.warnings += tuple(new)
            give_warnings(new)


class Spool:
    """Blocks (samples, speakers) on disk, in a file without a name that vanishes with the process; a context manager.

    Arguments
    ---------
    folder : str or Path
        Whose disk is used: 4 bytes a sample and speaker.
    """

    def __init__(self, folder):
        self.folder = folder
        self.file = self.speakers = None

    def __enter__(self):
        self.file = tempfile.TemporaryFile(dir=self.folder)
        return self

    def __exit__(self, *_):
        self.file.close()

    def add(self, block):
        """Keep a block (samples, speakers)."""
        self.speakers = block.shape[1]
        self.file.write(block.contiguous().numpy().tobytes())

    def blocks(self, samples, size=1 << 16):
        """The first ``samples`` of what was kept, in arrays (at most ``size``, speakers)."""
        self.file.seek(0)
        for start in range(0, samples, size):
            count = min(size, samples - start) * self.speakers
            block = np.frombuffer(self.file.read(count * 4), dtype=np.float32)
            yield block.reshape(-1, self.speakers)


def write_sources(paths, blocks, sample_rate):
    """Write one 16-bit WAV file a speaker, all under temporary names until all are whole.

    Arguments
    ---------
    paths : list of Path
        One a speaker; their folder is there.
    blocks : iterable of numpy.ndarray
        (samples, speakers), within -1..1.
    sample_rate : int
    """
    options = {"samplerate": sample_rate, "channels": 1, "subtype": "PCM_16", "format": "WAV"}
    with ExitStack() as renamed, ExitStack() as opened:
        files = []
        for path in paths:
            temporary = renamed.enter_context(whole_path(path))
            name = os.fsencode(temporary)
            files.append(opened.enter_context(soundfile.SoundFile(name, "w", **options)))
        for block in blocks:
            for file, source in zip(files, block.T, strict=True):
                file.write(to_pcm16(source))

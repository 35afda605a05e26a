"""Reading audio of any format, rate and number of channels as one waveform at the model's rate."""

import os
from functools import lru_cache

from mamba_speech.audio.errors import NO_SAMPLES, AudioError, check_samples, recording_fault
from mamba_speech.audio.opening import open_audio
from mamba_speech.audio.warnings import give_warnings

# files of several channels, or of floats, whose verdicts are kept
VERDICTS = 1 << 14


def load_audio(path, sample_rate, start=0, stop=None, warnings=None):
    """Read a file, or a part of it, as a mono waveform.

    Channels are averaged, except those that are silent or would cancel out; floating-point numbers on the scale of
    integers are divided by it. Both are decided for the whole file, however much of it is read: see
    :mod:`mamba_speech.audio.listening`. Another rate is resampled, with one warning a rate and process.

    Arguments
    ---------
    path : str or pathlib.Path
        See :func:`mamba_speech.audio.open_audio`.
    sample_rate : int
        Wanted samples a second.
    start, stop : int, optional
        The part to read, in samples of the file; by default all of it.
    warnings : list, optional
        Gets what is odd about the file, as :class:`mamba_speech.audio.AudioWarning`; by default
        :func:`mamba_speech.audio.collected_warnings` do. Only reading to the end shows a truncated file.

    Returns
    -------
    torch.Tensor
        (samples,), float32.

    Raises
    ------
    AudioError
        If the file is missing, unreadable, empty, does not fit into memory, or holds samples that
        :func:`mamba_speech.audio.check_samples` refuses.
    """
    try:
        with open_audio(path) as audio:
            samples = audio.read_all(start, stop)
            if not len(samples):
                raise AudioError(f"{path}: holds no samples", NO_SAMPLES)
            check_samples(samples, path)
            whole = start == 0 and (stop is None or len(samples) == audio.frames)
            verdict = audio.judge(samples) if whole else part_verdict(audio)
            waveform, rate = verdict.apply(samples), audio.rate
            found = audio.warnings if whole else verdict.warnings(path)
    except MemoryError as error:
        raise AudioError(recording_fault(path, error)) from error
    if warnings is not None:
        warnings.extend(found)
    elif found:
        give_warnings(found)
    return _at_rate(waveform, rate, sample_rate, path)


def _at_rate(waveform, rate, sample_rate, path):
    # data that are checked alone need no torch
    import torch

    from mamba_speech.audio.resampling import resample

    try:
        return resample(torch.from_numpy(waveform), rate, sample_rate)
    except (MemoryError, RuntimeError, ValueError) as error:
        raise AudioError(recording_fault(path, error)) from error


def part_verdict(audio):
    """The verdict on the whole file when a part of it is read; kept for the next part.

    Arguments
    ---------
    audio : mamba_speech.audio.opening.AudioFile

    Returns
    -------
    mamba_speech.audio.listening.Verdict
    """
    if audio.channels == 1 and not audio.floating:
        return audio.judge([])
    found = os.stat(audio.path)
    return _file_verdict(os.fsencode(audio.path), found.st_size, found.st_mtime_ns)


@lru_cache(VERDICTS)
def _file_verdict(path, size, changed):
    del size, changed
    with open_audio(os.fsdecode(path)) as audio:
        return audio.judge()

"""Checking one mixture against its sources, by their samples or by their headers."""

import numpy as np

from data_prep.verify import BREAK_INSIDE, LINE_BREAK
from mamba_speech.audio import LOUDEST, AudioError, open_audio
from mamba_speech.audio.warnings import TRUNCATED

NOT_THE_SUM = "the mixture is not the sum of its sources"


def check_mixture(paths, sample_rate, check_sum):
    """Read a mixture with its sources and compare them.

    Arguments
    ---------
    paths : dict of str to (Path or None)
        `mix`, `s1`, `s2`, ...
    sample_rate : int
    check_sum : bool

    Returns
    -------
    duration : float
        Seconds; 0 if there is something wrong.
    reason : str or None
        What is wrong.

    Raises
    ------
    ValueError
        If the mixture has another sample rate.
    """
    waveforms = {}
    for name, path in paths.items():
        reason = find_path_fault(name, path)
        if reason:
            return 0.0, reason
        waveform, rate, reason = read_mono(path)
        length = None if reason else len(waveform)
        whole = len(waveforms.get("mix", waveform)) if length is not None else None
        reason = find_fault(name, path, (length, rate, reason), whole, sample_rate)
        if reason:
            return 0.0, reason
        if name != "mix" and not waveform.any():
            return 0.0, f"{name} is silent"
        waveforms[name] = waveform
    mix = waveforms.pop("mix")
    if check_sum:
        difference = np.abs(mix - sum(waveforms.values())).max()
        if difference > (len(waveforms) + 1) / 32768:
            return 0.0, NOT_THE_SUM
    return round(len(mix) / sample_rate, 6), None


def check_headers(paths, sample_rate):
    """Compare the headers of a mixture and its sources; see `check_mixture`."""
    whole = None
    for name, path in paths.items():
        reason = find_path_fault(name, path)
        found = (None, 0, None) if reason else read_header(path)
        whole = found[0] if name == "mix" else whole
        reason = reason or find_fault(name, path, found, whole, sample_rate)
        if reason:
            return 0.0, reason
    return round(whole / sample_rate, 6), None


def find_path_fault(name, path):
    """The fault of a file's place; None for a right place."""
    if path is None:
        return f"{name} is missing"
    return BREAK_INSIDE if LINE_BREAK.search(str(path)) else None


def find_fault(name, path, found, whole, sample_rate):
    """The fault of a mixture's file; None for a right file.

    Arguments
    ---------
    name : str
        `mix`, `s1`, ...
    path : Path
    found : (int, int, str or None)
        Samples, rate and fault of the file.
    whole : int or None
        Samples of the mixture.
    sample_rate : int

    Raises
    ------
    ValueError
        If the mixture has another sample rate.
    """
    length, rate, reason = found
    if reason:
        return f"{name} {reason}"
    if name == "mix" and rate != sample_rate:
        raise ValueError(f"{path} is at {rate} Hz, not {sample_rate}; set --sample_rate {rate}")
    if rate != sample_rate:
        return f"{name} is at {rate} Hz, the mixture at {sample_rate}"
    return f"{name} is not as long as the mixture" if length != whole else None


def read_header(path):
    """Samples and rate of a file by its header, and what is wrong with it or None."""
    try:
        with open_audio(path) as file:
            if file.channels > 1:
                return None, 0, f"has {file.channels} channels"
            frames = file.check_end()
            if not frames:
                return None, 0, "has no samples"
            return frames, file.rate, _cut(file)
    except (AudioError, OSError, MemoryError):
        return None, 0, "is unreadable"


def _cut(file):
    return "is truncated" if any(one.kind == TRUNCATED for one in file.warnings) else None


def read_mono(path):
    """Samples and rate of a file, and what is wrong with it or None."""
    try:
        with open_audio(path) as file:
            rate, waveform = file.rate, file.read_all()
            reason = _cut(file)
    except (AudioError, OSError, MemoryError):
        return None, 0, "is unreadable"
    if waveform.shape[1] > 1:
        return None, rate, f"has {waveform.shape[1]} channels"
    if not len(waveform):
        return None, rate, "has no samples"
    if reason:
        return None, rate, reason
    if not np.isfinite(waveform).all():
        return None, rate, "has values that are not finite"
    if np.abs(waveform).max() > LOUDEST:
        return None, rate, "has samples that are no sound"
    return waveform[:, 0], rate, None

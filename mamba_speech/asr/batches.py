"""Recordings some minutes ahead, in batches of like length, and a check of what a model makes of them."""

import torch

from mamba_speech.audio import collected_warnings


def read_ahead(recordings, sample_rate, seconds, longest):
    """Read recordings some minutes ahead.

    Arguments
    ---------
    recordings : iterable of mamba_speech.recordings.Recording
    sample_rate : int
    seconds : float
        Audio to be read ahead.
    longest : float
        Seconds of the longest recording to be read.

    Yields
    ------
    list or mamba_speech.recordings.Recording
        Lists of (recording, waveform or error, warnings). A recording that lasts longer stands for itself.
    """
    window, samples = [], 0
    for recording in recordings:
        odd = []
        try:
            if recording.is_longer(longest):
                if window:
                    yield window
                yield recording
                window, samples = [], 0
                continue
            with collected_warnings(odd):
                waveform = recording.load(sample_rate)
            samples += len(waveform)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            waveform = error
        window.append((recording, waveform, odd))
        if samples >= seconds * sample_rate:
            yield window
            window, samples = [], 0
    if window:
        yield window


def batches_of(waveforms, samples):
    """Keys of waveforms, grouped by length.

    Arguments
    ---------
    waveforms : dict
    samples : float
        Samples of a batch, padding included; a longer waveform is a batch of its own.

    Returns
    -------
    list of list

    Example
    -------
    >>> batches_of({"a": [0] * 5, "b": [0] * 9, "c": [0] * 4}, 10)
    [['c', 'a'], ['b']]
    """
    batches, batch = [], []
    for key in sorted(waveforms, key=lambda key: len(waveforms[key])):
        if batch and len(waveforms[key]) * (len(batch) + 1) > samples:
            batches.append(batch)
            batch = []
        batch.append(key)
    return [*batches, batch] if batch else batches


def check_finite(values, lengths):
    """Refuse outputs (batch, time, features) that are not numbers: each text of them would be empty."""
    valid = torch.arange(values.shape[1], device=values.device) < lengths[:, None].to(values.device)
    if not torch.isfinite(values).all(-1)[valid].all():
        raise ValueError("the model made of it values that are not finite")

"""Whether there is speech in a recording, so that silence and noise get no words.

Silero's detector is a small network, and comes with the extra `vad`. Without it, a gate of energy knows silence and
steady noise only. Source: Silero Team, "Silero VAD" (https://github.com/snakers4/silero-vad), version 6.
"""

import importlib.util
import threading

import numpy as np
import torch

from mamba_speech.audio import resample

GATES = ("auto", "silero", "energy", "off")

_RATE, _CHUNK = 16000, 512
# speech is so probable in one frame of 32 ms, and in so many of them more probable than not
_SURE, _LIKELY, _FRAMES = 0.9, 0.5, 3
# chunks that are heard at once: 4 s
_AT_ONCE = 125
# a text is dropped where no frame has more than this probability of a token
_LEAST_SUPPORT = 0.05
# decibels: the floor of frames of 30 ms, and the range that speech has at least
_FLOOR, _RANGE, _FRAME = -70.0, 3.0, 0.03


def make_gates(kind="auto"):
    """The gates of a name: of recordings that are heard as a whole, and of windows of longer ones.

    Arguments
    ---------
    kind : str
        `silero`, `energy` or `off` for both. With `auto`, windows have Silero's where the package is installed, else
        energy, and whole recordings have energy: their texts do not depend on an optional package.

    Returns
    -------
    whole, windows : callable or None
        From a waveform (samples,) and its rate to whether there is speech in it.

    Raises
    ------
    ValueError
        If there is no such gate.
    RuntimeError
        If the package silero-vad is asked for and not installed.

    Example
    -------
    >>> [gate(torch.zeros(16000), 16000) for gate in make_gates("energy")]
    [False, False]
    """
    if kind not in GATES:
        raise ValueError(f"vad must be one of {', '.join(GATES)}; got {kind!r}")
    installed = importlib.util.find_spec("silero_vad") is not None
    if kind == "silero" and not installed:
        raise RuntimeError(
            "vad silero needs a package: pip install 'mamba-speech[vad]', or take vad energy"
        )
    if kind == "off":
        return None, None
    if kind == "energy" or not installed:
        return has_energy, has_energy
    silero = SileroGate()
    return has_energy if kind == "auto" else silero, silero


def has_energy(waveform, sample_rate):
    """Whether the level of a waveform moves as that of speech does: silence, a constant and steady noise do not.

    Arguments
    ---------
    waveform : torch.Tensor
        (samples,)
    sample_rate : int

    Example
    -------
    >>> steps = torch.arange(16000) / 16000
    >>> has_energy(torch.sin(2000 * steps), 16000), has_energy(steps * torch.sin(2000 * steps), 16000)
    (False, True)
    """
    hop = max(2, round(_FRAME * sample_rate))
    if len(waveform) < 10 * hop:
        # too short for its level to tell
        return bool(waveform.std(correction=0) > 10 ** (_FLOOR / 20)) if len(waveform) else False
    frames = waveform[: len(waveform) // hop * hop].view(-1, hop)
    levels = 20 * np.log10(np.maximum(frames.std(-1).numpy(), 10 ** (_FLOOR / 20)))
    quiet, loud = np.percentile(levels, (5, 95))
    # a few loud frames are a word in a long silence
    return bool(max(loud, np.sort(levels)[-_FRAMES]) - quiet >= _RANGE)


def drop_unsupported(found, blank_log_probs, lengths):
    """Empty the texts of recordings in which the CTC output is sure of silence in every frame.

    Arguments
    ---------
    found : list of dict
        With `text`, and perhaps `nbest`.
    blank_log_probs : torch.Tensor
        (batch, time), log-probabilities of CTC's blank.
    lengths : torch.Tensor
        (batch,), frames.
    """
    for one, values, frames in zip(found, blank_log_probs, lengths, strict=True):
        if 1 - values[:frames].exp().min() < _LEAST_SUPPORT:
            one["text"] = ""
            if "nbest" in one:
                one["nbest"] = (one["nbest"][0]._replace(text=""),)


class SileroGate:
    """Silero's voice-activity detector; it stops at the first speech.

    Example
    -------
    >>> SileroGate()(torch.zeros(16000), 16000)  # doctest: +SKIP
    False
    """

    def __init__(self):
        threads = torch.get_num_threads()
        try:
            # its import leaves torch a single thread
            from silero_vad import load_silero_vad

            self._model = load_silero_vad()
        finally:
            torch.set_num_threads(threads)
        # the network carries a state
        self._lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, waveform, sample_rate):
        waveform = resample(waveform, sample_rate, _RATE)
        likely, surest = 0, 0.0
        with self._lock:
            self._model.reset_states()
            for part in waveform.split(_AT_ONCE * _CHUNK):
                short = -len(part) % _CHUNK
                chunks = torch.nn.functional.pad(part, (0, short)).view(-1, 1, _CHUNK)
                found = [float(self._model(chunk, _RATE)) for chunk in chunks]
                likely += sum(one > _LIKELY for one in found)
                surest = max(surest, *found)
                if likely >= _FRAMES and surest >= _SURE:
                    return True
        return False

"""Bytes of recordings, as clients of the service send them."""

import io

import soundfile
import torch

RATE = 16000


def wav(samples, rate=RATE, subtype="PCM_16", kind="WAV"):
    """A file's bytes."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=kind)
    return file.getvalue()


def waveform(content):
    """The samples of a file's bytes, (samples,)."""
    return torch.from_numpy(soundfile.read(io.BytesIO(content), dtype="float32")[0])

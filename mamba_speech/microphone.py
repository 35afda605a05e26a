"""What a microphone hears, block by block; needs the package sounddevice, of the extra `media`."""

import queue

import torch

from mamba_speech.audio import BlockResampler


def microphone(sample_rate, block_seconds=0.1):
    """What the default microphone hears, without end.

    A microphone that does not have the rate is read at its own, and resampled.

    Yields
    ------
    torch.Tensor
        (samples,)

    Raises
    ------
    RuntimeError
        If the package sounddevice or the PortAudio library is not installed, or no microphone can be opened.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise RuntimeError(
            "the microphone needs sounddevice and PortAudio: pip install sounddevice, and on Linux the "
            f"system's package libportaudio2 ({error})"
        ) from error
    heard = queue.Queue()

    def keep(block, frames, time, status):
        heard.put(torch.from_numpy(block[:, 0].copy()))

    try:
        rate = _microphone_rate(sounddevice, sample_rate)
        resample = BlockResampler(rate, sample_rate)
        with sounddevice.InputStream(
            rate, round(block_seconds * rate), channels=1, dtype="float32", callback=keep
        ):
            while True:
                yield resample(heard.get()[None])[0]
    except sounddevice.PortAudioError as error:
        raise RuntimeError(f"the microphone cannot be opened ({error})") from error


def _microphone_rate(sounddevice, wanted):
    """The rate to open the default microphone at: the one wanted, else its own."""
    try:
        sounddevice.check_input_settings(channels=1, dtype="float32", samplerate=wanted)
    except sounddevice.PortAudioError:
        return round(sounddevice.query_devices(kind="input")["default_samplerate"])
    return wanted

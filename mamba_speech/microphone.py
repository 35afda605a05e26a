"""What a microphone hears, block by block; needs the package sounddevice, of the extra `media`."""

import logging
import queue
from contextlib import suppress

import torch

from mamba_speech.audio import BlockResampler

logger = logging.getLogger(__name__)

# A microphone that gives nothing for so long is taken for unplugged.
STALL_SECONDS = 5.0
# Sound that waits for a program that is slower than the microphone; what comes on top is lost.
MOST_WAITING_SECONDS = 60.0


def microphone(sample_rate, block_seconds=0.1):
    """What the default microphone hears, without end.

    A microphone that does not have the rate is read at its own, and resampled. A program that takes the blocks too
    slowly loses sound: a warning at the end says how much.

    Yields
    ------
    torch.Tensor
        (samples,)

    Raises
    ------
    RuntimeError
        If the package sounddevice or the PortAudio library is not installed, or no microphone can be opened; if the
        microphone is unplugged.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise RuntimeError(
            "the microphone needs sounddevice and PortAudio: pip install sounddevice, and on Linux the "
            f"system's package libportaudio2 ({error})"
        ) from error
    heard = _Heard(block_seconds)
    try:
        rate = _microphone_rate(sounddevice, sample_rate)
        resample = BlockResampler(rate, sample_rate)
        with sounddevice.InputStream(
            rate,
            round(block_seconds * rate),
            channels=1,
            dtype="float32",
            callback=heard.keep,
            finished_callback=heard.end,
        ) as stream:
            while True:
                block = heard.next()
                if block is None:
                    with suppress(sounddevice.PortAudioError):
                        stream.abort()
                    raise RuntimeError(
                        f"the microphone gave no more sound after {heard.blocks * block_seconds:.1f} s: it was "
                        "unplugged, or another program took it"
                    )
                yield resample(block[None])[0]
    except sounddevice.PortAudioError as error:
        if heard.blocks:
            raise RuntimeError(f"the microphone failed while it was heard ({error})") from error
        raise RuntimeError(f"the microphone cannot be opened ({error})") from error
    finally:
        heard.warn()


class _Heard:
    """Blocks that PortAudio's thread gives, and that wait to be read."""

    def __init__(self, block_seconds):
        self.waiting, self.most = queue.Queue(), max(1, round(MOST_WAITING_SECONDS / block_seconds))
        self.blocks = self.lost = 0

    def keep(self, block, frames, time, status):
        """Take a block; ``status`` tells what PortAudio itself has lost before it."""
        self.lost += bool(status)
        if self.waiting.qsize() < self.most:
            self.waiting.put(torch.from_numpy(block[:, 0].copy()))
        else:
            self.lost += 1

    def end(self):
        """Tell whoever waits that no more blocks come."""
        self.waiting.put(None)

    def next(self):
        """The next block (samples,); None if there is no more."""
        with suppress(queue.Empty):
            block = self.waiting.get(timeout=STALL_SECONDS)
            self.blocks += block is not None
            return block
        return None

    def warn(self):
        """Say on the log whether sound was lost."""
        if self.lost:
            logger.warning(
                "the microphone's sound was lost at %d places, since the work on it took longer than it did",
                self.lost,
            )


def _microphone_rate(sounddevice, wanted):
    """The rate to open the default microphone at: the one wanted, else its own."""
    try:
        sounddevice.check_input_settings(channels=1, dtype="float32", samplerate=wanted)
    except sounddevice.PortAudioError:
        return round(sounddevice.query_devices(kind="input")["default_samplerate"])
    return wanted

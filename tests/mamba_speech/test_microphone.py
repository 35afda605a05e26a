"""The microphone, whose device is made of plain Python: unplugged, silent, failing, and faster than its reader."""

import queue
import sys
import threading
import types

import numpy as np
import pytest

from mamba_speech import microphone as module
from mamba_speech.microphone import microphone

RATE = 16000


class PortAudioError(Exception):
    """As sounddevice's."""


@pytest.fixture
def device(monkeypatch):
    """Install a device that does what a function of its stream says once it is open."""

    def install(act, rate=RATE):
        class InputStream:
            def __init__(self, samplerate, blocksize, callback, finished_callback, **_):
                self.rate, self.size = samplerate, blocksize
                self.callback, self.finished = callback, finished_callback

            def __enter__(self):
                act(self)
                return self

            def __exit__(self, *_):
                pass

            def abort(self):
                raise PortAudioError("no such device")

            def give(self, value, status=None):
                block = np.full((self.size, 1), value, "float32")
                self.callback(block, self.size, None, status)

        def check(samplerate, **_):
            if samplerate != rate:
                raise PortAudioError("Invalid sample rate")

        sounddevice = types.ModuleType("sounddevice")
        sounddevice.PortAudioError, sounddevice.InputStream = PortAudioError, InputStream
        sounddevice.check_input_settings = check
        sounddevice.query_devices = lambda kind: {"default_samplerate": float(rate)}
        monkeypatch.setitem(sys.modules, "sounddevice", sounddevice)

    return install


def test_a_microphone_that_is_unplugged_is_said_after_what_was_heard(device):
    def unplug(stream):
        stream.give(0.5)
        stream.give(0.25)
        stream.finished()

    device(unplug)
    pieces = microphone(RATE)
    assert [float(next(pieces)[0]) for _ in range(2)] == [0.5, 0.25]
    with pytest.raises(RuntimeError, match="no more sound after 0.2 s: it was unplugged"):
        next(pieces)


def test_a_microphone_that_gives_nothing_is_not_waited_for_without_end(device, monkeypatch):
    monkeypatch.setattr(module, "STALL_SECONDS", 0.05)
    device(lambda stream: None)
    with pytest.raises(RuntimeError, match="unplugged"):
        next(microphone(RATE))


def test_a_microphone_that_cannot_be_opened_says_why(device):
    def fail(stream):
        raise PortAudioError("Device unavailable")

    device(fail)
    with pytest.raises(RuntimeError, match=r"cannot be opened \(Device unavailable\)"):
        next(microphone(RATE))


def test_sound_that_nobody_takes_is_bounded_and_its_loss_is_said(device, caplog):
    def flood(stream):
        for number in range(700):
            stream.give(number, status="input overflow" if number == 3 else None)
        stream.finished()

    device(flood)
    pieces = microphone(RATE, block_seconds=0.1)
    heard = []
    with pytest.raises(RuntimeError, match="after 60.0 s"):
        for piece in pieces:
            heard.append(float(piece[0]))
    # the first minute
    assert heard == list(range(600))
    assert "was lost at 101 places" in caplog.text


def test_a_microphone_that_is_left_closes_its_stream_without_a_word(device, caplog):
    device(lambda stream: stream.give(0.5))
    pieces = microphone(RATE)
    next(pieces)
    pieces.close()
    assert caplog.text == ""


def test_blocks_come_from_another_thread(device):
    started = queue.Queue()

    def run(stream):
        def give():
            for number in range(5):
                stream.give(number)
            stream.finished()

        thread = threading.Thread(target=give)
        started.put(thread)
        thread.start()

    device(run)
    heard = []
    with pytest.raises(RuntimeError, match="after 0.5 s"):
        for piece in microphone(RATE):
            heard.append(float(piece[0]))
    started.get().join()
    assert heard == [0, 1, 2, 3, 4]

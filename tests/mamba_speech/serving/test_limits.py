"""What keeps the service alive: queues, decoders' processes, and settings that are refused."""

import asyncio
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest

from mamba_speech.serving.batching import Batcher
from mamba_speech.serving.decoding import UploadDecoder
from mamba_speech.serving.errors import ServiceError
from mamba_speech.serving.settings import read_settings
from tests.support.serving import RATE, wav


def test_a_full_queue_refuses_at_once_and_an_ending_one_answers_what_waits():
    going, order = threading.Event(), []

    def answer(kind, items):
        going.wait()
        order.append(list(items))
        return [-one for one in items]

    async def ask():
        batcher = Batcher(answer, queue_size=3, batch_seconds=2.0, wait_ms=0)
        first = asyncio.create_task(batcher.submit(1, 1.0))
        await asyncio.sleep(0.05)
        # the first is at work, three may wait
        rest = [asyncio.create_task(batcher.submit(n, 1.0)) for n in (2, 3, 4)]
        await asyncio.sleep(0)
        with pytest.raises(ServiceError) as refused:
            await batcher.submit(5, 1.0)
        assert refused.value.status == 429 and int(refused.value.headers["Retry-After"]) >= 1
        going.set()
        await batcher.close()
        with pytest.raises(ServiceError) as late:
            await batcher.submit(6, 1.0)
        assert late.value.status == 503
        return [await one for one in (first, *rest)]

    assert asyncio.run(ask()) == [-1, -2, -3, -4]
    # two seconds hold two requests
    assert [len(batch) for batch in order] == [1, 2, 1]


def test_a_batch_is_of_one_kind_and_of_like_lengths_and_a_fault_is_its_own():
    order = []

    def answer(kind, items):
        order.append((kind, sorted(items)))
        if kind == "bad":
            raise ValueError("all of it")
        return [ValueError("one of it") if one == 3 else one for one in items]

    async def ask():
        batcher = Batcher(answer, 99, batch_seconds=10.0, wait_ms=20)
        asked = [("good", 1, 1.0), ("bad", 2, 1.0), ("good", 3, 1.2), ("good", 4, 9.0)]
        waiting = [batcher.submit(item, seconds, kind) for kind, item, seconds in asked]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        await batcher.close()
        return [str(one) for one in found]

    assert asyncio.run(ask()) == ["1", "all of it", "one of it", "4"]
    assert order == [("good", [1, 3]), ("bad", [2]), ("good", [4])]


def test_a_client_that_leaves_waits_no_more():
    going = threading.Event()

    def answer(kind, items):
        going.wait()
        return items

    async def ask():
        batcher = Batcher(answer, 5, 1.0, 0)
        tasks = [asyncio.create_task(batcher.submit(n, 1.0)) for n in range(3)]
        await asyncio.sleep(0.05)
        tasks[1].cancel()
        await asyncio.sleep(0)
        assert batcher.waiting == 1
        going.set()
        await batcher.close()
        return [await tasks[0], await tasks[2]]

    assert asyncio.run(ask()) == [0, 2]


@pytest.fixture(scope="module")
def long_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "upload"
    path.write_bytes(wav(np.zeros(1200 * 48000, np.int16), 48000))
    return path


def decode(path, kill=False, **limits):
    """The status and sentence of a file, and the samples of a good one behind it."""

    async def run():
        given = {"processes": 1, "memory_mb": 2048, "seconds": 60, "most_seconds": 3600}
        decoder = UploadDecoder(**(given | limits))
        good = path.with_name("good")
        good.write_bytes(wav(np.zeros(RATE, np.int16)))
        try:
            await decoder.decode(good, RATE)
            work = asyncio.create_task(decoder.decode(path, RATE))
            if kill:
                await asyncio.sleep(0.1)
                for child in multiprocessing.active_children():
                    os.kill(child.pid, signal.SIGKILL)
            with pytest.raises(ServiceError) as error:
                await work
            waveform, _ = await decoder.decode(good, RATE)
            return error.value.status, error.value.message, len(waveform)
        finally:
            decoder.close()

    found = asyncio.run(run())
    assert not [one for one in multiprocessing.active_children() if "pebble" in one.name]
    return found


def test_a_recording_that_takes_too_long_is_refused_and_the_next_one_read(long_file):
    status, message, samples = decode(long_file, seconds=0.2)
    assert status == 422 and "was not decoded within 0.2 seconds" in message and samples == RATE


def test_a_recording_that_ends_its_process_is_refused_and_the_next_one_read(long_file):
    status, message, samples = decode(long_file, kill=True)
    assert status == 422 and "ended the process" in message and samples == RATE


def test_a_recording_that_is_too_long_is_refused_before_it_is_decoded_whole(long_file):
    began = time.monotonic()
    status, message, samples = decode(long_file, most_seconds=2)
    assert status == 413 and "longer than 2 seconds" in message and samples == RATE
    assert time.monotonic() - began < 60


def test_settings_come_from_the_file_then_the_environment_then_arguments(tmp_path):
    file = tmp_path / "service.yaml"
    file.write_text("models: {asr: runs/asr}\nport: 1\nqueue_size: 2\nhost: a\n")
    environment = {"MAMBA_SPEECH_PORT": "3", "MAMBA_SPEECH_HOST": "b"}
    environment["MAMBA_SPEECH_API_KEYS"] = "key-1,key-2"
    found = read_settings(file, environment, host="c", device=None)
    assert (found.port, found.queue_size, found.host) == (3, 2, "c")
    assert found.models == {"asr": str(tmp_path / "runs" / "asr")}
    assert [key.get_secret_value() for key in found.api_keys] == ["key-1", "key-2"]
    assert "2 keys" in found.shown() and "key-" not in found.shown()


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        ("prot: 1", {}, "prot is no setting; the settings are models"),
        ("port: 99999", {}, "port: Input should be less than or equal to 65535"),
        ("[1]", {}, "must hold settings"),
        ("a: b: c", {}, "is no YAML"),
        ("models: {'a b': x}", {}, "the name 'a b' must be of letters"),
        ("", {"MAMBA_SPEECH_QUEUE_SIZE": "many"}, "MAMBA_SPEECH_QUEUE_SIZE: queue_size"),
        ("", {"MAMBA_SPEECH_MODELS": "x"}, "'x' is not name=folder"),
        ("max_seconds: .nan", {}, "max_seconds"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(tmp_path, text, environment, said):
    file = tmp_path / "service.yaml"
    file.write_text(text)
    with pytest.raises(ValueError) as error:
        read_settings(file, environment)
    assert said in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_file_of_settings_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="gone.yaml: No such file"):
        read_settings(tmp_path / "gone.yaml", {})

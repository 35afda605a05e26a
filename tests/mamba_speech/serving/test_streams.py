"""Live text and keywords over a WebSocket: what the public classes give, and what ends a stream."""

import numpy as np
import pytest

from mamba_speech import KeywordSpotter, LiveRecognizer
from tests.support.serving import RATE


def pcm(samples):
    return (samples * 32767).round().astype("<i2")


def follow(client, messages, **start):
    """Every answer to a start, messages and an end, until the stream's end."""
    answers = []
    with client.websocket_connect("/stream") as socket:
        socket.send_json({"type": "start", **start})
        for message in messages:
            socket.send_bytes(message)
        socket.send_json({"type": "end"})
        while True:
            answers.append(socket.receive_json())
            if answers[-1]["type"] in ("end", "error"):
                return answers


def test_words_come_as_the_live_recogniser_gives_them(client, folders, samples):
    whole = pcm(samples)
    live = LiveRecognizer.load(folders["live"], "cpu")
    context = live.make_context()
    updates = live.listen(whole.astype(np.float32) / 32768, context) + live.finish(context)
    wanted = [word.text for update in updates for word in update.final]
    pieces = [one.tobytes() for one in np.array_split(whole, 13)]
    answers = follow(client, pieces, model="live")
    assert answers[0] == {"type": "ready", "model": "live", "task": "streaming"}
    found = [word["word"] for one in answers if one["type"] == "final" for word in one["words"]]
    assert found == wanted and wanted
    assert any(one["type"] == "partial" and one["text"] for one in answers)
    assert answers[-1] == {"type": "end", "seconds": 2.0}


def test_keywords_come_as_the_spotter_gives_them(client, folders, samples):
    whole = pcm(np.tile(samples, 4))
    spotter = KeywordSpotter.load(folders["keywords"], "cpu")
    wanted = spotter.spot(whole, RATE, threshold=0.1).events
    pieces = [one.tobytes() for one in np.array_split(whole, 9)]
    answers = follow(client, pieces, model="keywords", threshold=0.1)
    found = [one for one in answers if one["type"] == "keyword"]
    assert [(one["label"], one["start"]) for one in found] == [
        (one.label, pytest.approx(one.start, abs=2e-3)) for one in wanted
    ]
    assert answers[-1]["type"] == "end" and wanted


def test_another_rate_is_resampled(client, samples):
    halved = pcm(samples[::2])
    answers = follow(client, [halved.tobytes()], model="live", sample_rate=RATE // 2)
    assert answers[-1] == {"type": "end", "seconds": 2.0}


@pytest.mark.parametrize(
    ("start", "message", "code"),
    [
        ({"model": "nobody"}, b"", "model_not_found"),
        ({"model": "speakers"}, b"", "wrong_model"),
        ({"sample_rate": 0}, b"", "invalid_request"),
        ({"sample_rate": "fast"}, b"", "invalid_request"),
        ({"model": "keywords", "threshold": 2}, b"", "invalid_request"),
        ({}, b"abc", "bad_message"),
        ({"type": "hello"}, b"", "no_start"),
    ],
)
def test_a_wrong_message_ends_the_stream_with_a_sentence(client, start, message, code):
    answers = follow(client, [message], **start)
    assert answers[-1]["type"] == "error" and answers[-1]["code"] == code and answers[-1]["message"]


def test_a_stream_without_messages_ends_and_gives_its_place_back(make_client, samples):
    with make_client(stream_idle_seconds=0.2, max_streams=1) as client:
        with client.websocket_connect("/stream") as socket:
            socket.send_json({"type": "start"})
            assert socket.receive_json()["type"] == "ready"
            # the only place is taken
            with client.websocket_connect("/stream") as second:
                assert second.receive_json()["code"] == "too_many_streams"
            assert socket.receive_json()["code"] == "idle"
        assert follow(client, [pcm(samples).tobytes()])[-1]["type"] == "end"


def test_a_client_that_leaves_gives_its_place_back(make_client, samples):
    with make_client(max_streams=1) as client:
        for model in ("live", "keywords", "live"):
            with client.websocket_connect("/stream") as socket:
                socket.send_json({"type": "start", "model": model})
                assert socket.receive_json()["type"] == "ready"
                socket.send_bytes(pcm(samples).tobytes())


def test_a_key_comes_with_the_first_message(make_client, samples):
    with make_client(api_keys=["secret"]) as client:
        assert follow(client, [])[-1]["code"] == "invalid_api_key"
        assert follow(client, [], api_key="secret")[-1]["type"] == "end"

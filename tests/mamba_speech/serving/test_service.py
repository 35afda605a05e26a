"""The service from a file's bytes to the answer: the public classes' results, limits, and what is refused."""

import io
import json
import logging
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import srt
import webvtt

from mamba_speech import KeywordSpotter, Recognizer, Separator, SpeakerVerifier
from tests.support.serving import RATE, wav, waveform


def send(client, path, **fields):
    """Post files (bytes) and values."""
    files = {name: one for name, one in fields.items() if isinstance(one, bytes)}
    data = {name: one for name, one in fields.items() if not isinstance(one, bytes)}
    return client.post(path, files=files, data=data)


def fault(response):
    body = response.json()["error"]
    assert set(body) == {"code", "message", "type"} and "/tmp" not in body["message"]
    return response.status_code, body["code"]


def test_transcribe_gives_the_text_and_words_of_the_recogniser(client, folders, samples):
    content = wav(samples)
    wanted = Recognizer.load(folders["ctc"], "cpu").transcribe(
        waveform(content), RATE, word_times=True
    )
    plain = send(client, "/transcribe", file=content, model="ctc").json()
    assert plain == {"model": "ctc", "text": wanted.text, "seconds": 2.0, "warnings": []}
    timed = send(client, "/transcribe", file=content, model="ctc", word_times="true").json()
    assert [one["word"] for one in timed["words"]] == [one.text for one in wanted.words]
    starts = [one.start for one in wanted.words]
    assert [one["start"] for one in timed["words"]] == pytest.approx(starts, abs=1e-3)
    assert wanted.text


def test_the_first_model_of_the_task_answers_and_any_format_and_rate_is_read(client, samples):
    first = send(client, "/transcribe", file=wav(samples)).json()
    assert first["model"] == "ctc"
    flac = send(client, "/transcribe", file=wav(samples, kind="FLAC")).json()
    assert flac == first
    stereo = np.stack([samples, samples], 1)
    other = send(client, "/transcribe", file=wav(stereo, 44100)).json()
    assert other["seconds"] == pytest.approx(len(samples) / 44100, abs=0.01)


def test_spot_verify_and_embed_give_what_the_public_classes_give(client, folders, samples):
    one, two = wav(samples), wav(samples[::-1].copy())
    spotter = KeywordSpotter.load(folders["keywords"], "cpu")
    wanted = spotter.spot(waveform(one), RATE, threshold=0.1).events
    found = send(client, "/spot", file=one, threshold="0.1").json()
    assert [event["label"] for event in found["events"]] == [event.label for event in wanted]
    verifier = SpeakerVerifier.load(folders["speakers"], "cpu")
    wanted = verifier.verify(waveform(one), waveform(two), RATE)
    found = send(client, "/verify", first=one, second=two).json()
    assert found["score"] == pytest.approx(wanted.score, abs=1e-5)
    assert (found["same"], found["threshold"]) == (wanted.same, wanted.threshold)
    found = send(client, "/embed", file=one).json()
    assert found["embedding"] == pytest.approx(verifier.embed(waveform(one), RATE).vector, abs=1e-5)


def test_separate_gives_a_file_a_speaker(client, folders, samples):
    content = wav(samples)
    separator = Separator.load(folders["windows"], "cpu")
    wanted = separator.separate(waveform(content), RATE)
    response = send(client, "/separate", file=content)
    assert response.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(response.content))
    assert archive.namelist() == [f"speaker{n + 1}.wav" for n in range(separator.num_spks)]
    for number in range(separator.num_spks):
        heard, rate = soundfile.read(archive.open(f"speaker{number + 1}.wav"))
        assert rate == separator.sample_rate
        np.testing.assert_allclose(heard, wanted.sources[:, number], atol=2e-4)
    single = send(client, "/separate", file=content, speaker="2")
    assert single.content == archive.read("speaker2.wav")
    assert fault(send(client, "/separate", file=content, speaker="9")) == (422, "invalid_request")


def test_openai_formats_are_those_of_the_transcript(client, samples):
    path, content = "/v1/audio/transcriptions", wav(samples)
    text = send(client, "/transcribe", file=content).json()["text"]
    options = {"file": content, "model": "whisper-1"}
    assert send(client, path, **options).json() == {"text": text}
    assert send(client, path, **options, response_format="text").text == text + "\n"
    cues = list(srt.parse(send(client, path, **options, response_format="srt").text))
    assert " ".join(" ".join(cue.content.split()) for cue in cues) == text.strip()
    vtt = send(client, path, **options, response_format="vtt").text
    assert [cue.text.split() for cue in webvtt.from_string(vtt)] == [
        cue.content.split() for cue in cues
    ]
    options |= {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
    verbose = send(client, path, **options).json()
    assert verbose["duration"] == 2.0 and "segments" not in verbose
    assert " ".join(one["word"] for one in verbose["words"]) == text.strip()
    assert fault(send(client, path, file=content, response_format="ass"))[0] == 422


def test_openais_client_works_unchanged(client, samples):
    openai = pytest.importorskip("openai")
    ours = openai.OpenAI(api_key="none", base_url=f"{client.base_url}/v1", http_client=client)
    text = send(client, "/transcribe", file=wav(samples)).json()["text"]
    answer = ours.audio.transcriptions.create(model="ctc", file=("a.wav", wav(samples)))
    assert answer.text == text
    assert [one.id for one in ours.models.list()] == ["ctc", "live"]
    with pytest.raises(openai.NotFoundError, match="there is no model 'x'"):
        ours.audio.transcriptions.create(model="x", file=("a.wav", wav(samples)))


@pytest.mark.parametrize(
    ("path", "fields", "wanted"),
    [
        ("/transcribe", {"file": b""}, (422, "unusable_audio")),
        ("/transcribe", {"file": b"RIFF" + b"\0" * 400}, (422, "unusable_audio")),
        ("/transcribe", {"file": b"PK\3\4" + bytes(range(256)) * 9}, (422, "unusable_audio")),
        ("/transcribe", {"model": "ctc"}, (422, "invalid_request")),
        ("/transcribe", {"file": b"x", "model": "nobody"}, (404, "model_not_found")),
        ("/transcribe", {"file": b"x", "model": "speakers"}, (404, "wrong_model")),
        ("/spot", {"file": b"x", "threshold": "2"}, (422, "invalid_request")),
        ("/verify", {"first": b"x"}, (422, "invalid_request")),
        ("/nowhere", {"file": b"x"}, (404, "not_found")),
    ],
)
def test_what_cannot_be_answered_gets_a_code_and_a_sentence(client, path, fields, wanted):
    assert fault(send(client, path, **fields)) == wanted


def test_samples_that_are_no_numbers_are_refused_and_a_cut_file_is_used(client, samples):
    bad = samples.copy()
    bad[5] = np.nan
    assert fault(send(client, "/transcribe", file=wav(bad, subtype="FLOAT"))) == (
        422,
        "unusable_audio",
    )
    cut = send(client, "/transcribe", file=wav(samples)[: len(samples)])
    assert cut.status_code == 200 and cut.json()["warnings"] and cut.json()["seconds"] < 2


def test_silence_has_no_speaker_and_costs_no_neighbour_the_answer(client, samples):
    silent = np.zeros(RATE, np.float32)
    assert fault(send(client, "/embed", file=wav(silent))) == (422, "unusable_audio")
    pair = {"first": wav(silent), "second": wav(samples)}
    assert fault(send(client, "/verify", **pair)) == (422, "unusable_audio")


def test_many_at_once_get_their_own_answers_in_batches(make_client, samples):
    lengths = [4000 + 1000 * number for number in range(24)]
    with make_client(batch_wait_ms=50) as client:
        alone = [send(client, "/transcribe", file=wav(samples[:n])).json() for n in lengths]
        with ThreadPoolExecutor(12) as pool:
            together = list(
                pool.map(
                    lambda n: send(client, "/transcribe", file=wav(samples[:n])).json(), lengths
                )
            )
        assert together == alone
        counts = client.get("/metrics").text
    batches = next(
        float(line.split()[-1])
        for line in counts.splitlines()
        if line.startswith('mamba_speech_batch_requests_count{model="ctc"}')
    )
    assert 24 < batches < 48
    assert 'mamba_speech_requests_total{path="/transcribe",status="200"} 48.0' in counts


def test_limits_of_size_length_and_queue_are_told(make_client, samples):
    with make_client(max_upload_mb=0.05, max_seconds=0.5) as client:
        assert fault(send(client, "/transcribe", file=wav(samples))) == (413, "upload_too_large")
        # without a length in the headers too
        body = (b"x" * 1000 for _ in range(100))
        headers = {"content-type": "multipart/form-data; boundary=b"}
        response = client.post("/transcribe", content=body, headers=headers)
        assert response.status_code in (400, 413)
        assert fault(send(client, "/transcribe", file=wav(samples[:16000]))) == (
            413,
            "recording_too_long",
        )
        assert send(client, "/transcribe", file=wav(samples[:8000])).status_code == 200


def test_keys_are_asked_for_but_not_by_those_who_watch(make_client, samples):
    with make_client(api_keys=["first", "second"]) as client:
        assert fault(send(client, "/transcribe", file=wav(samples))) == (401, "invalid_api_key")
        assert fault(client.get("/metrics")) == (401, "invalid_api_key")
        assert client.get("/health").json() == client.get("/ready").json() == {"status": "ok"}
        client.headers["authorization"] = "Bearer second"
        assert send(client, "/transcribe", file=wav(samples)).status_code == 200


def test_a_line_of_the_log_holds_neither_audio_nor_text(client, samples, caplog):
    with caplog.at_level(logging.INFO, logger="mamba_speech.serving"):
        text = send(client, "/transcribe", file=wav(samples)).json()["text"]
    lines = [one.getMessage() for one in caplog.records if one.name == "mamba_speech.serving"]
    (line,) = lines
    assert json.loads(line)["status"] == 200 and text not in line
    assert set(json.loads(line)) == {"id", "method", "path", "status", "seconds"}


def test_an_ended_service_answers_what_waits_and_takes_no_more(make_client, samples):
    with make_client() as client:
        service = client.app.state.service
        assert client.get("/models").json()["models"][0]["name"] == "ctc"
    assert not service.ready


def test_the_description_names_every_path_with_its_answers(client):
    described = client.get("/openapi.json").json()
    paths = ("/transcribe", "/separate", "/spot", "/verify", "/embed", "/v1/audio/transcriptions")
    for path in paths:
        assert {"200", "401", "413", "422", "429"} <= described["paths"][path]["post"][
            "responses"
        ].keys()


def test_the_page_is_served_without_a_key_where_it_is_wanted(make_client, client):
    assert fault(client.get("/")) == (404, "not_found")
    with make_client(page=True, api_keys=["secret"]) as other:
        assert "page/page.js" in other.get("/").text
        for name in ("page.js", "page.css", "recorder.js"):
            assert other.get(f"/page/{name}").status_code == 200
        assert other.get("/page/../settings.py").status_code in (401, 404)

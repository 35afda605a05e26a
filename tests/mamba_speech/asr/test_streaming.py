"""Trained streaming recognisers: their pieces give what transcribe gives, also through SpeechBrain's interface."""

import copy
import pickle
import re
import shutil
import warnings

import numpy as np
import pytest
import torch
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

from mamba_speech import Recognizer, StreamingRecognizer
from mamba_speech.asr.decoders import CTCDecoder
from mamba_speech.asr.speechbrain_streaming import speechbrain_streaming
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.cli import main
from modules.asr.s2s import S2SRecognizer
from tests.support.recipes import ROOT
from tests.support.recognition import RATE, read


def stream(recognizer, samples, context=None):
    """Log-probabilities of a stream in pieces of random lengths, its context pickled after each."""
    context = context or recognizer.make_streaming_context()
    cuts = np.random.default_rng(1).integers(0, len(samples), 6)
    outputs = []
    for piece in np.split(samples, sorted(cuts)):
        outputs.append(recognizer.forward_streaming(piece, context).log_probs)
        context = pickle.loads(pickle.dumps(context))
    return torch.cat([*outputs, recognizer.finish(context).log_probs], 1)


def test_a_stream_gives_the_text_that_transcribe_gives(streaming_run, audio):
    streaming = StreamingRecognizer.load(streaming_run, device="cpu")
    best_path = {"ctc_only": True} if isinstance(streaming.network.model, S2SRecognizer) else {}
    whole = Recognizer.load(streaming_run, device="cpu", **best_path)
    decode, texts = CTCDecoder(streaming.tokenizer), []
    assert streaming.sample_rate == RATE and streaming.frame_seconds == 0.04
    assert streaming.latency == (0.04 if streaming.network.causal else 8 * 0.04)
    for path in sorted(audio.glob("*.wav")):
        log_probs = stream(streaming, read(path))
        (text,) = decode(log_probs, torch.tensor([log_probs.shape[1]]))
        assert text == whole.transcribe(path).text
        texts.append(text)
    assert len(set(texts)) > 4 and any(" " in text for text in texts)


def test_chunks_are_the_recognisers_or_the_streams_own(chunked_run, audio):
    samples = read(audio / "7.wav")
    coarse = StreamingRecognizer.load(chunked_run, device="cpu", chunk_size=16)
    other = StreamingRecognizer.load(chunked_run, device="cpu")
    assert coarse.latency == 16 * 0.04
    wanted = stream(coarse, samples)
    context = other.make_streaming_context(chunk_size=16)
    assert torch.allclose(stream(other, samples, context), wanted, atol=1e-5)
    assert not torch.allclose(stream(other, samples), wanted, atol=1e-3)


def test_errors_of_loading_name_the_run(chunked_run, trained):
    with pytest.raises(ValueError, match="streaming YAML") as raised:
        StreamingRecognizer.load(trained, device="cpu")
    assert str(trained) in str(raised.value)
    with pytest.raises(ValueError, match="chunk_size") as raised:
        StreamingRecognizer.load(chunked_run, device="cpu", chunk_size=0)
    assert str(chunked_run) in str(raised.value)


def test_pieces_of_every_kind_of_array_are_the_same_and_others_are_refused(chunked_run, audio):
    recognizer, samples = StreamingRecognizer.load(chunked_run, device="cpu"), read(audio / "7.wav")
    wanted = recognizer.forward_streaming(samples, recognizer.make_streaming_context()).log_probs
    locked, backward = samples.copy(), samples[::-1].copy()[::-1]
    locked.flags.writeable = False
    for piece in (
        locked,
        backward,
        samples.astype("float64"),
        torch.tensor(samples),
        samples[None],
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            context = recognizer.make_streaming_context()
            assert torch.equal(recognizer.forward_streaming(piece, context).log_probs, wanted)
    stereo, integers = np.stack([samples, samples], 1), (samples * 32767).astype("int16")
    for piece in ("x.wav", None, b"abc", 0.5, np.array([None]), stereo, integers):
        with pytest.raises(ValueError, match="a piece must be"):
            recognizer.forward_streaming(piece, context)


def test_transcribe_takes_chunks_of_another_size(chunked_run, audio, capsys):
    streaming, texts = StreamingRecognizer.load(chunked_run, device="cpu"), []
    decode, path = CTCDecoder(streaming.tokenizer), audio / "7.wav"
    for size in (1, 8, 60000):
        context = streaming.make_streaming_context(chunk_size=size)
        log_probs = stream(streaming, read(path), context)
        (text,) = decode(log_probs, torch.tensor([log_probs.shape[1]]))
        command = ["transcribe", str(chunked_run), str(path), "--device", "cpu"]
        assert main([*command, "--chunk_size", str(size)]) == 0
        assert capsys.readouterr().out == f"{path}\t{text}\n"
        texts.append(text)
    assert len(set(texts)) == 3
    with pytest.raises(SystemExit):
        main([*command, "--chunk_size", "0"])
    assert "from 1 to" in capsys.readouterr().err


def test_chunks_are_refused_where_a_run_has_none(make_run, trained, audio, capsys):
    command = ["transcribe", "run", str(audio / "7.wav"), "--device", "cpu", "--chunk_size", "4"]
    for run, told in (
        (make_run("CTC, causal"), "encoder is causal"),
        (trained, "streaming recipes"),
    ):
        command[1] = str(run)
        assert main(command) == 2
        out, error = capsys.readouterr()
        assert out == "" and error.count("\n") == 1 and told in error and str(run) in error


def test_a_tokenizer_of_another_size_is_refused(make_run):
    run = make_run("CTC")
    Tokenizer.train(
        ["a quick brown fox jumps over lazy dogs"], run / "save" / "tokenizer.model", size=40
    )
    with pytest.raises(ValueError, match="put the run's own tokenizer back"):
        StreamingRecognizer.load(run, device="cpu")


@pytest.mark.parametrize("chunk", [2, 8])
def test_speechbrains_interface_gives_the_same_text(streaming_run, chunk, audio):
    asr = speechbrain_streaming(streaming_run, device="cpu")
    config = DynChunkTrainConfig(chunk)
    streaming = StreamingRecognizer.load(streaming_run, device="cpu")
    size = None if streaming.network.causal else chunk
    decode, texts = CTCDecoder(streaming.tokenizer), []
    for path in sorted(audio.glob("*.wav"))[-3:]:
        samples = read(path)
        piece = asr.get_chunk_size_frames(config)
        # SpeechBrain ends a stream by two pieces of silence
        padded = np.pad(samples, (0, 2 * piece))
        context = streaming.make_streaming_context(chunk_size=size)
        log_probs = streaming.forward_streaming(padded, context).log_probs
        (wanted,) = decode(log_probs, torch.tensor([log_probs.shape[1]]))
        found = asr.transcribe_file(str(path), config, use_torchaudio_streaming=False)
        assert found == wanted
        texts.append(found)
    assert len(set(texts)) > 1


def test_speechbrains_pieces_may_end_early_and_run_in_a_batch(chunked_run, audio):
    asr, config = speechbrain_streaming(chunked_run, device="cpu"), DynChunkTrainConfig(4)
    piece = asr.get_chunk_size_frames(config)
    wavs = torch.as_tensor(np.stack([read(audio / f"{n}.wav")[: 2 * piece] for n in (6, 7)]))
    with pytest.raises(ValueError, match="chunk_size"):
        asr.make_streaming_context(DynChunkTrainConfig(0))
    alone, together = [], asr.make_streaming_context(config)
    halves = torch.tensor([1.0, 0.5])
    words = [asr.transcribe_chunk(together, wavs[:, :piece])]
    # another stream goes on from a copy of the context
    kept = copy.deepcopy(together)
    words.append(asr.transcribe_chunk(together, wavs[:, piece:], halves))
    assert asr.transcribe_chunk(kept, wavs[:, piece:], halves) == words[1]
    for item, length in enumerate((2 * piece, round(1.5 * piece))):
        context, samples = asr.make_streaming_context(config), wavs[item : item + 1].clone()
        samples[:, length:] = 0
        both = (asr.transcribe_chunk(context, part)[0] for part in samples.split(piece, 1))
        alone.append("".join(both))
    assert ["".join(parts) for parts in zip(*words, strict=True)] == alone
    assert len(set(alone)) > 1


def test_the_documents_code_runs_and_prints_what_it_shows(
    chunked_run, audio, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(chunked_run, tmp_path / "results" / "CTC" / "conmamba_streaming_mini" / "1")
    shutil.copy(audio / "7.wav", "x.wav")
    text = (ROOT / "docs" / "streaming.md").read_text(encoding="utf-8")
    blocks = re.findall(
        r"^```python\n(.*?)^```\n(?:```\n(.*?)^```)?", text, re.DOTALL | re.MULTILINE
    )
    assert len(blocks) >= 2
    names = {}
    for code, shown in blocks:
        exec(code, names)  # noqa: S102 - the project's own document
        printed = capsys.readouterr().out
        assert not shown or printed == shown


def test_a_chunk_longer_than_a_window_is_heard_where_nobody_asks_for_windows(chunked_run, audio):
    file = audio / "3.wav"
    whole = Recognizer.load(chunked_run, "cpu", chunk_size=60_000).transcribe(file).text
    assert whole == Recognizer.load(chunked_run, "cpu", chunk_size=500).transcribe(file).text
    with pytest.raises(ValueError, match="must hold a chunk of the model"):
        Recognizer.load(chunked_run, "cpu", chunk_size=60_000).transcribe(
            file, max_window_seconds=50
        )

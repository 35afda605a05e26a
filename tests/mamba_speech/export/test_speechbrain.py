"""Exported recognisers in SpeechBrain's own classes and in this project: the outputs are the run's."""

import copy

import numpy as np
import pytest
import torch
from speechbrain.inference.ASR import EncoderASR, EncoderDecoderASR, StreamingASR
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

from mamba_speech.asr.live import LiveRecognizer
from mamba_speech.asr.recognizer import Recognizer
from mamba_speech.asr.speechbrain_streaming import speechbrain_streaming
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.export import export_run
from tests.support import recognition

TEXTS = ["a quick brown fox jumps over lazy dogs", "one two three"]
# yaml, statistic, options and SpeechBrain's class
KINDS = {
    "greedy": ("CTC/conmamba_debug.yaml", "WER", {}, EncoderASR),
    "beam": (
        "CTC/conmamba_debug.yaml",
        "WER",
        {"test_decoding": "beam", "beam_size": 5},
        EncoderASR,
    ),
    "conformer": (
        "S2S/conmamba_debug.yaml",
        "token_error",
        {"test_beam_size": 3},
        EncoderDecoderASR,
    ),
    "mamba": (
        "S2S/conmambamamba_debug.yaml",
        "token_error",
        {"test_beam_size": 3},
        EncoderDecoderASR,
    ),
    "upstream": ("CTC/conmamba_debug.yaml", "WER", {"fidelity": "upstream"}, EncoderASR),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    Tokenizer.train(TEXTS, path, "char", size=40)
    return path


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    return [
        recognition.write_noise(folder / f"{seed}.wav", seconds, seed)
        for seed, seconds in ((1, 1.53), (2, 1.2), (3, 0.641))
    ]


@pytest.fixture(scope="module")
def make_run(tmp_path_factory, tokenizer):
    def make(yaml, key, **options):
        folder = tmp_path_factory.mktemp("run")
        return recognition.write_run(folder, yaml, tokenizer, {key: 50.0}, **options)

    return make


def load(interface, folder, tmp_path, monkeypatch):
    """SpeechBrain's class, from a folder that is elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = interface.from_hparams(
        source=str(folder), savedir=str(tmp_path / "loaded"), run_opts={"device": "cpu"}
    )
    monkeypatch.undo()
    return loaded


def padded(paths):
    waves = [torch.from_numpy(recognition.read(path)) for path in paths]
    batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    return waves, batch, torch.tensor([len(one) / batch.shape[1] for one in waves])


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_recogniser_gives_the_runs_outputs_and_texts(
    kind, make_run, audio, tmp_path, monkeypatch
):
    yaml, key, options, interface = KINDS[kind]
    run = make_run(yaml, key, **options)
    export_run(run, tmp_path / "exported")
    wanted = Recognizer.load(run, "cpu")
    texts = [wanted.transcribe(path).text for path in audio]
    assert any(texts)
    here = Recognizer.load(tmp_path / "exported", "cpu")
    assert [here.transcribe(path).text for path in audio] == texts

    theirs = load(interface, tmp_path / "exported", tmp_path, monkeypatch)
    waves, batch, lengths = padded(audio)
    for wave, text in zip(waves, texts, strict=True):
        inputs, _ = wanted._inputs([wave])
        with torch.no_grad():
            outputs, _ = (wanted.model.encode if interface is EncoderDecoderASR else wanted.model)(
                *inputs
            )
            found = theirs.encode_batch(wave[None], torch.ones(1))
        torch.testing.assert_close(found, outputs, rtol=0, atol=1e-5)
        assert theirs.transcribe_batch(wave[None], torch.ones(1))[0] == [text]
    assert theirs.transcribe_file(str(audio[0])) == texts[0]
    if kind != "upstream":
        # padding changes nothing
        assert theirs.transcribe_batch(batch, lengths)[0] == texts


def test_a_batch_has_the_frames_of_each_utterance_alone(make_run, tmp_path, monkeypatch):
    export_run(make_run("CTC/conmamba_debug.yaml", "WER"), tmp_path / "exported")
    theirs = load(EncoderASR, tmp_path / "exported", tmp_path, monkeypatch)
    waves = [torch.randn(samples) for samples in (16000, 15999, 9921, 7201, 8640)]
    batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    together = theirs.encode_batch(batch, torch.tensor([len(one) / 16000 for one in waves]))
    for wave, row in zip(waves, together, strict=True):
        (alone,) = theirs.encode_batch(wave[None], torch.ones(1))
        torch.testing.assert_close(row[: len(alone)], alone, rtol=0, atol=1e-5)
        assert (row[len(alone) :, 0] == 0).all() and row[len(alone) :, 1:].isinf().all()


@pytest.mark.parametrize("kind", ["CTC", "S2S"])
def test_an_exported_streaming_run_streams_as_the_run(kind, make_run, audio, tmp_path, monkeypatch):
    key = {"CTC": "WER", "S2S": "token_error"}[kind]
    run = make_run(f"{kind}/conmamba_streaming_debug.yaml", key)
    export_run(run, tmp_path / "exported")
    theirs = load(StreamingASR, tmp_path / "exported", tmp_path, monkeypatch)
    wanted, config = speechbrain_streaming(run, "cpu"), DynChunkTrainConfig(4)
    piece = wanted.get_chunk_size_frames(config)
    assert theirs.get_chunk_size_frames(config) == piece
    wave = torch.from_numpy(recognition.read(audio[0]))[None]
    contexts = [one.make_streaming_context(config) for one in (wanted, theirs)]
    for part in wave.split(piece, 1):
        ours, their = (
            one.encode_chunk(context, part)
            for one, context in zip((wanted, theirs), copy.deepcopy(contexts), strict=True)
        )
        torch.testing.assert_close(their, ours, rtol=0, atol=1e-5)
        texts = [
            one.transcribe_chunk(c, part) for one, c in zip((wanted, theirs), contexts, strict=True)
        ]
        assert texts[0] == texts[1]
    live = [LiveRecognizer.load(folder, "cpu") for folder in (run, tmp_path / "exported")]
    heard = []
    for one in live:
        context = one.make_context()
        updates = [*one.listen(np.asarray(wave[0]), context), *one.finish(context)]
        heard.append([update.final_text for update in updates])
    assert heard[0] == heard[1] and any(heard[0])


@pytest.mark.parametrize("kind", ["mamba", "transformer"])
def test_a_language_model_goes_along(kind, make_run, audio, tokenizer, tmp_path, monkeypatch):
    if kind == "mamba":
        lm, sizes = make_run("LM/mamba_debug.yaml", "loss"), {}
    else:
        lm, sizes = (
            recognition.write_transformer_lm(tmp_path / "lm", tokenizer),
            recognition.LM_SIZES,
        )
    options = {
        "test_beam_size": 3,
        "lm_weight": 2.0,
        "pretrained_lm_tokenizer_path": str(lm),
        **sizes,
    }
    run = make_run("S2S/conmambamamba_debug.yaml", "token_error", **options)
    texts = [Recognizer.load(run, "cpu").transcribe(path).text for path in audio]
    without = [Recognizer.load(run, "cpu", no_lm=True).transcribe(path).text for path in audio]
    assert texts != without
    export_run(run, tmp_path / "exported")
    # neither is needed any more
    run.rename(tmp_path / "gone")
    lm.rename(tmp_path / "gone lm")
    here = Recognizer.load(tmp_path / "exported", "cpu")
    assert [here.transcribe(path).text for path in audio] == texts
    here = Recognizer.load(tmp_path / "exported", "cpu", no_lm=True)
    assert [here.transcribe(path).text for path in audio] == without
    theirs = load(EncoderDecoderASR, tmp_path / "exported", tmp_path, monkeypatch)
    assert [theirs.transcribe_file(str(path)) for path in audio] == texts
    export_run(tmp_path / "exported", tmp_path / "again")
    again = Recognizer.load(tmp_path / "again", "cpu")
    assert [again.transcribe(path).text for path in audio] == texts

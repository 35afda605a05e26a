"""Live transcripts: the words of the whole, whatever the pieces, and a context that does not grow."""

import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from mamba_speech import LiveRecognizer, Recognizer
from mamba_speech.asr.best_path import GreedyDecoder
from mamba_speech.asr.endpoint import EndpointOptions
from mamba_speech.asr.tokenizer import Tokenizer
from tests.support.recipes import ROOT
from tests.support.recognition import RATE, read

# no end of an utterance in a recording of some seconds
WHOLE = {"endpoint_silence": None, "max_utterance": 600.0}


@pytest.fixture(scope="module")
def live(chunked_run):
    return LiveRecognizer.load(chunked_run, device="cpu")


def follow(live, samples, cuts=(), pickled=False):
    """All updates of a recording in pieces."""
    context, updates = live.make_context(), []
    for piece in np.split(samples, cuts):
        updates += live.listen(piece, context)
        if pickled:
            context = pickle.loads(pickle.dumps(context))
    return updates + live.finish(context)


def words(updates):
    return [word for update in updates for word in update.final]


def text(updates):
    return " ".join(word.text for word in words(updates))


def long_samples(audio):
    return np.concatenate([read(audio / f"{number}.wav") for number in range(8)])


def test_the_words_are_those_of_the_whole_recording(streaming_run, audio):
    live = LiveRecognizer.load(streaming_run, device="cpu", decoding="greedy", **WHOLE)
    best_path = (
        {"ctc_only": True} if "S2S" in (streaming_run / "hyperparams.yaml").read_text() else {}
    )
    whole, texts = Recognizer.load(streaming_run, device="cpu", **best_path), []
    for path in sorted(audio.glob("*.wav")):
        samples = read(path)
        updates = follow(live, samples, range(900, len(samples), 900))
        assert text(updates) == " ".join(whole.transcribe(path).text.split())
        texts.append(text(updates))
    assert len(set(texts)) > 4


def test_pieces_of_any_size_give_the_words_of_the_whole_with_their_times(live, audio):
    samples = long_samples(audio)
    wanted = words(follow(live, samples))
    assert len(wanted) > 5
    cuts = sorted(np.random.default_rng(1).integers(0, len(samples), 40))
    found = words(follow(live, samples, cuts, pickled=True))
    assert [word.text for word in found] == [word.text for word in wanted]
    assert [(word.start, word.end) for word in found] == [(word.start, word.end) for word in wanted]
    assert np.allclose([word.confidence for word in found], [word.confidence for word in wanted])
    starts = [word.start for word in wanted]
    assert starts == sorted(starts) and all(word.start < word.end for word in wanted)
    assert wanted[-1].end <= len(samples) / RATE + 0.08


def test_final_text_with_the_partial_one_behind_it_is_what_is_known(live, audio):
    """The best path never changes its mind: final and partial text together only grow."""
    samples = long_samples(audio)
    final, before = "", ""
    updates = follow(live, samples, range(3000, len(samples), 3000))
    for update in updates:
        final = f"{final} {update.final_text}".strip()
        now = f"{final} {update.partial}".strip()
        assert now.startswith(before)
        before = now
        assert not (update.endpoint and update.partial)
    assert updates[-1].endpoint and before == text(updates)


def test_another_process_goes_on_with_the_context(chunked_run, live, audio, tmp_path):
    samples = long_samples(audio)
    half = len(samples) // 2 + 77
    context = live.make_context()
    updates = live.listen(samples[:half], context)
    (tmp_path / "context").write_bytes(pickle.dumps(context))
    np.save(tmp_path / "rest.npy", samples[half:])
    code = (
        "import pickle, sys, pathlib, numpy as np; from mamba_speech import LiveRecognizer; "
        "folder = pathlib.Path(sys.argv[2]); "
        "live = LiveRecognizer.load(sys.argv[1], device='cpu'); "
        "context = pickle.loads((folder / 'context').read_bytes()); "
        "out = live.listen(np.load(folder / 'rest.npy'), context) + live.finish(context); "
        "(folder / 'out').write_bytes(pickle.dumps(out))"
    )
    command = [sys.executable, "-c", code, str(chunked_run), str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT)
    updates += pickle.loads((tmp_path / "out").read_bytes())
    assert text(updates) == text(follow(live, samples))


def test_the_context_does_not_grow(live, audio):
    samples, context, sizes = long_samples(audio), live.make_context(), []
    for _ in range(6):
        live.listen(samples, context)
        sizes.append(context.total_bytes())
    assert max(sizes[1:]) < 1.5 * sizes[0]


def test_wrong_pieces_and_contexts_are_refused_and_change_nothing(make_run, live, audio):
    samples, context = read(audio / "7.wav"), live.make_context()
    updates = live.listen(samples[:9000], context)
    assert live.listen(samples[:0], context) == []
    before = pickle.dumps(context)
    for piece in (np.full(99, np.nan, np.float32), np.zeros((2, 9), np.float32), "x.wav"):
        with pytest.raises(ValueError, match="a piece must"):
            live.listen(piece, context)
    other = LiveRecognizer.load(make_run("CTC, causal"), device="cpu")
    silent = LiveRecognizer(live.recognizer, GreedyDecoder(live.recognizer.tokenizer, 0.08))
    for wrong in (other, silent):
        with pytest.raises(ValueError, match="context is another"):
            wrong.listen(samples, context)
    with pytest.raises(ValueError, match="make_context"):
        live.listen(samples, None)
    assert pickle.dumps(context) == before
    updates += live.listen(samples[9000:], context) + live.finish(context)
    assert text(updates) == text(follow(live, samples))
    for call in (live.finish, lambda one: live.listen(samples, one)):
        with pytest.raises(ValueError, match="ended"):
            call(context)


def test_two_threads_do_not_share_a_context(live, audio):
    samples, context, told = long_samples(audio), live.make_context(), []

    def read_on():
        try:
            live.listen(samples, context)
        except ValueError as error:
            told.append(str(error))

    context.busy = True
    thread = threading.Thread(target=read_on)
    thread.start()
    thread.join()
    assert len(told) == 1 and "in use" in told[0]


@pytest.mark.parametrize(
    "wrong",
    [{"decoding": "best"}, {"endpoint_silence": 0}, {"max_utterance": "long"}, {"chunk_size": 0}],
)
def test_wrong_options_are_refused_by_name(chunked_run, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))) as raised:
        LiveRecognizer.load(chunked_run, device="cpu", **wrong)
    assert str(chunked_run) in str(raised.value)


def test_a_loud_frame_is_no_silence(chunked_run, audio):
    """With a level, blanks end an utterance only where the sound is quieter."""
    samples = np.concatenate([long_samples(audio), np.zeros(3 * RATE, np.float32)])
    counts = []
    for level in (-300.0, 0.0, None):
        live = LiveRecognizer.load(
            chunked_run, device="cpu", endpoint_silence=0.08, endpoint_level=level
        )
        cuts = range(1111, len(samples), 1111)
        counts.append(sum(update.endpoint for update in follow(live, samples, cuts)))
    # none is quieter than -300 dB, and all are than full scale
    assert counts[0] == 1 and counts[1] == counts[2] > 1


def test_levels_are_read_from_whatever_the_network_takes(chunked_run, audio):
    live = LiveRecognizer.load(
        chunked_run, device="cpu", endpoint_silence=0.08, endpoint_level=-25.0
    )
    samples = long_samples(audio)
    wanted = live.listen(samples, live.make_context())
    assert words(wanted)
    whole = torch.from_numpy(samples)
    for same in (whole[None], whole.clone().requires_grad_(), whole.double(), samples.tolist()):
        assert text(live.listen(same, live.make_context())) == text(wanted)
    assert live.listen(whole.bfloat16(), live.make_context())


# --- the decoder on frames of its own making


def frames(tokenizer, marks, sure=0.9):
    """Log-probabilities (frames, vocabulary) of one token a frame; "-" is the blank, "_" a word's start."""
    labels = tokenizer.labels()
    best = [0 if mark == "-" else labels.index(mark.replace("_", "\u2581")) for mark in marks]
    probs = torch.full((len(best), len(labels)), (1 - sure) / (len(labels) - 1))
    probs[range(len(best)), best] = sure
    return probs.log()


@pytest.fixture(scope="module")
def tokenizer(letters):
    return Tokenizer(letters[0])


def test_an_utterance_ends_after_the_stated_silence_and_no_frame_before(tokenizer):
    decoder = GreedyDecoder(tokenizer, 0.04, EndpointOptions(endpoint_silence=0.2))
    context = decoder.make_context()
    log_probs = frames(tokenizer, "-" * 40 + "_oonn-e" + "-" * 9 + "_two" + "-" * 3)
    told = {}
    for at, frame in enumerate(log_probs):
        for update in decoder.step(frame[None], None, context):
            told[at] = (update.final_text, update.partial, update.endpoint)
    assert told[46] == ("", "one", False)
    assert told[51] == ("one", "", True)
    assert [at for at in told if 51 < at < 56] == []
    (last,) = decoder.finish(context)
    (two,) = last.final
    assert str(two) == "two" and last.endpoint
    assert two.start == pytest.approx(57 * 0.04) and two.end == pytest.approx(60 * 0.04)


def test_a_word_is_final_when_the_next_one_begins(tokenizer):
    decoder = GreedyDecoder(tokenizer, 0.04)
    context = decoder.make_context()
    (update,) = decoder.step(frames(tokenizer, "_one-_t"), None, context)
    assert (update.final_text, update.partial, update.endpoint) == ("one", "t", False)
    (update,) = decoder.step(frames(tokenizer, "twwo"), None, context)
    assert (update.final, update.partial) == ((), "two")


def test_silence_for_minutes_says_nothing_and_keeps_nothing(tokenizer):
    decoder = GreedyDecoder(tokenizer, 0.04)
    context = decoder.make_context()
    sizes = []
    for _ in range(30):
        assert decoder.step(frames(tokenizer, "-" * 250), None, context) == []
        sizes.append(len(pickle.dumps(context)))
    assert max(sizes) - min(sizes) < 32
    (update,) = decoder.step(frames(tokenizer, "_one"), None, context)
    assert update.partial == "one"
    (update,) = decoder.finish(context)
    assert update.final[0].start == pytest.approx(30 * 10 + 0.04)
    assert decoder.finish(decoder.make_context()) == []


def test_wrong_frames_are_refused_and_change_nothing(tokenizer):
    decoder = GreedyDecoder(tokenizer, 0.04, EndpointOptions(endpoint_level=-30.0))
    context, good = decoder.make_context(), frames(tokenizer, "_one")
    before = pickle.dumps(context)
    for wrong, told in (
        ((good[:, :3], None), "an output for each"),
        ((good[None].expand(2, -1, -1), None), "one stream"),
        ((good * float("nan"), None), "NaN"),
        (("one", None), "must be an array"),
        ((good.to(torch.int64), None), "floating"),
        ((good, None), "levels"),
    ):
        with pytest.raises(ValueError, match=told):
            decoder.step(*wrong, context)
    with pytest.raises(ValueError, match="levels"):
        decoder.step(good, None, context, levels=[0.0])
    assert pickle.dumps(context) == before

"""Live searches of trained runs: the texts of the whole utterance, with the language model of a run."""

import importlib.util
import math
import pickle

import numpy as np
import pytest
import torch

from mamba_speech import LiveRecognizer, Recognizer
from mamba_speech.asr.fusion import NgramFusion
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.cli import main
from tests.support.recognition import RATE, read, write_run

# no end of an utterance in a recording of some seconds
WHOLE = {"endpoint_silence": None, "max_utterance": 600.0}


@pytest.fixture(scope="module", params=["S2S", "S2S, Mamba"])
def s2s_streaming(request, make_run):
    return make_run(request.param)


def follow(live, samples, step=5000):
    """The words of a recording in pieces, all partial texts, and the largest context."""
    context, words, partial, size = live.make_context(), [], [], 0
    for start in range(0, len(samples), step):
        for update in live.listen(samples[start : start + step], context):
            words += update.final
            partial.append(update.partial)
        size = max(size, context.total_bytes())
        context = pickle.loads(pickle.dumps(context))
    for update in live.finish(context):
        words += update.final
    return words, partial, size


def joined(words):
    return " ".join(word.text for word in words)


def test_the_joint_search_gives_the_text_of_the_offline_search(s2s_streaming, audio):
    live = LiveRecognizer.load(s2s_streaming, device="cpu", **WHOLE)
    offline, texts = Recognizer.load(s2s_streaming, device="cpu"), []
    for number in (3, 5, 7):
        samples = read(audio / f"{number}.wav")
        words, partial, _ = follow(live, samples)
        assert joined(words) == " ".join(offline.transcribe(audio / f"{number}.wav").text.split())
        assert any(partial)
        seconds = len(samples) / RATE + 0.08
        assert all(0 <= word.start < word.end <= seconds for word in words)
        assert all(0 <= word.confidence <= 1 for word in words)
        texts.append(joined(words))
    assert len(set(texts)) > 1


def test_each_utterance_is_searched_by_itself_and_leaves_the_context(make_run, audio):
    live = LiveRecognizer.load(make_run("S2S, Mamba"), device="cpu", max_utterance=1.0)
    samples = np.concatenate([read(audio / f"{number}.wav") for number in range(8)])
    once, _, size = follow(live, samples)
    twice, _, most = follow(live, np.tile(samples, 3))
    assert joined(twice).startswith(joined(once[:-2])) and len(twice) > 2 * len(once)
    assert most < 1.2 * size
    starts = [word.start for word in twice]
    assert starts == sorted(starts)


@pytest.mark.parametrize("name", ["CTC", "S2S"])
def test_a_prefix_search_takes_the_language_model_of_a_run(make_run, lm_run, audio, name):
    run, texts = make_run(name), []
    samples = np.concatenate([read(audio / f"{number}.wav") for number in range(4, 8)])
    for options in ({"lm": lm_run, "lm_weight": 5.0}, {"lm": lm_run}, {}):
        live = LiveRecognizer.load(run, device="cpu", decoding="beam", beam_size=5, **options)
        words, partial, _ = follow(live, samples)
        assert words and any(partial)
        texts.append(joined(words))
    # a language model of random weights still counts tokens, and so wants fewer of them
    assert len(texts[0]) < len(texts[2])


def test_transcribe_searches_a_ctc_run_with_a_language_model(make_run, lm_run, audio, capsys):
    run, files = make_run("CTC"), [str(audio / f"{number}.wav") for number in range(4, 8)]
    weighed = {}
    for weight in (0.0, 5.0):
        recognizer = Recognizer.load(run, "cpu", lm=lm_run, lm_weight=weight, beam_size=5)
        results = list(recognizer.transcribe(files, nbest=3))
        alone = [recognizer.transcribe(file).text for file in files]
        assert alone == [one.text for one in results]
        for one in results:
            scores = [each.score for each in one.nbest]
            assert scores == sorted(scores, reverse=True) and one.nbest[0].text == one.text
        weighed[weight] = alone
    # a language model of random weights still counts tokens, and so wants fewer of them
    assert len("".join(weighed[5.0])) < len("".join(weighed[0.0]))
    options = ["--lm", str(lm_run), "--lm_weight", "5", "--beam_size", "5", "--device", "cpu"]
    assert main(["transcribe", str(run), *files, *options]) == 0
    shown = [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()]
    assert shown == weighed[5.0]


def test_a_context_of_another_language_model_is_refused(make_run, lm_run, letters, tmp_path):
    """Of the same sizes, so that nothing but the weights tells them apart."""
    yaml = "LM/mamba_debug.yaml"
    other = write_run(tmp_path / "lm", yaml, letters[0], {"loss": 2.0}, seed=2)
    run, options = make_run("CTC"), {"device": "cpu", "beam_size": 2}
    one, two = (LiveRecognizer.load(run, lm=lm, **options) for lm in (lm_run, other))
    context = one.make_context()
    again = LiveRecognizer.load(run, lm=lm_run, **options)
    assert again.listen(np.zeros(6400, np.float32), context) is not None
    with pytest.raises(ValueError, match="context is another decoder's"):
        two.listen(np.zeros(6400, np.float32), context)


def test_a_run_that_was_tested_by_beam_search_is_live_by_one(make_run, tmp_path):
    run = make_run("CTC")
    assert type(LiveRecognizer.load(run, device="cpu").decoder).__name__ == "GreedyDecoder"
    for options in ({"decoding": "beam"}, {"beam_size": 3}):
        live = LiveRecognizer.load(run, device="cpu", **options)
        assert type(live.decoder).__name__ == "PrefixBeamDecoder"
    # the run's own pruning
    assert live.decoder.options.token_prune_min_logp == -1.2


@pytest.mark.parametrize(
    ("name", "wrong", "told"),
    [
        ("CTC", {"decoding": "joint"}, "train_S2S"),
        ("CTC", {"decoding": "greedy", "beam_size": 3}, "beam_size"),
        ("CTC", {"decoding": "greedy", "lm_weight": 0.5}, "lm_weight"),
        ("CTC", {"decoding": "beam", "beam_size": 0}, "beam_size"),
        ("CTC", {"decoding": "beam", "beam_size": "4"}, "beam_size"),
        ("CTC", {"decoding": "beam", "beam_size": 4.0}, "beam_size"),
        ("S2S", {"beam_size": 2.0}, "beam_size"),
        ("CTC", {"decoding": "beam", "final_after": -1}, "final_after"),
        ("CTC", {"decoding": "beam", "final_after": "soon"}, "final_after"),
        ("CTC", {"decoding": "beam", "lm_weight": float("inf")}, "lm_weight"),
        ("CTC", {"decoding": "beam", "lm_weight": -1}, "lm_weight"),
        ("CTC", {"lm": "no such folder"}, "no such folder"),
        ("CTC", {"lm": "x", "no_lm": True}, "contradict"),
        ("S2S", {"beam_size": 0}, "beam_size"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(make_run, name, wrong, told):
    run = make_run(name)
    with pytest.raises((ValueError, FileNotFoundError), match=told) as raised:
        LiveRecognizer.load(run, device="cpu", **wrong)
    assert str(run) in str(raised.value)


def test_an_ngram_needs_its_package_and_its_file(make_run, tmp_path):
    tokenizer = Tokenizer(make_run("CTC") / "save" / "tokenizer.model")
    if importlib.util.find_spec("kenlm") is None:
        with pytest.raises(RuntimeError, match="pip install kenlm"):
            NgramFusion(tmp_path / "x.arpa", tokenizer)
    else:
        with pytest.raises(FileNotFoundError, match=r"x\.arpa"):
            NgramFusion(tmp_path / "x.arpa", tokenizer)


ARPA = """\\data\\
ngram 1=5
ngram 2=2
ngram 3=1

\\1-grams:
-1.0\t<unk>\t0
-0.8\t<s>\t-0.3
-0.7\t</s>\t0
-0.9\tone\t-0.4
-1.2\ttwo\t-0.2

\\2-grams:
-0.3\t<s> one\t-0.1
-0.4\tone two\t-0.1

\\3-grams:
-0.2\t<s> one two

\\end\\
"""


def test_an_ngram_scores_words_as_kenlm_scores_the_sentence(letters, tmp_path):
    kenlm = pytest.importorskip("kenlm")
    (tmp_path / "x.arpa").write_text(ARPA)
    tokenizer = Tokenizer(letters[0])
    fusion = NgramFusion(tmp_path / "x.arpa", tokenizer, weight=0.7, word_bonus=1.5)
    model = kenlm.Model(str(tmp_path / "x.arpa"))
    for text, unknown in (("one two", 0), ("two one two one", 0), ("three one", 1)):
        node, score = fusion.start(), 0.0
        for token in tokenizer.encode(text):
            score += fusion.score(node, token)
            node = pickle.loads(pickle.dumps(fusion.after(node, token)))
        score += fusion.end(node)
        wanted = 0.7 * model.score(text) * math.log(10) + 1.5 * len(text.split()) - 10 * unknown
        assert score == pytest.approx(wanted, abs=1e-4)
        assert len(node[0]) <= 2


def test_a_mamba_decoder_has_absorbed_the_utterance_at_its_end(make_run, audio):
    live, samples = (
        LiveRecognizer.load(make_run("S2S, Mamba"), device="cpu", **WHOLE),
        read(audio / "7.wav"),
    )
    context = live.make_context()
    for start in range(0, len(samples), 4000):
        live.listen(samples[start : start + 4000], context)
    utterance, network = context.decoder.utterance, live.decoder.decode.model.Transformer
    assert len(utterance.encoded) > 2
    with torch.no_grad():
        wanted = network.start_decoding(torch.cat(utterance.encoded)[None])
        shorter = network.start_decoding(utterance.encoded[-1][None])
    for found, whole, part in zip(
        utterance.absorbed.decoder, wanted.decoder, shorter.decoder, strict=True
    ):
        assert torch.allclose(found.cross_state.ssm, whole.cross_state.ssm, atol=1e-5)
        assert not torch.allclose(found.cross_state.ssm, part.cross_state.ssm, atol=1e-3)

"""Beam search: states carried or everything run again, one utterance's answer whatever its neighbours."""

import pytest
import sentencepiece
import torch
from speechbrain.decoders.scorer import CTCScorer as SpeechBrainCTCScorer
from speechbrain.decoders.scorer import ScorerBuilder, TransformerLMScorer
from speechbrain.decoders.seq2seq import S2STransformerBeamSearcher
from speechbrain.lobes.models.transformer.TransformerLM import TransformerLM
from speechbrain.nnet.linear import Linear
from torch import nn

from modules.asr.decoding import CTCScorer, MambaBeamSearcher, TransformerBeamSearcher
from modules.asr.decoding.lm_scorer import LMScorerBuilder, MambaLMScorer
from modules.asr.lm import MambaLM
from modules.asr.transformer import S2STransformer
from modules.lengths import relative_lengths
from modules.ssm import use_backend

BLANK, START, END = 0, 1, 2
D_MODEL = 16
CTC_WEIGHT, LM_WEIGHT = 0.4, 0.6


class Recogniser:
    """A random network, sharpened until hypotheses differ clearly, with the searchers that fit it."""

    def __init__(self, vocab, decoder_module="mamba", lm=None):
        self.vocab, self.lm, self.decoder_module = vocab, lm, decoder_module
        self.network = S2STransformer(
            vocab, 8, D_MODEL, 2, 1, 2, 24, 0.0, kernel_size=3, decoder_module=decoder_module
        ).eval()
        self.seq_lin, self.ctc_lin = (
            Linear(input_size=D_MODEL, n_neurons=vocab).requires_grad_(False) for _ in range(2)
        )
        for name, parameter in self.network.decoder.named_parameters():
            if parameter.dim() > 1 and "A_log" not in name:
                parameter.data.mul_(2.0)
        self.seq_lin.w.weight.mul_(3.0)
        self.ctc_lin.w.weight.mul_(4.0)
        self.ctc_lin.w.bias[BLANK] = 4.0

    def scorer(self, names, ctc_class=CTCScorer, ctc_weight=CTC_WEIGHT):
        scorers, weights = [], {}
        if "ctc" in names:
            scorers.append(ctc_class(self.ctc_lin, blank_index=BLANK, eos_index=END))
            weights["ctc"] = ctc_weight
        if "lm" in names:
            scorers.append(TransformerLMScorer(self.lm, temperature=1.2))
            weights["transformerlm"] = LM_WEIGHT
        if "mambalm" in names:
            scorers.append(MambaLMScorer(self.lm, temperature=1.2))
            weights["mambalm"] = LM_WEIGHT
        if "pruned" in names:
            ctc = ctc_class(self.ctc_lin, blank_index=BLANK, eos_index=END)
            weights["ctc"] = ctc_weight
            return LMScorerBuilder(weights, scorers, [ctc], scorer_beam_scale=1.5)
        return ScorerBuilder(weights, scorers) if scorers else None

    def searcher(self, kind, beam_size, scorers=(), **options):
        ctc_class = SpeechBrainCTCScorer if kind is S2STransformerBeamSearcher else CTCScorer
        options = {
            "bos_index": START,
            "eos_index": END,
            "min_decode_ratio": 0.0,
            "max_decode_ratio": 1.0,
            "scorer": self.scorer(scorers, ctc_class),
            **options,
        }
        return kind([self.network, self.seq_lin], beam_size=beam_size, **options)


def encoded(*lengths):
    return torch.randn(len(lengths), max(lengths), D_MODEL), torch.tensor(lengths)


def search(searcher, states, lengths):
    with torch.no_grad():
        return searcher(states, relative_lengths(lengths, states.shape[1]))


def search_alone(searcher, states, lengths):
    """The same for each utterance without its padding and neighbours."""
    with torch.no_grad():
        return [searcher(states[i : i + 1, :n], torch.ones(1)) for i, n in enumerate(lengths)]


def tokens_of(result):
    """Token lists of a search that returns the top k, one list of lists an utterance."""
    hypotheses, lengths = result[0], (result[1] * result[0].shape[2]).round().long()
    return [
        [row[:n].tolist() for row, n in zip(rows, ns, strict=True)]
        for rows, ns in zip(hypotheses, lengths, strict=True)
    ]


def language_model(vocab):
    """SpeechBrain's, with sharpened outputs."""
    lm = TransformerLM(vocab, d_model=8, nhead=2, num_encoder_layers=1, d_ffn=16, dropout=0.0)
    lm.output_proj.layers[-1].w.weight.data.mul_(4.0)
    return lm.eval()


@pytest.mark.parametrize(
    "beam, vocab, lengths, scorers, options",
    [
        (1, 20, (12,), (), {}),
        (1, 20, (12, 3), ("ctc",), {}),
        (4, 20, (1, 2, 9), (), {"temperature": 1.3}),
        (4, 20, (14, 6), ("ctc", "lm"), {"temperature": 0.7, "using_eos_threshold": False}),
        (5, 30, (14, 6, 11), ("pruned", "lm"), {}),
        (9, 6, (10, 7), ("ctc",), {"length_normalization": False}),
        (9, 4, (8, 5), (), {"min_decode_ratio": 0.4}),
    ],
)
def test_carried_states_find_what_running_everything_again_finds(
    beam, vocab, lengths, scorers, options
):
    recogniser = Recogniser(vocab, lm=language_model(vocab))
    batch = encoded(*lengths)
    options = {"return_topk": True, "topk": min(3, beam), **options}
    carried = search(recogniser.searcher(MambaBeamSearcher, beam, scorers, **options), *batch)
    again = search(recogniser.searcher(TransformerBeamSearcher, beam, scorers, **options), *batch)
    assert tokens_of(carried) == tokens_of(again)
    for ours, wanted in zip(carried[1:], again[1:], strict=True):
        # the sharpened decoder magnifies the rounding of float32 a thousand times
        assert torch.allclose(ours, wanted, atol=5e-4)


TEXT = """the boat came home at night and the men sang of the sea
nobody on the shore could hear what they sang that night
she told him that the old house by the harbour was gone
in the morning the fishermen went out again before the rain
every window of the kitchen was open and the bread was warm
give me the letter that your brother wrote from the mountains
quickly the children climbed over the wall into the garden
jackdaws and sparrows fought for crumbs under the table"""


def saved_language_model(folder):
    """A tokenizer trained on a text and a TransformerLM of its size, written and read again."""
    (folder / "text.txt").write_text(TEXT)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=70,
        model_type="unigram",
        unk_id=BLANK,
        bos_id=START,
        eos_id=END,
        pad_id=-1,
        minloglevel=2,
    )
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    vocab = tokenizer.get_piece_size()
    torch.save(language_model(vocab).state_dict(), folder / "lm.ckpt")
    lm = language_model(vocab)
    lm.load_state_dict(torch.load(folder / "lm.ckpt", weights_only=True))
    return lm, tokenizer


def test_at_beam_66_eight_utterances_with_ctc_and_a_saved_language_model(tmp_path):
    lm, tokenizer = saved_language_model(tmp_path)
    recogniser = Recogniser(tokenizer.get_piece_size(), lm=lm)
    batch = encoded(24, 23, 19, 17, 12, 9, 5, 2)
    options = {"return_topk": True, "topk": 5, "temperature": 1.15, "max_decode_ratio": 0.5}
    carried = search(recogniser.searcher(MambaBeamSearcher, 66, ("ctc", "lm"), **options), *batch)
    again = search(
        recogniser.searcher(TransformerBeamSearcher, 66, ("ctc", "lm"), **options), *batch
    )
    assert tokens_of(carried) == tokens_of(again)
    texts = [[tokenizer.decode(h) for h in found] for found in tokens_of(carried)]
    assert texts == [[tokenizer.decode(h) for h in found] for found in tokens_of(again)]
    assert torch.allclose(carried[2], again[2], atol=1e-4)
    alone = search_alone(
        recogniser.searcher(S2STransformerBeamSearcher, 66, ("ctc", "lm"), **options), *batch
    )
    assert [found[0] for found in tokens_of(carried)] == [tokens_of(a)[0][0] for a in alone]
    assert torch.allclose(carried[2][:, 0], torch.cat([a[2][:, 0] for a in alone]), atol=1e-4)
    # and it was worth comparing: utterances differ, and the best hypotheses are well apart
    assert len({text for text, *_ in texts}) >= 6
    assert (carried[2][:7, :-1] - carried[2][:7, 1:]).median() > 3e-4


@pytest.mark.parametrize("scorers", [(), ("ctc",), ("ctc", "lm"), ("pruned",)], ids="-".join)
@pytest.mark.parametrize(
    "kind, decoder_module",
    [
        (TransformerBeamSearcher, "transformer"),
        (TransformerBeamSearcher, "mamba"),
        (MambaBeamSearcher, "mamba"),
    ],
)
def test_each_utterance_of_a_batch_gets_what_speechbrain_finds_for_it_alone(
    kind, decoder_module, scorers
):
    vocab, beam = 20, 6
    recogniser = Recogniser(vocab, decoder_module, language_model(vocab))
    batch = encoded(13, 8, 5, 2)
    options = {"max_decode_ratio": 0.7, "min_decode_ratio": 0.3, "using_eos_threshold": False}
    found, _, scores, log_probs = search(
        recogniser.searcher(kind, beam, scorers, **options), *batch
    )
    alone = search_alone(
        recogniser.searcher(S2STransformerBeamSearcher, beam, scorers, **options), *batch
    )
    assert found == [result[0][0] for result in alone]
    assert torch.allclose(scores, torch.cat([result[2] for result in alone]), atol=1e-4)
    for row, result in zip(log_probs, alone, strict=True):
        steps = min(len(row), result[3].shape[1])
        assert torch.allclose(row[:steps], result[3][0, :steps], atol=1e-4)


@pytest.mark.parametrize("kind", [TransformerBeamSearcher, MambaBeamSearcher])
@pytest.mark.parametrize("beam, vocab", [(3, 12), (12, 5)])
@pytest.mark.parametrize("scorers", [(), ("ctc",)], ids="-".join)
def test_the_best_hypotheses_of_a_batch_are_those_of_each_utterance_alone(
    kind, beam, vocab, scorers
):
    recogniser = Recogniser(vocab)
    batch = encoded(11, 7, 4, 1)
    searcher = recogniser.searcher(kind, beam, scorers, return_topk=True, topk=3)
    together, alone = search(searcher, *batch), search_alone(searcher, *batch)
    assert tokens_of(together) == [tokens_of(result)[0] for result in alone]
    assert torch.allclose(together[2], torch.cat([result[2] for result in alone]), atol=1e-4)


@pytest.mark.parametrize("scorers", [("ctc",), ("ctc", "lm")], ids="-".join)
def test_a_score_is_the_weighted_sum_of_what_each_model_says_of_the_whole_hypothesis(scorers):
    vocab = 12
    recogniser = Recogniser(vocab, lm=language_model(vocab))
    states, lengths = encoded(12, 9)
    searcher = recogniser.searcher(
        MambaBeamSearcher, 20, scorers, length_normalization=False, using_eos_threshold=False,
        return_topk=True, topk=4,
    )  # fmt: skip
    result = search(searcher, states, lengths)
    for utterance, found in enumerate(tokens_of(result)):
        for tokens, score in zip(found, result[2][utterance], strict=True):
            inputs, outputs = torch.tensor([[START, *tokens]]), torch.tensor([*tokens, END])
            memory = states[utterance : utterance + 1, : lengths[utterance]]
            decoded, _ = recogniser.network.decode(inputs, memory)
            wanted = (1 - CTC_WEIGHT) * likelihood(recogniser.seq_lin(decoded), outputs)
            wanted += CTC_WEIGHT * ctc_likelihood(recogniser.ctc_lin(memory), tokens)
            if "lm" in scorers:
                with torch.no_grad():
                    wanted += LM_WEIGHT * likelihood(recogniser.lm(inputs) / 1.2, outputs)
            assert float(score) == pytest.approx(float(wanted), abs=1e-3)


def likelihood(logits, outputs):
    return -nn.functional.cross_entropy(logits[0], outputs, reduction="sum")


def ctc_likelihood(logits, tokens):
    log_probs = logits.log_softmax(-1).transpose(0, 1)
    return -nn.functional.ctc_loss(
        log_probs, torch.tensor([tokens]), [len(log_probs)], [len(tokens)], reduction="sum"
    )


def test_with_all_the_weight_on_ctc_the_decoder_does_not_count():
    recogniser = Recogniser(8)
    recogniser.ctc_lin.w.bias[BLANK] = 0.0
    batch = encoded(7, 5)
    scorer = recogniser.scorer(("ctc",), ctc_weight=1.0)
    options = {"scorer": scorer, "length_normalization": False}
    found, _, scores, _ = search(recogniser.searcher(MambaBeamSearcher, 20, **options), *batch)
    assert min(len(tokens) for tokens in found) >= 2
    for tokens, score, states, n in zip(found, scores, *batch, strict=True):
        wanted = ctc_likelihood(recogniser.ctc_lin(states[None, :n]), tokens)
        assert float(score) == pytest.approx(float(wanted), abs=1e-3)


@pytest.mark.parametrize("kind", [TransformerBeamSearcher, MambaBeamSearcher])
def test_steps_are_limited_by_each_utterances_own_frames(kind):
    recogniser = Recogniser(12)
    # the end of the sentence at once, or never
    for bias, ratios, lengths in ((50.0, (0.5, 1.0), [10, 4, 1]), (-50.0, (0.0, 0.5), [9, 3, 0])):
        recogniser.seq_lin.w.bias[END] = bias
        options = dict(zip(("min_decode_ratio", "max_decode_ratio"), ratios, strict=True))
        searcher = recogniser.searcher(kind, 3, using_eos_threshold=False, **options)
        found, *_ = search(searcher, *encoded(20, 8, 2))
        assert [len(tokens) for tokens in found] == lengths


@pytest.mark.parametrize("kind", [TransformerBeamSearcher, MambaBeamSearcher])
@pytest.mark.parametrize("scorers", [(), ("ctc",)], ids="-".join)
def test_one_frame_and_no_steps_give_empty_hypotheses(kind, scorers):
    recogniser = Recogniser(12)
    searcher = recogniser.searcher(kind, 3, scorers, max_decode_ratio=0.01)
    found, lengths, scores, _ = search(searcher, *encoded(6, 1))
    assert found == [[], []] and scores.isfinite().all() and (lengths == 0).all()
    searcher = recogniser.searcher(kind, 3, scorers)
    assert search(searcher, *encoded(1))[0] == [[]]


@pytest.mark.parametrize("kind", [TransformerBeamSearcher, MambaBeamSearcher])
def test_a_beam_wider_than_the_vocabulary_holds_every_hypothesis_once(kind):
    recogniser = Recogniser(4)
    options = {"return_topk": True, "topk": 12, "using_eos_threshold": False}
    searcher = recogniser.searcher(kind, 12, max_decode_ratio=0.5, **options)
    hypotheses, lengths, scores, _ = search(searcher, *encoded(4))
    lengths = (lengths * hypotheses.shape[2]).round().long() + 1  # with the token that ends it
    found = [
        tuple(row[:n].tolist())
        for row, n, score in zip(hypotheses[0], lengths[0], scores[0], strict=True)
        if score > -torch.inf
    ]
    # of the 13 that two steps can make, as many as the beam holds
    assert len(set(found)) == len(found) == 12


def test_half_precision_outputs_are_searched_in_full_precision():
    recogniser = Recogniser(12)
    batch = encoded(9, 4)
    searcher = recogniser.searcher(MambaBeamSearcher, 4, ("ctc",))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, _, scores, log_probs = search(searcher, *batch)
    assert scores.dtype == log_probs.dtype == torch.float32
    assert scores.isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [TransformerBeamSearcher, MambaBeamSearcher])
def test_a_gpu_finds_what_the_cpu_finds(kind):
    recogniser = Recogniser(20)
    states, lengths = encoded(12, 7)
    searcher = recogniser.searcher(kind, 5, ("ctc",))
    wanted = search(searcher, states, lengths)
    for module in (recogniser.network, recogniser.seq_lin, recogniser.ctc_lin):
        module.cuda()
    found = search(searcher, states.cuda(), lengths.cuda())
    assert found[0] == wanted[0]
    assert torch.allclose(found[2].cpu(), wanted[2], atol=1e-3)


@pytest.mark.parametrize("kind", [TransformerBeamSearcher, MambaBeamSearcher])
@pytest.mark.parametrize(
    "options, named",
    [
        ({"beam_size": 0}, "beam_size"),
        ({"topk": 4}, "topk"),
        ({"topk": 0}, "topk"),
        ({"temperature": 0.0}, "temperature"),
        ({"min_decode_ratio": -0.1}, "min_decode_ratio"),
        ({"max_decode_ratio": 0.1, "min_decode_ratio": 0.2}, "min_decode_ratio"),
    ],
)
def test_an_option_outside_its_range_is_refused_by_name(kind, options, named):
    with pytest.raises(ValueError, match=named):
        Recogniser(8).searcher(kind, **{"beam_size": 3, **options})


def test_attention_weights_are_not_asked_of_a_mamba_decoder():
    with pytest.raises(ValueError, match="using_max_attn_shift"):
        Recogniser(8).searcher(MambaBeamSearcher, 3, using_max_attn_shift=True)


@pytest.mark.parametrize("scorers", [(), ("ctc",), ("ctc", "lm"), ("pruned", "mambalm")])
def test_hypotheses_and_scores_do_not_depend_on_batch_order_or_kernels(scorers):
    torch.manual_seed(4)
    vocab = 20
    lm = MambaLM(vocab, d_model=16, n_layers=1).eval()
    if "lm" in scorers:
        lm = TransformerLM(vocab, D_MODEL, 2, 1, 0, 24, 0.0).eval()
    recogniser = Recogniser(vocab, lm=lm)
    states, lengths = encoded(9, 4, 12, 7, 1, 12, 3, 8)

    def searched(order, batch, backend="auto"):
        found = {}
        with use_backend(backend):
            for part in order.split(batch):
                search_it = recogniser.searcher(
                    MambaBeamSearcher, 4, scorers, return_topk=True, topk=3
                )
                width = int(lengths[part].max())
                hypotheses, sizes, scores, shares = search(
                    search_it, states[part, :width], lengths[part]
                )
                counts = (sizes * hypotheses.shape[-1]).round().int().tolist()
                for place, one in enumerate(part.tolist()):
                    texts = [
                        h[:n].tolist()
                        for h, n in zip(hypotheses[place], counts[place], strict=True)
                    ]
                    found[one] = (texts, scores[place], shares[place].sum(-1))
        return found

    wanted = searched(torch.arange(8), 1, "torch")
    for batch in (1, 4, 8):
        for order in (torch.arange(8), torch.arange(8).flip(0), torch.randperm(8)):
            for one, (texts, scores, shares) in searched(order, batch).items():
                assert texts == wanted[one][0]
                assert torch.allclose(scores, wanted[one][1], atol=1e-4)
                assert torch.allclose(shares, wanted[one][2], atol=1e-4)

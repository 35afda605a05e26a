"""CTC prefix scores: sums over alignments, SpeechBrain's numbers, one utterance's whatever its neighbours."""

import copy
from itertools import groupby, product

import pytest
import torch
from speechbrain.decoders.ctc import CTCPrefixScore as SpeechBrainPrefixScore
from speechbrain.nnet.linear import Linear

from modules.asr.decoding.ctc_scorer import CTCPrefixScore, CTCScorer
from modules.asr.decoding.prefix_kernel import KernelPrefixScore
from modules.ssm import use_backend
from modules.ssm.cpu.build import refusal

BLANK, START, END = 0, 1, 2
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=[CTCPrefixScore, KernelPrefixScore])
def prefix_class(request):
    """The plain way and the kernel's."""
    if request.param is KernelPrefixScore and refusal() is not None:
        pytest.skip("no compiled kernels here")
    return request.param


@pytest.fixture
def double_precision():
    """Tensors made without a dtype are float64: SpeechBrain's scores are then good for comparison at any length."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_log_probs(batch, time, vocab, sharpness):
    logits = torch.randn(batch, time, vocab) * sharpness
    logits[..., BLANK] += 1.5 * sharpness
    return logits.log_softmax(-1)


def keep(scores, totals, beam):
    """The beam's choice among everything, noise added so that it meets odd prefixes; no sentence ends."""
    vocab = scores.shape[1]
    scores = scores + totals.unsqueeze(1) + torch.randn(scores.shape).to(scores)
    scores[:, END] = -torch.inf
    totals, index = scores.view(-1, beam * vocab).topk(beam)
    return totals.view(-1), index, (index % vocab).view(-1)


def beam_start(batch, beam, device="cpu"):
    totals = torch.full((batch * beam,), -1e9, device=device)
    totals[::beam] = 0.0
    return totals, torch.full((batch * beam,), START, device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("vocab", [4, 30])
@pytest.mark.parametrize("sharpness", [0.5, 4.0, 30.0])
@pytest.mark.parametrize("n_candidates", [None, 3])
def test_scores_are_those_of_speechbrain(
    prefix_class, n_candidates, sharpness, vocab, device, double_precision
):
    if device == "cuda" and prefix_class is KernelPrefixScore:
        pytest.skip("the kernel runs on the CPU")
    beam, lengths = 5, torch.tensor([16, 11, 1], device=device)
    log_probs = random_log_probs(len(lengths), 16, vocab, sharpness).to(device)
    reference = SpeechBrainPrefixScore(log_probs.clone(), lengths, BLANK, END)
    prefixes = prefix_class(log_probs, lengths, BLANK, END)
    totals, tokens = beam_start(len(lengths), beam, device)
    wanted_state = state = None
    compared = 0
    for _ in range(14):
        candidates = None
        if n_candidates:
            candidates = torch.randn(len(tokens), vocab).to(device).topk(n_candidates).indices
        wanted, wanted_memory = reference.forward_step(tokens, wanted_state, candidates)
        scores, memory = prefixes.forward_step(tokens, state, candidates)
        # of a prefix that needs more frames than there are SpeechBrain says anything
        possible = (totals > -1e15).unsqueeze(1).expand_as(scores)
        near = possible & (wanted > -200)
        assert torch.allclose(scores[near], wanted[near], rtol=0, atol=1e-4)
        assert (scores[possible & ~near] < -199).all()
        compared += int(near.sum())
        totals, index, tokens = keep(wanted, totals, beam)
        wanted_state = reference.permute_mem(wanted_memory, index)
        state = prefixes.permute_mem(memory, index)
    assert compared > 100


@pytest.mark.parametrize("time", [1, 2, 5])
def test_scores_are_sums_over_all_alignments(prefix_class, time):
    vocab = 4
    log_probs = random_log_probs(1, time, vocab, 1.0)
    texts = {}
    for path in product(range(vocab), repeat=time):
        text = tuple(token for token, _ in groupby(path) if token != BLANK)
        path = log_probs[0, range(time), path].sum().exp()
        texts[text] = texts.get(text, 0.0) + path

    def prefix_probability(prefix):
        return sum(p for text, p in texts.items() if text[: len(prefix)] == prefix)

    prefixes = prefix_class(log_probs, torch.tensor([time]), BLANK, END)
    for text in [(1,), (3, 3), (1, 3), (3, 1, 1, 3)]:
        state, last = None, START
        for i, token in enumerate((*text, END)):
            scores, memory = prefixes.forward_step(torch.tensor([last]), state)
            given = prefix_probability(text[:i])
            if given == 0:
                break
            wanted = [
                texts.get(text[:i], 0.0)
                if c == END
                else prefix_probability((*text[:i], c))
                if c != BLANK
                else 0.0
                for c in range(vocab)
            ]
            wanted = torch.tensor(wanted) / given
            assert torch.allclose(scores[0].exp(), wanted, rtol=1e-4, atol=1e-6)
            state, last = prefixes.permute_mem(memory, torch.tensor([[token]])), token


@pytest.mark.parametrize("n_candidates", [None, 4])
def test_a_padded_batch_scores_as_each_utterance_alone(prefix_class, n_candidates):
    beam, vocab, lengths = 3, 12, torch.tensor([15, 8, 2])
    log_probs = random_log_probs(3, 15, vocab, 3.0)
    log_probs[1, 8:] = torch.nan
    together = prefix_class(log_probs, lengths, BLANK, END)
    alone = [
        prefix_class(log_probs[i : i + 1, :n], lengths[i : i + 1], BLANK, END)
        for i, n in enumerate(lengths)
    ]
    totals, tokens = beam_start(3, beam)
    state, states = None, [None] * 3
    for _ in range(10):
        candidates = (
            torch.randn(len(tokens), vocab).topk(n_candidates).indices if n_candidates else None
        )
        scores, memory = together.forward_step(tokens, state, candidates)
        rows = [slice(i * beam, (i + 1) * beam) for i in range(3)]
        parts = [
            prefixes.forward_step(tokens[r], s, candidates if candidates is None else candidates[r])
            for prefixes, s, r in zip(alone, states, rows, strict=True)
        ]
        assert torch.allclose(scores, torch.cat([part for part, _ in parts]), atol=1e-5)
        totals, index, tokens = keep(scores, totals, beam)
        state = together.permute_mem(memory, index)
        states = [
            p.permute_mem(m, index[i : i + 1])
            for i, (p, (_, m)) in enumerate(zip(alone, parts, strict=True))
        ]


def test_candidates_have_their_full_scores_and_others_none(prefix_class):
    vocab, beam = 20, 4
    log_probs = random_log_probs(2, 12, vocab, 2.0)
    prefixes = prefix_class(log_probs, torch.tensor([12, 7]), BLANK, END)
    tokens = torch.full((2 * beam,), START)
    candidates = torch.randn(2 * beam, vocab).topk(5).indices
    full, _ = prefixes.forward_step(tokens, None)
    some, _ = prefixes.forward_step(tokens, None, candidates)
    scored = torch.zeros_like(full, dtype=torch.bool).scatter_(1, candidates, True)
    scored[:, END], scored[:, BLANK] = True, False
    assert torch.allclose(some[scored], full[scored], atol=1e-5)
    assert (some[~scored] == prefixes.minus_inf).all()


def test_a_thousand_frames_and_a_long_prefix_stay_exact(prefix_class):
    time, text = 1000, [3, 3, 4, 5] * 30
    log_probs = random_log_probs(1, time, 8, 3.0)
    prefixes = prefix_class(log_probs, torch.tensor([time]), BLANK, END)
    state, last, total = None, START, 0.0
    for token in text:
        scores, memory = prefixes.forward_step(torch.tensor([last]), state)
        total += float(scores[0, token])
        state, last = prefixes.permute_mem(memory, torch.tensor([[token]])), token
    total += float(prefixes.forward_step(torch.tensor([last]), state)[0][0, END])
    loss = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1).double(),
        torch.tensor([text]),
        [time],
        [len(text)],
        reduction="sum",
    )
    assert total == pytest.approx(-float(loss), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_states_are_scored_in_full_precision(dtype):
    layer = Linear(input_size=8, n_neurons=6)
    states, lengths = torch.randn(2, 9, 8).to(dtype), torch.tensor([9, 4])
    tokens = torch.full((2,), START)

    def score(states, autocast):
        scorer = CTCScorer(layer, BLANK, END)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            scorer.reset_mem(states, lengths)
            return scorer.score(tokens, None, None, None)[0]

    assert score(states, True).dtype == torch.float32
    assert torch.equal(score(states, True), score(states.float(), False))


def test_inputs_are_left_as_they_were(prefix_class):
    log_probs = random_log_probs(2, 6, 5, 1.0)
    before = log_probs.clone()
    prefixes = prefix_class(log_probs, torch.tensor([6, 3]), BLANK, END)
    _, memory = prefixes.forward_step(torch.full((2,), START), None)
    before_memory = copy.deepcopy(memory)
    prefixes.permute_mem(memory, torch.tensor([[3], [4]]))
    assert torch.equal(log_probs, before)
    state, kept = (
        torch.cat([part.flatten() for part in one[0]]) for one in (memory, before_memory)
    )
    assert torch.equal(state, kept) and torch.equal(memory[1], before_memory[1])


def test_blank_and_the_end_of_the_sentence_must_differ():
    with pytest.raises(ValueError, match="blank_index and eos_index"):
        CTCScorer(Linear(input_size=8, n_neurons=6), blank_index=0, eos_index=0)


def test_candidates_may_lie_in_memory_in_any_order(prefix_class):
    prefixes = prefix_class(random_log_probs(2, 6, 9, 1.0), torch.tensor([6, 4]), BLANK, END)
    tokens = torch.full((6,), START)
    candidates = torch.randn(9, 6).topk(4, dim=0).indices.t()
    assert not candidates.is_contiguous()
    scores, _ = prefixes.forward_step(tokens, None, candidates)
    wanted, _ = prefixes.forward_step(tokens, None, candidates.contiguous())
    assert torch.equal(scores, wanted)


@pytest.mark.skipif(refusal() is not None, reason="no compiled kernels here")
@pytest.mark.parametrize("sharpness", [0.5, 4.0, 10.0])
def test_the_kernel_finds_every_number_of_the_plain_way(sharpness):
    beam, vocab, lengths = 4, 9, torch.tensor([400, 1, 233])
    log_probs = random_log_probs(3, 400, vocab, sharpness)
    plain, fast = (
        one(log_probs, lengths, BLANK, END) for one in (CTCPrefixScore, KernelPrefixScore)
    )
    totals, tokens = beam_start(3, beam)
    state = fast_state = None
    for _ in range(40):
        wanted, memory = plain.forward_step(tokens, state)
        found, fast_memory = fast.forward_step(tokens, fast_state)
        assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-5)
        totals, index, tokens = keep(wanted, totals, beam)
        state, fast_state = plain.permute_mem(memory, index), fast.permute_mem(fast_memory, index)
        (paths, prefix), shift = state, fast_state.scale * 512 * torch.tensor(2.0).double().log()
        valid = torch.arange(401) <= lengths.repeat_interleave(beam).unsqueeze(1)
        blank, total = (one.log() - shift for one in (fast_state.blank, fast_state.any))
        whole = torch.logaddexp(paths[:, 0], paths[:, 1])
        # so far below the other paths nothing is felt, and a double ends
        felt = valid & (paths[:, 1] > whole - 300)
        assert torch.allclose(blank[felt], paths[:, 1][felt], rtol=1e-9, atol=1e-9)
        assert torch.allclose(total[valid], whole[valid], rtol=1e-9, atol=1e-9)
        assert torch.allclose(fast_state.told[:, 0], prefix, rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(refusal() is not None, reason="no compiled kernels here")
def test_the_kernel_stands_back_where_another_backend_is_asked_for():
    layer, states = Linear(input_size=8, n_neurons=6), torch.randn(1, 5, 8)
    scorer = CTCScorer(layer, BLANK, END)
    for backend, wanted in (("auto", KernelPrefixScore), ("torch", CTCPrefixScore)):
        with use_backend(backend):
            scorer.reset_mem(states, torch.tensor([5]))
        assert type(scorer.ctc_score) is wanted


@pytest.mark.skipif(refusal() is not None, reason="no compiled kernels here")
def test_the_kernel_refuses_prefixes_that_are_not_there():
    prefixes = KernelPrefixScore(random_log_probs(1, 6, 5, 1.0), torch.tensor([6]), BLANK, END)
    _, memory = prefixes.forward_step(torch.full((2,), START), None)
    for index in (-1, 10):
        with pytest.raises(IndexError, match="no prefix"):
            prefixes.permute_mem(memory, torch.tensor([[3, index]]))

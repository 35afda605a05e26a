"""The scorers of a beam search alone, without decoder and search: CTC scorers and language models.

Part of ``decoding.py``. CTC scorers follow one search by SpeechBrain's full scores, and are
compared with these at every step.
"""

import statistics
import time
from functools import partial

import decoding_models as models
import torch
from decoding_models import CTC
from measure import interleaved, peak_memory

# scores so far below 0 do not decide anything
_COMPARED = -200.0


def measure_ctc(sizes, options):
    """CTC scorers alone: seconds a step, and how far their scores are from SpeechBrain's full scorer's."""
    rows = [_ctc_scorers(sizes, vocabulary) for vocabulary in sizes.vocabularies]
    vocabulary = sizes.vocabularies[-1]
    rows[-1]["bytes"] = {kind: _ctc_memory(kind, vocabulary, options) for kind in sizes.weighed}
    return rows


def _ctc_scorers(sizes, vocabulary):
    encoded, lengths = models.memory(sizes), torch.tensor([sizes.frames])
    scorers = {kind: models.ctc_scorer(kind, sizes.d_model, vocabulary) for kind in CTC}
    memories = {kind: scorer.reset_mem(encoded, lengths) for kind, scorer in scorers.items()}
    count = min(vocabulary, int(models.CANDIDATES * sizes.beam))
    tokens = torch.full((sizes.beam,), models.START)
    # all hypotheses of a beam begin alike; they are told apart by their sums
    sums = torch.full((sizes.beam, 1), -torch.inf)
    sums[0] = 0.0
    taken = {kind: [] for kind in CTC}
    apart = dict.fromkeys(CTC, 0.0)
    for _ in range(sizes.scorer_steps):
        scores = {}
        for kind in (models.THEIR_FULL, *(kind for kind in CTC if kind != models.THEIR_FULL)):
            # pruned ones are given the best by the exact scores, as a decoder that agrees would choose them
            pruned = CTC[kind][1]
            candidates = scores[models.THEIR_FULL].topk(count).indices if pruned else None
            start = time.perf_counter()
            scores[kind], memories[kind] = scorers[kind].score(
                tokens, memories[kind], candidates, None
            )
            taken[kind].append(time.perf_counter() - start)
            reference = scores[models.THEIR_FULL]
            compared = reference > _COMPARED
            if pruned:
                chosen = torch.zeros_like(compared).scatter_(1, candidates, True)
                compared &= chosen
            difference = (scores[kind] - reference)[compared].abs()
            apart[kind] = max(apart[kind], float(difference.max()))
        # what ends a hypothesis has no next step
        scores[models.THEIR_FULL][:, models.END] = -torch.inf
        best = scores[models.THEIR_FULL].topk(count)
        total = (sums + best.values).view(-1)
        sums, chosen = total.topk(sizes.beam)
        parents = torch.div(chosen, count, rounding_mode="floor")
        tokens = best.indices.view(-1)[chosen]
        sums = sums.unsqueeze(1)
        index = (parents * vocabulary + tokens).unsqueeze(0)
        for kind, scorer in scorers.items():
            start = time.perf_counter()
            memories[kind] = scorer.permute_mem(memories[kind], index)
            taken[kind][-1] += time.perf_counter() - start
    for kind, value in apart.items():
        if not value <= models.MOST_DIFFERENCE:
            raise RuntimeError(f"{kind}: scores differ from SpeechBrain's full ones by {value:.1e}")
    return {
        "vocabulary": vocabulary,
        "seconds": {kind: statistics.median(values) for kind, values in taken.items()},
        "difference": apart,
        "bytes": {},
    }


def ctc_step(kind, vocabulary, sizes, scorer=None):
    """One step of a scorer from the beginning; for the measurement of its memory."""
    scorer = models.ctc_scorer(kind, sizes.d_model, vocabulary) if scorer is None else scorer
    state = scorer.reset_mem(models.memory(sizes), torch.tensor([sizes.frames]))
    candidates = None
    if CTC[kind][1]:
        count = min(vocabulary, int(models.CANDIDATES * sizes.beam))
        candidates = torch.arange(vocabulary - count, vocabulary).repeat(sizes.beam, 1)
    scorer.score(torch.full((sizes.beam,), models.START), state, candidates, None)


def _ctc_memory(kind, vocabulary, options):
    size = "QUICK" if options.quick else "PUBLISHED"
    setup = (
        "import torch, decoding_scorers, decoding_models\n"
        f"torch.set_num_threads({options.threads})\n"
        "torch.set_grad_enabled(False)\n"
        f"decoding_scorers.ctc_step({kind!r}, 20, decoding_models.QUICK)\n"
        f"sizes = decoding_models.{size}\n"
        f"scorer = decoding_models.ctc_scorer({kind!r}, sizes.d_model, {vocabulary})\n"
    )
    return peak_memory(setup, f"decoding_scorers.ctc_step({kind!r}, {vocabulary}, sizes, scorer)")


def measure_lm(sizes, options):
    """Language-model scorers alone: seconds of a step by how long the prefix is."""
    wanted = [
        (models.MAMBA_LM, sizes.lm),
        (models.TRANSFORMER_LM, sizes.lm),
        (models.TRANSFORMER_LM, sizes.large_lm),
    ]
    script = models.random_tokens(sizes, max(sizes.lm_steps))
    functions, parameters = {}, {}
    for number, (kind, size) in enumerate(wanted):
        model = models.language_model(kind, size, sizes.vocabulary)
        scorer = models.language_model_scorer(model)
        parameters[number] = sum(parameter.numel() for parameter in model.parameters())
        state = None
        for step, (tokens, _) in enumerate(script, start=1):
            if step in sizes.lm_steps:
                functions[number, step] = partial(scorer.score, tokens, state, None, None)
            if kind == models.MAMBA_LM:
                state = scorer.score(tokens, state, None, None)[1]
            else:  # the prefix itself
                state = torch.stack([read for read, _ in script[:step]], dim=1)
    times = interleaved(functions, options.rounds, budget=options.budget / 2)
    return [
        {
            "model": kind,
            "size": str(size),
            "parameters": parameters[number],
            "seconds": {step: statistics.median(times[number, step]) for step in sizes.lm_steps},
        }
        for number, (kind, size) in enumerate(wanted)
    ]

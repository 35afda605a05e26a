#!/usr/bin/env python3
"""Time of decoding: the Mamba decoder with and without its state, CTC scorers, language models, whole searches.

    python benchmarks/decoding.py [--parts forward_step flat search ctc lm] [--quick] [--rounds 3] [--threads 2]
        [--out FOLDER]
    python benchmarks/decoding.py --run RUN_FOLDER --data_folder CORPUS --split test-spoken [--beams 10 66]

The first measures random models of the published small size (:mod:`decoding_models`) on 10 s of audio and writes
decoding.json, tables as decoding_*.json, and decoding.png. The second measures what the kinds of
CTC scoring cost a trained run in word errors and time (:mod:`decoding_run`), and writes
decoding_wer.json.
"""

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import decoding_models as models
import torch
from decoding_models import CTC, PUBLISHED, QUICK, SEARCHERS
from decoding_tables import PARTS, TABLES, plot
from measure import (
    Load,
    common_options,
    interleaved,
    machine,
    peak_memory,
    positive,
    warn_if_busy,
    write_json,
)
from scan_tables import conditions_table, printed

_WRONG = 1e-3
# scores so far below 0 do not decide anything
_COMPARED = -200.0
# a whole search that takes longer is run for fewer steps
_ROUND_BUDGET = 30.0


class Decoder:
    """A decoder in the middle of a search, driven step by step with tokens from outside.

    Arguments
    ---------
    name : str
        A key of :data:`decoding_models.SEARCHERS`.
    sizes : decoding_models.Sizes
    modules : list of torch.nn.Module

    Attributes
    ----------
    prefill : float
        Seconds that the beginning of the search took.
    """

    def __init__(self, name, sizes, modules):
        self.search = models.searcher(name, sizes, modules, sizes.steps)
        encoded = models.memory(sizes)
        started = time.perf_counter()
        data = self.search.init_beam_search_data(encoded, torch.ones(1))
        self.prefill = time.perf_counter() - started
        self.memory, self.encoded, self.lengths = data[4], data[-2], data[-1]

    def call(self, tokens):
        """Log-probabilities (beam, vocabulary) after these tokens (beam,), and the memory after them."""
        return self.search.forward_step(tokens, self.memory, self.encoded, self.lengths)[:2]

    def advance(self, tokens, kept):
        """One step and the choice of the hypotheses ``kept``: log-probabilities, and seconds of either."""
        start = time.perf_counter()
        log_probs, memory = self.call(tokens)
        middle = time.perf_counter()
        self.memory = self.search.permute_mem(memory, index=kept)
        return log_probs, middle - start, time.perf_counter() - middle


def networks(sizes):
    """The modules of each searcher; those with the same decoder share them."""
    made = {kind: models.network(kind, sizes) for kind in ("mamba", "transformer")}
    return {name: made[kind] for name, (kind, _) in SEARCHERS.items()}


def random_tokens(sizes, steps, low=3):
    """For every step the tokens read (beam,) and the hypotheses kept (beam,)."""
    generator = torch.Generator().manual_seed(3)
    draw = partial(torch.randint, size=(steps, sizes.beam), generator=generator)
    return list(zip(draw(low, sizes.vocabulary), draw(0, sizes.beam), strict=True))


def measure_forward_step(sizes, options):
    """Whole runs through all steps, the decoders taking turns at every step.

    Raises
    ------
    RuntimeError
        If the decoder that carries its state gives other scores than the one that re-runs the prefix.
    """
    made, script = networks(sizes), random_tokens(sizes, sizes.steps)
    rounds, prefills = [], []
    worst = 0.0
    for turn in range(options.rounds + 1):
        decoders = {name: Decoder(name, sizes, made[name]) for name in SEARCHERS}
        taken = {name: {"forward_step": [], "permute_mem": []} for name in SEARCHERS}
        # the first turn warms up and compares
        for tokens, kept in script if turn else script[: max(2, sizes.steps // 6)]:
            scores = {}
            for name, decoder in decoders.items():
                scores[name], forward, permute = decoder.advance(tokens, kept)
                taken[name]["forward_step"].append(forward)
                taken[name]["permute_mem"].append(permute)
            difference = scores[models.STATEFUL] - scores[models.PUBLISHED_STATELESS]
            worst = max(worst, float(difference.abs().max()))
        if not worst <= _WRONG:  # not a number is wrong too
            raise RuntimeError(f"{models.STATEFUL}: scores differ from the re-run by {worst:.1e}")
        if turn:
            rounds.append(taken)
            prefills.append({name: decoder.prefill for name, decoder in decoders.items()})
    rows = {
        name: {
            "prefill": statistics.median(one[name] for one in prefills),
            **{
                part: statistics.median(sum(one[name][part]) for one in rounds)
                for part in ("forward_step", "permute_mem")
            },
            "each_step": [
                statistics.median(one[name]["forward_step"][step] for one in rounds)
                for step in range(sizes.steps)
            ],
        }
        for name in SEARCHERS
    }
    return {"steps": sizes.steps, "worst_difference": worst, "decoders": rows}


def measure_flat(sizes, options):
    """Seconds of a step by how many went before, of all decoders; those that re-run the prefix up to a limit."""
    made, last = networks(sizes), max(sizes.flat_steps)
    script = random_tokens(sizes, last)
    functions = {}
    carried = Decoder(models.STATEFUL, sizes, made[models.STATEFUL])
    for step, (tokens, kept) in enumerate(script, start=1):
        if step in sizes.flat_steps:
            functions[models.STATEFUL, step] = partial(
                carried.search.forward_step, tokens, carried.memory, None, None
            )
        carried.advance(tokens, kept)
    for name in SEARCHERS:
        for step in sizes.flat_steps:
            if name == models.STATEFUL or step > sizes.last_stateless_step:
                continue
            decoder = Decoder(name, sizes, made[name])
            # the memory of these is the prefix
            decoder.memory = torch.stack([tokens for tokens, _ in script[: step - 1]], dim=1)
            functions[name, step] = partial(decoder.call, script[step - 1][0])
    # those that carry a state are quick: so many rounds that a disturbance does not show
    times = interleaved(
        {key: function for key, function in functions.items() if key[0] == models.STATEFUL},
        10 * options.rounds,
        shortest=0,
    )
    others = {key: function for key, function in functions.items() if key not in times}
    times |= interleaved(others, options.rounds, budget=options.budget)
    return [
        {"decoder": name, "step": step, "seconds": statistics.median(seconds)}
        for (name, step), seconds in times.items()
    ]


def searches(sizes):
    """Whole searches by decoder and scorers: functions of the number of steps."""
    made = networks(sizes)
    encoded = models.memory(sizes)
    language_models = {
        kind: models.language_model(kind, sizes.lm, sizes.vocabulary)
        for kind in (models.TRANSFORMER_LM, models.MAMBA_LM)
    }
    wanted = [(name, "none", None) for name in SEARCHERS]
    wanted += [(models.STATEFUL, ctc, None) for ctc in CTC]
    wanted += [(models.TRANSFORMER, models.EXACT, None)]
    wanted += [(models.STATEFUL, models.EXACT, lm) for lm in language_models]

    def run(name, ctc, lm, steps):
        builder = None
        if ctc != "none":
            builder = models.builder(ctc, sizes, language_models.get(lm))
        search = models.searcher(name, sizes, made[name], steps, builder)
        hypotheses, *_ = search(encoded, torch.ones(1))
        return hypotheses

    return {
        (name, ctc, str(lm or "none")): partial(run, name, ctc, lm) for name, ctc, lm in wanted
    }


def measure_search(sizes, options):
    """Seconds of whole searches of one number of steps; slow ones of fewer, as said in their row."""
    rows = []
    functions, steps_of = {}, {}
    for key, run in searches(sizes).items():
        few = min(2, sizes.steps)
        start = time.perf_counter()
        run(few)
        estimate = (time.perf_counter() - start) / few * sizes.steps
        cut = key[1] == models.THEIR_FULL and estimate > options.budget
        steps_of[key] = max(few, int(options.budget / estimate * sizes.steps)) if cut else sizes.steps
        functions[key] = partial(run, steps_of[key])
    times = in_turn(functions, options.rounds, options.budget)
    for (name, ctc, lm), seconds in times.items():
        rows.append(
            {
                "decoder": name,
                "ctc": ctc,
                "lm": lm if lm == "none" else f"{lm}, {sizes.lm}",
                "steps": steps_of[name, ctc, lm],
                "seconds": statistics.median(seconds),
                "rounds": len(seconds),
            }
        )
    return {"steps": sizes.steps, "audio": sizes.frames / 25, "rows": rows}


def in_turn(functions, rounds, budget):
    """Seconds of functions in turn, as :func:`measure.interleaved`, of what was called before and is warm."""
    times = {key: [] for key in functions}
    for _ in range(rounds):
        for key, function in functions.items():
            if sum(times[key]) <= budget:
                start = time.perf_counter()
                function()
                times[key].append(time.perf_counter() - start)
    return times


def measure_ctc(sizes, options):
    """CTC scorers alone: seconds a step, and how far their scores are from those of SpeechBrain's full one."""
    return [_ctc_scorers(sizes, vocabulary, options) for vocabulary in sizes.vocabularies]


def _ctc_scorers(sizes, vocabulary, options):
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
        if not value <= _WRONG:
            raise RuntimeError(f"{kind}: scores differ from SpeechBrain's full ones by {value:.1e}")
    return {
        "vocabulary": vocabulary,
        "seconds": {kind: statistics.median(values) for kind, values in taken.items()},
        "difference": apart,
        "bytes": {kind: _ctc_memory(kind, vocabulary, options) for kind in CTC},
    }


def ctc_step(kind, vocabulary, sizes, scorer=None):
    """One step of a scorer from the beginning; for the measurement of its memory."""
    scorer = models.ctc_scorer(kind, sizes.d_model, vocabulary) if scorer is None else scorer
    state = scorer.reset_mem(models.memory(sizes), torch.tensor([sizes.frames]))
    candidates = None
    if CTC[kind][1]:
        count = min(vocabulary, int(models.CANDIDATES * sizes.beam))
        candidates = torch.arange(vocabulary - count, vocabulary).expand(sizes.beam, count)
    scorer.score(torch.full((sizes.beam,), models.START), state, candidates, None)


def _ctc_memory(kind, vocabulary, options):
    size = "QUICK" if options.quick else "PUBLISHED"
    setup = (
        "import torch, decoding, decoding_models\n"
        f"torch.set_num_threads({options.threads})\n"
        "torch.set_grad_enabled(False)\n"
        f"decoding.ctc_step({kind!r}, 20, decoding_models.QUICK)\n"
        f"sizes = decoding_models.{size}\n"
        f"scorer = decoding_models.ctc_scorer({kind!r}, sizes.d_model, {vocabulary})\n"
    )
    return peak_memory(setup, f"decoding.ctc_step({kind!r}, {vocabulary}, sizes, scorer)")


def measure_lm(sizes, options):
    """Language-model scorers alone: seconds of a step by how long the prefix is."""
    wanted = [
        (models.MAMBA_LM, sizes.lm),
        (models.TRANSFORMER_LM, sizes.lm),
        (models.TRANSFORMER_LM, sizes.large_lm),
    ]
    script = random_tokens(sizes, max(sizes.lm_steps))
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
            "seconds": {
                step: statistics.median(times[number, step]) for step in sizes.lm_steps
            },
        }
        for number, (kind, size) in enumerate(wanted)
    ]


MEASURES = {
    "forward_step": measure_forward_step,
    "flat": measure_flat,
    "search": measure_search,
    "ctc": measure_ctc,
    "lm": measure_lm,
}


def options_of(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it work at all?")
    parser.add_argument(
        "--budget",
        type=float,
        default=_ROUND_BUDGET,
        help="seconds after which a function gets no more turns",
    )
    run = parser.add_argument_group("a trained run")
    run.add_argument("--run", type=Path, metavar="FOLDER", help="output folder of train_S2S.py")
    run.add_argument("--data_folder", type=Path, help="a corpus in LibriSpeech's layout")
    run.add_argument("--split", help="the part of it that is recognised")
    run.add_argument("--beams", type=positive, nargs="+", default=[10, 66])
    run.add_argument("--utterances", type=positive, default=None, help="how many (all)")
    common_options(parser, rounds=3, out=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    options.threads = options.threads or torch.get_num_threads()
    if options.run is not None and not (options.data_folder and options.split):
        parser.error("--run needs --data_folder and --split")
    return options


@torch.no_grad()
def main(arguments=None):
    """Measure, print, and write the JSON files and the plot."""
    options = options_of(arguments)
    torch.set_num_threads(options.threads)
    result = {"machine": machine(), "cores_used_by_others_before": warn_if_busy()}
    load = Load()
    if options.run is not None:
        from decoding_run import measure_run

        result["trained_run"] = measure_run(options)
    else:
        sizes = QUICK if options.quick else PUBLISHED
        for part in options.parts:
            result[part] = MEASURES[part](sizes, options)
    result["cores_used_by_others_during"] = load.others()
    name = "decoding" if options.run is None else "decoding_wer"
    for part, table in TABLES.items():
        if part in result:
            rows = table(result[part])
            print(f"\n{table.__doc__.splitlines()[0]}\n{printed(rows)}", flush=True)
            write_json(options.out / f"decoding_{part}.json", rows)
    write_json(options.out / f"{name}.json", result)
    write_json(options.out / f"{name}_conditions.json", conditions_table(result))
    if "flat" in result:
        plot(result["flat"], options.out / "decoding.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())

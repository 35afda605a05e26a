#!/usr/bin/env python3
"""Time of decoding: the Mamba decoder with and without its state, CTC scorers, language models, whole searches.

    python benchmarks/decoding.py [--parts forward_step flat search mini ctc lm] [--quick] [--rounds 3] [--threads 2]
        [--out FOLDER]
    python benchmarks/decoding.py --run RUN_FOLDER --data_folder CORPUS --split test-spoken [--beams 10 66]
        [--scorings none exact pruned full] [--utterances N]

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
from cells import conditions_table
from decoding_mini import measure_mini
from decoding_models import CTC, PUBLISHED, QUICK, SEARCHERS
from decoding_run import NO_CTC, SCORINGS, measure_run
from decoding_scorers import measure_ctc, measure_lm
from decoding_tables import PARTS, TABLES, plot
from measure import (
    Load,
    interleaved,
    machine,
    parse,
    positive,
    publish,
    warn_if_busy,
)

from mamba_speech.files import write_json

# seconds; what takes longer gets fewer turns, and SpeechBrain's full CTC scorer fewer steps
_ROUND_BUDGET = 20.0


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


def measure_forward_step(sizes, options):
    """Whole runs through all steps, the decoders taking turns at every step.

    Raises
    ------
    RuntimeError
        If the decoder that carries its state gives other scores than the one that re-runs the prefix.
    """
    made, script = networks(sizes), models.random_tokens(sizes, sizes.steps)
    _round(sizes, made, script[:2])  # warms up
    rounds = {name: [] for name in SEARCHERS}
    worst = 0.0
    for _ in range(options.rounds):
        left = [
            name
            for name in SEARCHERS
            if name == models.STATEFUL or _spent(rounds[name]) <= options.budget
        ]
        taken, difference = _round(sizes, {name: made[name] for name in left}, script)
        worst = max(worst, difference)
        if not worst <= models.MOST_DIFFERENCE:  # not a number is wrong too
            raise RuntimeError(f"{models.STATEFUL}: scores differ from the re-run by {worst:.1e}")
        for name in left:
            rounds[name].append(taken[name])
    rows = {
        name: {
            "rounds": len(turns),
            "prefill": statistics.median(one["prefill"] for one in turns),
            "forward_step": statistics.median(sum(one["forward_step"]) for one in turns),
            "permute_mem": statistics.median(sum(one["permute_mem"]) for one in turns),
            "each_step": [
                statistics.median(times)
                for times in zip(*(one["forward_step"] for one in turns), strict=True)
            ],
        }
        for name, turns in rounds.items()
    }
    return {"steps": sizes.steps, "worst_difference": worst, "decoders": rows}


def _round(sizes, made, script):
    """All steps of some decoders: seconds of each part, and how far the scores of Mamba's ever are from another's."""
    decoders = {name: Decoder(name, sizes, modules) for name, modules in made.items()}
    taken = {
        name: {"prefill": decoder.prefill, "forward_step": [], "permute_mem": []}
        for name, decoder in decoders.items()
    }
    worst = 0.0
    for tokens, kept in script:
        scores = {}
        for name, decoder in decoders.items():
            scores[name], forward, permute = decoder.advance(tokens, kept)
            taken[name]["forward_step"].append(forward)
            taken[name]["permute_mem"].append(permute)
        for name in (models.STATELESS, models.PUBLISHED_STATELESS):
            if name in scores:
                difference = (scores[models.STATEFUL] - scores[name]).abs().max()
                # a maximum with not a number would be forgotten
                worst = max(worst, float(difference.nan_to_num(nan=torch.inf)))
    return taken, worst


def _spent(turns):
    return sum(sum(one["forward_step"]) for one in turns)


def measure_flat(sizes, options):
    """Seconds of a step by how many went before, of all decoders; those that re-run the prefix up to a limit."""
    made, last = networks(sizes), max(sizes.flat_steps)
    script = models.random_tokens(sizes, last)
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
    names = (models.STATEFUL, models.STATELESS, models.TRANSFORMER)
    wanted = [(name, "none", None) for name in names]
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

    return {(name, ctc, str(lm or "none")): partial(run, name, ctc, lm) for name, ctc, lm in wanted}


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
        steps_of[key] = (
            max(few, int(options.budget / estimate * sizes.steps)) if cut else sizes.steps
        )
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


MEASURES = {
    "forward_step": measure_forward_step,
    "flat": measure_flat,
    "search": measure_search,
    "mini": measure_mini,
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
    run.add_argument("--scorings", nargs="+", choices=SCORINGS, default=[NO_CTC, "exact", "pruned"])
    run.add_argument("--utterances", type=positive, default=None, help="how many (all)")
    options = parse(parser, arguments, rounds=3)
    if options.run is not None and not (options.data_folder and options.split):
        parser.error("--run needs --data_folder and --split")
    return options


@torch.no_grad()
def main(arguments=None):
    """Measure, print, and write the JSON files and the plot."""
    options = options_of(arguments)
    result = {"machine": machine(), "cores_used_by_others_before": warn_if_busy()}
    load = Load()
    if options.run is not None:
        result["trained_run"] = measure_run(options)
    else:
        sizes = QUICK if options.quick else PUBLISHED
        for part in options.parts:
            result[part] = MEASURES[part](sizes, options)
    result["cores_used_by_others_during"] = load.others()
    name = "decoding" if options.run is None else "decoding_wer"
    if options.run is None and options.parts == ["mini"]:
        # beside the other parts' figures, of another run
        name = "decoding_small"
    for part, table in TABLES.items():
        if part in result:
            publish(table, result[part], options.out / f"decoding_{part}.json")
    write_json(options.out / f"{name}.json", result)
    write_json(options.out / f"{name}_conditions.json", conditions_table(result))
    if "flat" in result:
        plot(result["flat"], options.out / "decoding.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())

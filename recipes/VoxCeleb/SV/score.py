#!/usr/bin/env python3
"""Score trial lists with a trained run, and report equal error rates and detection costs.

    python score.py results/mamba_fbank/1 --trials vox1-O-clean vox1-E-clean --data_folder VoxCeleb1 --as_norm train
    python score.py results/mamba_fbank/1 --threshold_from mine.txt --data_folder MY_SPEECH

Each list is checked first: a perfect, a permuted and a constant system must score 0, 50 and 50 %. Embeddings are
computed once for the same weights and files. The same command again goes on where it was stopped.
"""

import argparse
import logging
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from score_record import (
    ListFigures,
    describe_list,
    describe_session,
    scored_name,
    write_all_scores,
    write_record,
)
from scoring import Cohort, Scorer, embed_with_quality, read_cohort
from trial_lists import refuse_other_list

from data_prep.trials import Trials, find_list, read_trials
from mamba_speech.arguments import jobs, seed, whole_number
from mamba_speech.evaluation.tables import as_text
from mamba_speech.evaluation.verification import (
    TrialErrors,
    check_list,
    read_trial_scores,
    speakers_of,
)
from mamba_speech.figures import check_matplotlib
from mamba_speech.files import error_text, read_json
from mamba_speech.run import read_options
from mamba_speech.speaker.figures import det_curve, score_histograms
from mamba_speech.speaker.store import EmbeddingStore
from mamba_speech.speaker.threshold import write_threshold
from mamba_speech.speaker.verifier import SpeakerVerifier
from training.provenance import hash_list
from training.script import script

logger = logging.getLogger(__name__)
# draws, recordings and scores that an option may ask for
MOST = 10_000_000


class ReadList(NamedTuple):
    """A trial list that was read and checked, with its file, the hash of this file, and speakers as far as known."""

    trials: Trials
    file: Path
    digest: str
    speakers: frozenset

    def describe(self):
        """The list in one line."""
        return describe_list(self.trials, self.file, self.digest, len(self.speakers))


def make_parser():
    """The options of the command."""
    summary, _, rest = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        prog="score.py",
        usage="%(prog)s RUN --trials LIST [LIST ...] --data_folder FOLDER [FOLDER ...] [option ...]",
        description=f"{summary}\n{rest}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", metavar="RUN", type=Path, help="output folder of a trained run")
    add(
        "--trials",
        nargs="+",
        default=[],
        metavar="LIST",
        help="trial lists: files, or names such as vox1-O-clean, which are looked for in the data folders",
    )
    add(
        "--data_folder",
        nargs="+",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folders that the recordings of the lists lie in",
    )
    add_ways_of_scoring(add)
    add_drawing_and_machine(add)
    return parser


def add_ways_of_scoring(add):
    """Give a parser the options that say how scores are made, by its ``add_argument``."""
    add(
        "--as_norm",
        metavar="COHORT",
        help="manifest of a cohort for adaptive symmetric normalisation, or train for the run's own train.csv",
    )
    add(
        "--plda",
        nargs="?",
        const="",
        metavar="COHORT",
        help="manifest of training speakers for PLDA; by default the cohort of --as_norm, or the run's own train.csv",
    )
    add(
        "--calibrate",
        metavar="LIST",
        help="trial list of other speakers, on which scores are calibrated by the recordings' quality",
    )
    add(
        "--threshold_from",
        metavar="LIST",
        help="trial list of other speakers, whose threshold of the equal error rate becomes the run's",
    )
    add(
        "--cohort_top",
        type=whole_number(2, MOST),
        default=300,
        help="cohort scores that count (default: 300)",
    )
    add(
        "--cohort_recordings",
        type=whole_number(1, MOST),
        default=10,
        help="recordings of each cohort speaker at most (default: 10)",
    )


def add_drawing_and_machine(add):
    """Give a parser the options of pictures, intervals, files and the machine, by its ``add_argument``."""
    add(
        "--det",
        nargs="*",
        metavar="NAME=FOLDER",
        help="draw DET curves and histograms of scores; other systems with scores of the same lists join the curves",
    )
    add(
        "--no_speakers",
        action="store_true",
        help="the folders in the lists are no speakers: labels are not checked by them, and trials are drawn",
    )
    add(
        "--resamples",
        type=whole_number(100, MOST),
        default=1000,
        help="draws of the bootstrap (default: 1000)",
    )
    add("--seed", type=seed, default=0, help="seed of the bootstrap (default: 0)")
    add("--output_folder", type=Path, help="folder of the results (default: RUN/scores)")
    add("--device", help="cpu, cuda, cuda:0, ... (default: cuda if there is one, else cpu)")
    add("--threads", type=jobs, help="threads of torch (default: its own choice)")
    add("--noprogressbar", action="store_true", help="no progress bars")


def parse_arguments(arguments=None):
    """Read the command line."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if not options.trials and not options.threshold_from:
        parser.error("give --trials, or --threshold_from, or both")
    for system in options.det or ():
        name, equals, folder = system.partition("=")
        if not (name and equals and Path(folder).is_dir()):
            parser.error(f"--det {system}: write NAME=FOLDER, with the folder of another system")
    options.output_folder = options.output_folder or options.run / "scores"
    if options.plda == "":
        options.plda = options.as_norm or "train"
    words = sys.argv[1:] if arguments is None else arguments
    options.command = shlex.join(map(str, words))
    return options


@script
def main(arguments=None):
    """Run the command line; bad options and failures end it with one line on stderr."""
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        score(options)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"error: {error_text(error)}")


def score(options):
    """Check the lists, embed their recordings, score, and write and print what was found.

    Raises
    ------
    OSError, ValueError or RuntimeError
        If the run, a list, a recording or the cohort cannot be used.
    """
    if options.det is not None:
        check_matplotlib()
    if options.threads:
        torch.set_num_threads(options.threads)
    lists = read_lists(options)
    for one in lists:
        refuse_other_list(options.output_folder, one.trials.name, one.digest)
    others = {
        name: read_list(getattr(options, name), options)
        for name in ("calibrate", "threshold_from")
        if getattr(options, name)
    }
    for name, own in others.items():
        for one in lists:
            refuse_common(f"--{name}", own, one)
    manifests = {
        name: cohort_manifest(name, getattr(options, name), options.run)
        for name in ("as_norm", "plda")
        if getattr(options, name)
    }
    cohorts = {file: read_cohort(file, options.cohort_recordings) for file in manifests.values()}
    verifier = SpeakerVerifier.load(options.run, options.device)
    options.output_folder.mkdir(parents=True, exist_ok=True)
    with EmbeddingStore(options.output_folder / "embeddings.sqlite") as store:

        def embed(paths, name):
            return embed_with_quality(verifier.model, paths, store, name, not options.noprogressbar)

        if "threshold_from" in others:
            verifier = set_threshold(others["threshold_from"], embed, verifier, options)
        if lists:
            scorer = make_scorer(manifests, cohorts, [*lists, *others.values()], embed, options)
            if "calibrate" in others:
                trials = others["calibrate"].trials
                scorer.calibrate(trials, embed(trials.paths, trials.name))
                logger.info("calibrated on %s: %s", trials.name, weights_of(scorer.calibration))
            report(lists, scorer, embed, verifier, manifests, options)


def read_lists(options):
    """The lists of ``--trials``, each of its own name."""
    lists = [read_list(one, options) for one in options.trials]
    names = [one.trials.name for one in lists]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--trials: two lists are called {name}; score them into two folders")
    return lists


def read_list(name, options):
    """Read a list, find its recordings, and check it with systems whose error rates are known."""
    file = find_list(name, options.data_folder)
    trials = read_trials(file, options.data_folder)
    speakers, sides = None if options.no_speakers else speakers_of(trials.files), None
    if speakers is not None:
        sides = [np.array(speakers)[side] for side in (trials.enrolment, trials.test)]
    try:
        found = check_list(trials.labels, sides, name=str(file))
    except ValueError as error:
        hint = "" if speakers is None else ", or give --no_speakers if the folders are no speakers"
        raise ValueError(f"{error}{hint}") from error
    told = ", ".join(f"{system} {rate:.1f} %" for system, rate in found.items())
    logger.info("%s: checked, EER %s", trials.name, told)
    return ReadList(trials, file, hash_list(file), frozenset(speakers or ()))


def refuse_common(option, first, second):
    """Refuse a list with a recording, or a speaker, of another list; ``option`` gave the first."""
    recordings = set(first.trials.paths) & set(second.trials.paths)
    speakers = first.speakers & second.speakers
    if recordings or speakers:
        kind, common = ("recordings", recordings) if recordings else ("speakers", speakers)
        raise ValueError(
            f"{option} {first.trials.name}: has {kind} in common with {second.trials.name} ({len(common)}, such as "
            f"{min(common)}); give a list of other speakers"
        )


def cohort_manifest(option, given, run):
    """The manifest that an option names."""
    if given != "train":
        return Path(given)
    found = run / "train.csv"
    if not found.is_file():
        raise FileNotFoundError(
            f"--{option} train: {found} is not there; give a manifest of training speakers instead"
        )
    return found


def make_scorer(manifests, cohorts, lists, embed, options):
    """The ways of scoring, with a cohort that holds no speaker of the lists."""
    heard = set().union(*(one.speakers for one in lists))
    embedded = {}
    for file, (paths, speakers) in cohorts.items():
        cohort = Cohort(embed(paths, f"cohort {file.name}").vectors, np.array(speakers))
        embedded[file] = cohort.without(heard)
        if not len(embedded[file].speakers):
            raise ValueError(f"the cohort {file} has no speaker besides those of the trial lists")
    chosen = {name: embedded[file] for name, file in manifests.items()}
    return Scorer(chosen.get("as_norm"), chosen.get("plda"), top=options.cohort_top)


def weights_of(calibration):
    """The calibration's coefficients in words."""
    return ", ".join(f"{name} {value:+.2f}" for name, value in calibration.coefficients.items())


def set_threshold(own, embed, verifier, options):
    """Write the threshold of a list's equal error rate into the run; gives the verifier with it."""
    trials = own.trials
    scores = Scorer().scores(trials, embed(trials.paths, trials.name))["cosine"]
    rate, threshold = TrialErrors(trials.labels, scores).eer()
    file = read_options(options.run, ["threshold_file"])["threshold_file"]
    counts = len(trials), len(own.speakers)
    write_threshold(file, threshold, trials.name, *counts, rate, list_hash=own.digest)
    logger.info("%s: threshold %.4f, EER %.2f %% on %s", file, threshold, 100 * rate, trials.name)
    return SpeakerVerifier.load(options.run, options.device)


def report(lists, scorer, embed, verifier, manifests, options):
    """Score the lists, write all files, and print the table."""
    folder, run = options.output_folder, read_options(options.run, ["fidelity", "threshold_file"])
    set_on = read_json(run["threshold_file"]) if verifier.threshold else {}
    session = describe_session(
        {"arguments": options.command},
        run["fidelity"],
        options.seed,
        {one.trials.name: one.digest for one in lists},
        verifier.device,
        torch.get_num_threads(),
    )
    parameters = sum(parameter.numel() for parameter in verifier.model.parameters())
    lines, decisions = [], []
    for own in lists:
        trials = own.trials
        scores = scorer.scores(trials, embed(trials.paths, trials.name))
        write_all_scores(folder, trials, scores)
        drawing = {"resamples": options.resamples, "seed": options.seed}
        found = ListFigures(trials, scores, own.speakers, **drawing)
        conditions = {"list": own.describe(), "drawn": found.drawn, "speakers": len(own.speakers)}
        tests = {
            scored_name(trials, way): (
                len(trials),
                own.digest,
                figures,
                conditions | drawing,
                describe_scoring(way, manifests, options),
            )
            for way, figures in found.figures.items()
        }
        write_record(folder, options.run, session, verifier.weights_hash, parameters, tests)
        lines += found.table(trials.name)
        if set_on.get("list_hash") != own.digest:
            decisions += decide(trials, scores["cosine"], verifier.threshold)
        else:
            logger.warning("%s: the run's threshold was set on it, so no errors at it", own.file)
        if options.det is not None:
            draw(folder, trials, scores, found, options.det)
        print(f"{own.describe()}; intervals over other {found.drawn}", flush=True)
    print(f"\n{as_text(lines)}")
    if decisions:
        print(f"\n{as_text(decisions)}")


def describe_scoring(way, manifests, options):
    """How a list was scored, for the record."""
    told = {"scoring": way}
    cohort = {"as_norm": "as_norm", "plda": "plda", "calibrated": "as_norm"}.get(way)
    if cohort in manifests:
        told |= {"cohort": str(manifests[cohort]), "recordings": options.cohort_recordings}
        told |= {} if way == "plda" else {"top": options.cohort_top}
    return told | ({"calibrated_on": options.calibrate} if way == "calibrated" else {})


def decide(trials, scores, threshold):
    """Errors at the run's threshold as lines of a table; none without a threshold."""
    if threshold is None:
        return []
    accepted = scores > threshold.value
    target = trials.labels == 1
    misses, alarms = 100 * (~accepted[target]).mean(), 100 * accepted[~target].mean()
    line = {"list": trials.name, "threshold": f"{threshold.value:.4f}"}
    line |= {"misses %": f"{misses:.2f}", "false alarms %": f"{alarms:.2f}"}
    return [line | {"from": threshold.source}]


def draw(folder, trials, scores, found, others):
    """Draw ``det_<list>.png`` and ``histogram_<list>.png``."""
    systems = dict(found.errors)
    for system in others:
        name, _, other = system.partition("=")
        rows = read_trial_scores(Path(other) / f"scores_{trials.name}.csv").values()
        labels = [row.label for row in rows]
        if not np.array_equal(labels, trials.labels):
            raise ValueError(f"--det {system}: was scored on another list than {trials.name}")
        systems[name] = TrialErrors(labels, [row.score for row in rows])
    det_curve(systems, folder / f"det_{trials.name}.png", trials.name)
    marked = {way: (own, found.figures[way]["threshold"]) for way, own in scores.items()}
    score_histograms(marked, trials.labels, folder / f"histogram_{trials.name}.png")


if __name__ == "__main__":
    main()

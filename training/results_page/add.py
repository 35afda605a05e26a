"""A row of RESULTS.md from finished runs: their records, their test items, and the command that trained the first."""

import argparse
import re
import shlex
import statistics
from collections import defaultdict
from pathlib import Path

from mamba_speech.files import write_json
from training.results import read_results
from training.results_page.entries import FIELDS, FOLDER, NAME
from training.run_options import RUN_OPTIONS

RESAMPLES = 10_000
# units of figures in results.json
UNITS = {"WER": "%", "CER": "%", "accuracy": "%", "EER": "%", "si-snr_i": "dB", "sdr_i": "dB"}
# names that papers give them
LABELS = {"si-snr_i": "SI-SNRi", "sdr_i": "SDRi", "macro_F1": "macro F1"}
HIGHER = ("accuracy", "si-snr_i", "sdr_i", "macro_F1")
# folders of the corpora that commands name
PUBLIC_DATA = re.compile(r"\$SPEECH_DATA/[\w.-]+")
# of percent, or of dB: the recipe rounds its figures to four digits
TOLERANCE = 0.01


def add(options, folder=FOLDER):
    """Write a row.

    Arguments
    ---------
    options : argparse.Namespace
        Of ``python -m training.results_page add``.
    folder : Path

    Returns
    -------
    Path
        The row's file.

    Raises
    ------
    OSError or ValueError
        If a run cannot be read, was not tested, or does not fit the others.
    """
    if not NAME.fullmatch(options.name):
        raise ValueError(
            f"{options.name}: name the row with words of a to z and digits, joined by -"
        )
    runs = [(place, read_results(place)) for place in map(Path, options.runs)]
    test, metric = _test_and_metric(runs, options)
    results = [(place, record.tests[test], record) for place, record in runs]
    first = results[0][1]
    seeds = defaultdict(list)
    for place, result, record in results:
        seeds[_seed(place, result, record)].append((place, result, record))
    row = _figures(options, seeds, test, metric) | _origin(results)
    row |= _commands(options, next(iter(seeds.values())), test, metric)
    row |= {
        name: getattr(options, name) for name in ("section", "model", "trained_on", "tested_on")
    }
    row |= {"parameters": first.parameters, "fidelity": first.session.fidelity}
    row |= {"metric": LABELS.get(metric, metric)}
    row |= {"unit": UNITS.get(metric, ""), "better": "higher" if metric in HIGHER else "lower"}
    lines = " ".join(line for own in row["commands"].values() for line in own)
    needs = [*options.needs, *sorted(set(PUBLIC_DATA.findall(lines)))]
    row |= {"needs": list(dict.fromkeys(needs)), "minutes": options.minutes, "note": options.note}
    row |= {"seeds": list(seeds)}
    ordered = {name: row[name] for name in FIELDS if name != "name"}
    path = Path(folder) / f"{options.name}.json"
    write_json(path, ordered)
    return path


def _test_and_metric(runs, options):
    place, record = runs[0]
    if not record.tests:
        raise ValueError(f"{place}: tells of no test; let the script test it")
    test = options.test or next(iter(record.tests))
    for place, record in runs:
        if test not in record.tests:
            known = ", ".join(record.tests) or "none"
            raise ValueError(f"{place}: was not tested on {test}; its test sets: {known}")
    figures = runs[0][1].tests[test].figures
    metric = options.metric or next((one for one in UNITS if one in figures), None)
    if metric not in figures:
        raise ValueError(f"--metric {metric}: {runs[0][0]} has {', '.join(figures)}")
    return test, metric


def _seed(place, result, record):
    trained = record.training.sessions[-1] if record.training else result.session
    if "seed" not in trained.seeds:
        raise ValueError(f"{place}: its record names no seed")
    return trained.seeds["seed"]


def _figures(options, seeds, test, metric):
    """Mean, interval over items and figure of each seed; what the records say, where no test left its items."""
    by_seed = [_pooled([result for _, result, _ in own], metric) for own in seeds.values()]
    row = {"figure": statistics.fmean(by_seed), "by_seed": by_seed, "deviation": None}
    row |= {"interval": None, "drawn": None, "others": {}}
    found = _from_items(options, [one for own in seeds.values() for one in own], test, metric)
    if found is not None:
        if max(map(abs, map(float.__sub__, found["by_seed"], by_seed))) > TOLERANCE:
            raise ValueError(
                f"{options.runs[0]}: its items give {metric} {found['by_seed'][0]:.4f}, and its record "
                f"{by_seed[0]:.4f}; test it again"
            )
        row |= {"interval": [round(found["low"], 4), round(found["high"], 4)]}
        row |= {"drawn": found["drawn"], "figure": found["mean"], "by_seed": found["by_seed"]}
    row["figure"] = round(row["figure"], 4)
    return row | {"by_seed": [round(one, 4) for one in row["by_seed"]]}


def _pooled(results, metric):
    weights = [result.items or 1 for result in results]
    values = [result.figures[metric] for result in results]
    return sum(map(float.__mul__, map(float, values), map(float, weights))) / sum(weights)


def _from_items(options, results, test, metric):
    # here, since they need the recipes' metrics
    from training.scores import Figures, read_run, read_speakers, summarise
    from training.tasks import task_of_run

    try:
        task = task_of_run(results[0][0])
    except FileNotFoundError:
        # a language model's test leaves no items
        return None
    if metric not in task.metrics:
        return None
    runs = [read_run(task, place) for place, _, _ in results]
    speakers = read_speakers(options.speakers) if options.speakers else None
    asked = argparse.Namespace(
        task=task, metric=metric, draw=options.draw, speakers=speakers, resamples=RESAMPLES
    )
    found = summarise(Figures(runs, test, options.name), asked)
    return found | {"drawn": task.items if found["drawn"] == "items" else found["drawn"]}


def _origin(results):
    """Machine, time, date and commit; every machine and commit that took part is named."""
    sessions = [
        (record.training.sessions[-1] if record.training else result.session)
        for _, result, record in results
    ]
    times = [result.train_seconds for _, result, _ in results if result.train_seconds]
    return {
        "training_minutes": round(statistics.fmean(times) / 60, 2) if times else None,
        "hardware": "; ".join(dict.fromkeys(map(_machine, sessions))),
        "date": max(result.date or "" for _, result, _ in results)[:10] or None,
        "commit": ", ".join(dict.fromkeys(filter(None, map(_commit, sessions)))) or None,
    }


def _machine(session):
    if session.device and session.device != "cpu":
        return f"{session.world_size} x {session.device}, {session.precision}"
    threads = session.threads or 1
    parts = [session.processor or "CPU", f"{threads} thread{'s' if threads > 1 else ''}"]
    if (session.world_size or 1) > 1:
        parts.append(f"{session.world_size} processes")
    return ", ".join(parts)


def _commit(session):
    if session.commit is None:
        return None
    return f"{session.commit.sha} with changes" if session.commit.dirty else session.commit.sha


def _commands(options, runs, test, metric):
    """Commands of the first seed, and where they leave its figure."""
    train, read = [], []
    for number, (_, result, record) in enumerate(runs, start=1):
        output = f"results/repeat/{options.name}" + (f"/{number}" if len(runs) > 1 else "")
        train.append(training_line(record, result, output, options.replace))
        place = {"file": f"{output}/results.json", "key": ["tests", test, "figures", metric]}
        # runs of one seed are pooled, and a larger test counts for more
        read.append(place | ({"weight": result.items} if len(runs) > 1 and result.items else {}))
    commands = {"data": options.data, "train": options.train or train, "test": options.test_command}
    return {"commands": {stage: own for stage, own in commands.items() if own}, "read": read}


def training_line(record, result, output, pairs=()):
    """The command that trained a run, with another output folder.

    Arguments
    ---------
    record : training.results.Record
    result : training.results.Result
    output : str
    pairs : iterable of str
        ``OLD=NEW``: parts of paths to replace. NEW may begin with a variable of the shell.

    Returns
    -------
    str
        From the project's folder, with as many processes and threads.
    """
    session = record.training.sessions[0] if record.training else result.session
    processes = session.world_size or 1
    python = f"torchrun --standalone --nproc-per-node={processes}" if processes > 1 else "python"
    words = [f"{record.recipe.folder}/{record.recipe.script}", session.yaml]
    for name, value in (session.overrides | {"output_folder": output}).items():
        words += [f"--{name}"] if value == "True" and name in RUN_OPTIONS else [f"--{name}", value]
    line = f"{python} {' '.join(_quoted(replaced(word, pairs)) for word in words)}"
    single = session.threads == 1 and processes == 1
    return f"OMP_NUM_THREADS=1 {line}" if single else line


def _quoted(word):
    return f'"{word}"' if "$" in word else shlex.quote(word)


def replaced(word, pairs):
    """A word of a command with parts of its path replaced.

    Example
    -------
    >>> replaced("/scratch/me/words", ["/scratch/me=results/repeat/data"])
    'results/repeat/data/words'
    """
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not equals or not old:
            raise ValueError(f"--replace {pair}: write OLD=NEW")
        word = word.replace(old, new)
    return word

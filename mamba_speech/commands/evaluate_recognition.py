"""The test of a recogniser on a list with texts: word and character error rates."""

from pathlib import Path

from speechbrain.utils.metric_stats import ErrorRateStats

from mamba_speech.commands.report import Report, ratio
from mamba_speech.lists import read_list
from mamba_speech.plain_yaml import read_scalars
from mamba_speech.recordings import Recording
from mamba_speech.run import OPTIONS_FILE
from mamba_speech.text import PREFIX, TextPolicy

# share of the errors that case alone makes, from which it is told
_CASE_SHARE = 0.2


def text_policy(run_folder, given):
    """The policy of the run's texts, with what the user gave in its place.

    Arguments
    ---------
    run_folder : str or Path
    given : dict
        Options such as ``text_case``; None stands for the run's own.

    Returns
    -------
    mamba_speech.text.TextPolicy
    """
    file = Path(run_folder) / OPTIONS_FILE
    options = read_scalars(file) if file.is_file() else {}
    chosen = {name: value for name, value in options.items() if name.startswith(PREFIX)}
    chosen |= {name: value for name, value in given.items() if value is not None}
    return TextPolicy.of({name: value for name, value in chosen.items() if value is not None})


def evaluate_recognition(model, path, policy, progress=list, **options):
    """Test a recogniser.

    Arguments
    ---------
    model : mamba_speech.asr.recognizer.Recognizer
    path : str or Path
        A list that :func:`mamba_speech.lists.read_list` reads, with texts.
    policy : mamba_speech.text.TextPolicy
        Of references and results alike.
    progress : callable
        From an iterator of results and their number to the same results.
    **options
        Of ``model.transcribe``.

    Returns
    -------
    Report
        ``WER`` and ``CER`` in %.

    Raises
    ------
    OSError, ValueError
        If the list cannot be read, has no texts, or nothing of it could be tested.
    """
    report, rows = Report("utterances"), list(read_list(path))
    spoken, recordings = [], []
    for row in rows:
        text = None if row.text is None else policy.normalise(row.text)
        if row.fault is None and not text:
            report.errors.append(f"{path}, {row.place}: has no text to compare with")
            continue
        spoken.append((row, text))
        recordings.append(Recording.of_row(row, path))
    if not any(text for _, text in spoken):
        raise ValueError(
            f"{path}: names no texts to compare with: give its table a column `text`, or a Kaldi folder its file text"
        )
    results = progress(model.transcribe(recordings, **options), len(recordings))
    pairs = []
    for (row, text), result in zip(spoken, results, strict=True):
        if result.error:
            report.errors.append(result.error)
            continue
        name = row.id or f"{row.name} {row.start or 0:g}"
        pairs.append((name, row.speaker, text, policy.normalise(result.text)))
    if not pairs:
        raise ValueError(f"{path}: nothing of it could be tested: {report.errors[0]}")
    _count(report, pairs)
    return report


def _count(report, pairs):
    words, characters = ErrorRateStats(), ErrorRateStats(split_tokens=True)
    names = [str(number) for number in range(len(pairs))]
    spoken, heard = ([pair[place].split() for pair in pairs] for place in (2, 3))
    speakers = [pair[1] for pair in pairs]
    for name, stats in (("WER", words), ("CER", characters)):
        stats.append(names, heard, spoken)
        errors = [one["num_edits"] for one in stats.scores]
        sizes = [one["num_ref_tokens"] for one in stats.scores]
        report.figures[name], drawn = ratio(errors, sizes, speakers)
    report.notes |= {"words": sum(map(len, spoken)), "interval_draws": drawn}
    for (name, speaker, said, found), score in zip(pairs, words.scores, strict=True):
        report.rows.append(
            {
                "id": name,
                "speaker": speaker or "",
                "words": score["num_ref_tokens"],
                "errors": score["num_edits"],
                "reference": said,
                "result": found,
            }
        )
    _say_case(report, names, heard, spoken, words)


def _say_case(report, names, heard, spoken, words):
    """Tell where many errors are of case alone, as with lists in small letters and a run in capitals."""
    folded = ErrorRateStats()
    lower = [[[word.lower() for word in text] for text in texts] for texts in (heard, spoken)]
    folded.append(names, *lower)
    errors, others = (sum(one["num_edits"] for one in stats.scores) for stats in (words, folded))
    if errors and errors - others > _CASE_SHARE * errors:
        report.notes["hint"] = (
            f"{errors - others} of {errors} word errors are of capital and small letters alone: --text_case lower "
            "passes over them"
        )

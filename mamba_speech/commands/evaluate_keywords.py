"""The test of a keyword spotter on clips whose words are known: accuracy, and F1 over the words."""

from mamba_speech.audio import is_folder, walk_files
from mamba_speech.audio.finding import audio_suffixes
from mamba_speech.commands.report import Figure, Report, ratio
from mamba_speech.evaluation.classification import Prediction, macro_f1, wilson_interval
from mamba_speech.lists import is_list, read_list
from mamba_speech.recordings import Recording

UNKNOWN = "_unknown_"


def evaluate_keywords(model, path, progress=list):
    """Test a keyword spotter.

    Arguments
    ---------
    model : mamba_speech.kws.spotter.KeywordSpotter
    path : str or Path
        A list that :func:`mamba_speech.lists.read_list` reads, with words as ``label`` or ``text``; or a folder of
        ``<word>/<voice>_<anything>``. Folders whose names begin with ``_`` are left out, unless they are classes.
    progress : callable
        See :func:`mamba_speech.commands.evaluate_recognition.evaluate_recognition`.

    Returns
    -------
    Report
        ``accuracy`` and ``macro_F1`` in %. Words that are no class of the model count as its unknown word.

    Raises
    ------
    OSError, ValueError
        If the list cannot be read, names no words, or nothing of it could be tested.
    """
    report, clips = Report("clips"), []
    for name, speaker, said, recording in _clips(path, model.labels):
        if said is None and recording.fault is None:
            report.errors.append(f"{name}: has no word to compare with")
        elif recording.fault is None and said not in model.labels and UNKNOWN not in model.labels:
            known = ", ".join(model.labels)
            report.errors.append(f"{name}: {said!r} is no class of the model ({known})")
        else:
            clips.append((name, speaker, said, recording))
    if not clips:
        first = f": {report.errors[0]}" if report.errors else ""
        raise ValueError(
            f"{path}: names no words to compare with{first}; give a column `label`, or a folder a word"
        )
    heard = progress(model.classify([clip[-1] for clip in clips]), len(clips))
    predictions, others = [], 0
    for (name, speaker, said, _), result in zip(clips, heard, strict=True):
        if result.error:
            report.errors.append(result.error)
            continue
        others += said not in model.labels
        said = said if said in model.labels else UNKNOWN
        one = Prediction(name, speaker or "", "", said, result.label, result.confidence)
        predictions.append(one)
    if not predictions:
        raise ValueError(f"{path}: nothing of it could be tested: {report.errors[0]}")
    _count(report, predictions)
    if others:
        report.notes["clips_of_other_words"] = others
    return report


def _clips(path, labels):
    """Name, speaker, word and recording of each clip."""
    if is_folder(path) and not is_list(path):
        for file in walk_files(path, audio_suffixes()):
            word, (voice, *rest) = file.parent.name, file.stem.split("_")
            # noises, for example, are no words, and their folders begin with _
            if not word.startswith("_") or word in labels:
                yield str(file), voice if rest else None, word, Recording(file)
        return
    for row in read_list(path):
        recording = Recording.of_row(row, path)
        name = row.id or f"{path}, {row.place}"
        yield name, row.speaker, row.label or row.text or None, recording


def _count(report, predictions):
    right = [one.said == one.heard for one in predictions]
    speakers = [one.speaker or None for one in predictions]
    accuracy, drawn = ratio([int(one) for one in right], None, speakers)
    # where nearly all are right, draws of them hardly differ
    low, high = wilson_interval(sum(right), len(right))
    low, high = min(accuracy.low, 100 * low), max(accuracy.high, 100 * high)
    report.figures["accuracy"] = Figure(accuracy.value, low, high)
    report.figures["macro_F1"] = Figure(macro_f1(predictions))
    report.notes["interval_draws"] = drawn
    for one in predictions:
        report.rows.append(
            {
                "id": one.clip,
                "speaker": one.speaker,
                "reference": one.said,
                "result": one.heard,
                "confidence": one.confidence,
            }
        )

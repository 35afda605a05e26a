"""The test of a separator on mixtures whose sources are known: gains of SI-SNR and SDR."""

from pathlib import Path

from mamba_speech.audio import AudioError, is_folder, load_audio, recording_fault, walk_files
from mamba_speech.audio.finding import audio_suffixes
from mamba_speech.commands.report import Report, ratio
from mamba_speech.evaluation.separation import SeparationScores
from mamba_speech.files import read_csv
from mamba_speech.lists.places import Locator

# folders of mixtures in wsj0-mix and LibriMix, the foremost first
_MIXTURES = ("mix", "mix_clean", "mix_both", "mix_both_reverb", "mix_single")


def evaluate_separation(model, path, progress=list):
    """Test a separator.

    Arguments
    ---------
    model : mamba_speech.separation.separator.Separator
    path : str or Path
        A CSV file with the columns ``mix_wav``, ``s1_wav``, ``s2_wav`` and so on; or a folder with the folders
        ``mix``, ``s1``, ``s2``, in which the files of a mixture have one name.
    progress : callable
        See :func:`mamba_speech.commands.evaluate_recognition.evaluate_recognition`.

    Returns
    -------
    Report
        ``si-snr_i`` and ``sdr_i``, gains over the mixture in dB. SDR needs torchmetrics.

    Raises
    ------
    OSError, ValueError
        If the list cannot be read, names no sources, or nothing of it could be tested.
    """
    mixtures = list(_mixtures(path, model.num_spks))
    scores = SeparationScores(sample_rate=model.sample_rate)
    report = Report("mixtures")

    def tested():
        for name, mix, sources in mixtures:
            try:
                _score(model, scores, name, mix, sources)
            except (AudioError, OSError, RuntimeError, ValueError) as error:
                yield recording_fault(mix, error)
            else:
                yield None

    report.errors = [one for one in progress(tested(), len(mixtures)) if one]
    if not scores.rows:
        reason = report.errors[0] if report.errors else "every mixture has a silent source"
        raise ValueError(f"{path}: nothing of it could be tested: {reason}")
    for column in ("si-snr_i", "sdr_i", "si-snr", "sdr"):
        values = [row[column] for row in scores.rows if row.get(column) is not None]
        if values:
            report.figures[column], drawn = ratio(values, None, [None] * len(values), 1.0, "dB")
    told = {"interval_draws": drawn, "silent": scores.silent, "not_finite": scores.not_finite}
    report.notes |= {name: value for name, value in told.items() if value}
    report.rows = [
        {"id": row["snt_id"]} | {k: v for k, v in row.items() if k != "snt_id"}
        for row in scores.rows
    ]
    return report


def _score(model, scores, name, mix, sources):
    mixture = load_audio(mix, model.sample_rate)
    targets = [load_audio(one, model.sample_rate) for one in sources]
    wrong = next(
        (one for one, wave in zip(sources, targets, strict=True) if len(wave) != len(mixture)), None
    )
    if wrong is not None:
        raise AudioError(f"{mix}: its source {wrong} has another length; cut both to one length")
    found = model.separate(mix)
    stacked = found.sources.new_zeros(len(mixture), len(targets))
    for number, wave in enumerate(targets):
        stacked[:, number] = wave
    scores.add([name], found.sources[None], stacked[None], mixture[None])


def _mixtures(path, speakers):
    """Name, mixture and sources of each mixture."""
    if is_folder(path):
        yield from _in_folder(Path(path), speakers)
        return
    columns = [f"s{number + 1}_wav" for number in range(speakers)]
    names, rows = read_csv(path)
    missing = [one for one in ("mix_wav", *columns) if one not in names]
    if missing:
        raise ValueError(
            f"{path}: names no sources to compare with: it has no column {', '.join(missing)}; give mix_wav, "
            f"{', '.join(columns)}, or a folder with mix, s1 and so on"
        )
    locate = Locator(Path(path).parent)
    for number, row in rows:
        name = row.get("ID") or row.get("id") or f"line {number}"
        yield name, *(_located(locate, row, columns))


def _located(locate, row, columns):
    return locate(row["mix_wav"]), [locate(row[one]) for one in columns]


def _in_folder(folder, speakers):
    mixtures = next((folder / one for one in _MIXTURES if (folder / one).is_dir()), None)
    parts = [folder / f"s{number + 1}" for number in range(speakers)]
    missing = next((one for one in parts if not one.is_dir()), None)
    if mixtures is None or missing is not None:
        lacking = "mix" if mixtures is None else missing.name
        raise ValueError(
            f"{folder}: names no sources to compare with: it holds no folder {lacking}; "
            "give a folder with mix, s1 and s2, or a CSV file with mix_wav, s1_wav and s2_wav"
        )
    files = walk_files(mixtures, audio_suffixes())
    if not files:
        raise ValueError(f"{mixtures}: holds no audio")
    for file in files:
        name = file.relative_to(mixtures)
        yield name.with_suffix("").as_posix(), file, [part / name for part in parts]

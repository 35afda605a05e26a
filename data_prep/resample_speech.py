"""Copying a tree of recordings at another rate, as dynamic mixing on WSJ0 wants it: 16 to 8 kHz.

`python -m data_prep.resample_speech IN OUT --sample_rate 8000` writes every recording of IN under the same
relative name into OUT, as 16-bit WAV. It may be stopped at any time: the same command goes on where it was.
"""

import argparse
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.contents import changed_since, read_note, stamp
from data_prep.inspection import CUT
from data_prep.verify import Skipped, is_recorded, write_skipped
from mamba_speech.arguments import jobs, rate
from mamba_speech.audio import AudioError, open_audio, resample_array, walk_files
from mamba_speech.audio.errors import SHORTENED, is_shortened
from mamba_speech.audio.listening import listen
from mamba_speech.audio.outputs import distinct_stems
from mamba_speech.audio.warnings import TRUNCATED
from mamba_speech.files import to_pcm16, write_json, write_wav

logger = logging.getLogger(__name__)

# .wv1 and .sph are SPHERE files, as on WSJ0's discs; .wv2, the second microphone, stands in no mixing list
SUFFIXES = (".wav", ".flac", ".wv1", ".sph")
RECORD = "resampled.json"
SKIPPED = "skipped.csv"
STAMPS = "sources.json"


def resample_speech(input_folder, output_folder, sample_rate=8000, jobs=None):
    """Copy a tree of recordings at one rate.

    A copy has the relative name of its source with the ending `.wav`. Where `a.wav` and `a.flac` lie side by side, the
    copies are `a.wav` and `a.flac.wav`.

    A file that is in `output_folder` already is made again only if the size or the time of change of its source
    is another than when it was made. A file whose peak would pass full scale is scaled down to it.

    Arguments
    ---------
    input_folder : str or Path
        Mono .wav, .flac, .wv1 or .sph files at `sample_rate` or above, in folders of any depth.
    output_folder : str or Path
        New, empty, or made by an earlier run with the same input and rate.
    sample_rate : int
        Hz.
    jobs : int, optional
        Files at a time; by default one for each processor.

    Returns
    -------
    counts : dict of str to int
        How many files were ``written``, were there ``before``, and were ``skipped``: unreadable, empty, of
        several channels, of a lower rate, or with values that are not finite. Those are listed with the
        reason in `<output_folder>/skipped.csv`.

    Raises
    ------
    FileNotFoundError
        If the input folder is missing or holds no audio.
    ValueError
        If the output folder is inside the input folder or holds something else, an option is outside its
        range, or no file can be used.

    Example
    -------
    >>> import tempfile
    >>> import soundfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "in" / "011").mkdir(parents=True)
    >>> soundfile.write(folder / "in" / "011" / "011a0101.wav", [0.0, 0.5] * 800, 16000)
    >>> resample_speech(folder / "in", folder / "out")
    {'written': 1, 'before': 0, 'skipped': 0}
    >>> soundfile.info(folder / "out" / "011" / "011a0101.wav").samplerate
    8000
    """
    source, target = Path(input_folder).resolve(), Path(output_folder).resolve()
    jobs = jobs or os.cpu_count() or 1
    if sample_rate < 1 or jobs < 1:
        raise ValueError(
            f"the rate and the jobs must be 1 or more; got {sample_rate} Hz and {jobs} jobs"
        )
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such folder of recordings")
    if target == source or source in target.parents:
        raise ValueError(f"{target}: lies inside the input folder; give an output folder beside it")
    files, skipped = _find_files(source), []
    if not files:
        raise FileNotFoundError(f"{source}: holds no {', '.join(SUFFIXES)} file to resample")
    _claim(target, {"input_folder": str(source), "sample_rate": sample_rate})

    _remove_outdated(target, files)
    wanted = {name: path for name, path in files.items() if not (target / name).is_file()}
    work = [(path, target / name, sample_rate) for name, path in wanted.items()]
    reasons = _run(work, jobs, f"resampling to {sample_rate} Hz")
    for (name, path), reason in zip(wanted.items(), reasons, strict=True):
        if reason:
            skipped.append(Skipped(str(name.with_suffix("")), str(path), reason))
    write_skipped(target / SKIPPED, skipped, len(files), str(source), things="recordings")
    counts = {
        "written": reasons.count(None),
        "before": len(files) - len(wanted),
        "skipped": len(skipped),
    }
    if not counts["written"] and not counts["before"]:
        raise ValueError(f"{source}: no file could be resampled; see {target / SKIPPED}")
    return counts


def _find_files(source):
    """Files by the relative names that their copies get."""
    places = {}
    for path in walk_files(source, SUFFIXES):
        places.setdefault(path.parent, []).append(path.name)
    return {
        folder.relative_to(source) / f"{stem}.wav": folder / name
        for folder, names in places.items()
        for name, stem in distinct_stems(names, (".wav",)).items()
    }


def _claim(target, record):
    """Make the output folder, or recognise one that an earlier run made."""
    if is_recorded(target / RECORD, record):
        return
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(
            f"{target}: is there already and was not made from {record['input_folder']} at "
            f"{record['sample_rate']} Hz; give another output folder, or remove it"
        )
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / RECORD, record)


def _remove_outdated(target, files):
    """Remove copies of files that have changed since, and note the files as they are now."""
    before = read_note(target / STAMPS)
    names = {str(name).encode("utf-8", "backslashreplace").decode(): name for name in files}
    now = {text: stamp(files[name]) for text, name in names.items()}
    for text in changed_since(before, now):
        (target / names[text]).unlink(missing_ok=True)
    # only now: a run that is killed before this line finds the same changes again
    write_json(target / STAMPS, now)


def _run(work, jobs, description):
    """Resample in parallel, with a progress bar; the reasons why not, or None, in order."""
    if not work:
        return []
    # threads: reading, filtering and writing all leave Python's lock
    threads = ThreadPoolExecutor(jobs)
    try:
        done = threads.map(lambda one: _resample_file(*one), work)
        return list(tqdm(done, total=len(work), desc=description, unit="file", mininterval=0.5))
    finally:
        # what is not begun is dropped if one fails or the user interrupts
        threads.shutdown(cancel_futures=True)


def _resample_file(path, target, sample_rate):
    """Write one file; None, or the reason why it was not written."""
    try:
        with open_audio(path) as audio:
            # (samples, channels)
            waveform, rate = audio.read_all(), audio.rate
            if any(one.kind == TRUNCATED for one in audio.warnings):
                return CUT
    except (AudioError, OSError):
        return _why_unreadable(path)
    if len(waveform) == 0:
        return "no samples"
    if waveform.shape[1] > 1:
        return f"{waveform.shape[1]} channels, not one"
    if rate < sample_rate:
        return f"sampled at {rate} Hz, below the rate wanted"
    if not np.isfinite(waveform).all():
        return "samples that are not finite numbers"
    waveform = listen(waveform, rate, audio.floating).apply(waveform)
    waveform = resample_array(waveform, rate, sample_rate)
    peak = float(np.abs(waveform).max())
    if peak > 1:
        waveform = waveform / peak
    target.parent.mkdir(parents=True, exist_ok=True)
    # the next run overwrites what a killed run left
    write_wav(target, to_pcm16(waveform), sample_rate, unique=False)
    return None


def _why_unreadable(path):
    try:
        with open(path, "rb") as file:
            header = file.read(1)
    except OSError as error:
        # a link to nothing, or a file that may not be read
        return error.strerror.lower()
    if not header:
        return "empty file"
    if is_shortened(path):
        return SHORTENED
    return "unreadable audio"


def parse_arguments(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.resample_speech",
        description="Copy a tree of recordings at another rate, as 16-bit WAV under the same relative "
        "names. The same command again goes on where it was stopped, or does nothing.",
    )
    parser.add_argument("input_folder", help="for example wsj0/si_tr_s")
    parser.add_argument("output_folder", help="for example wsj0_8k/si_tr_s")
    parser.add_argument("--sample_rate", type=rate, default=8000, help="default: 8000")
    parser.add_argument("--jobs", type=jobs, help="files at a time (default: one a processor)")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Run the command line; bad options and failures end it with one line on stderr."""
    options = vars(parse_arguments(arguments))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        counts = resample_speech(**options)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    logger.info(
        "%s: %s", options["output_folder"], ", ".join(f"{n} {k}" for k, n in counts.items())
    )


if __name__ == "__main__":
    main()

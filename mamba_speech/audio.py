"""Reading audio of any format, rate and number of channels as one waveform at the model's rate."""

import logging
from functools import cache
from pathlib import Path

import soundfile
import torch
from speechbrain.dataio import audio_io
from torchaudio.transforms import Resample

logger = logging.getLogger(__name__)

# Rates that were warned about. Loaders start new workers every epoch, so the processes share them;
# workers that are not forked get them from training.loading.
resampled_rates = torch.zeros(32, dtype=torch.int64).share_memory_()


class AudioError(ValueError):
    """A file that holds no usable audio; the message names it and says what is wrong."""


def load_audio(path, sample_rate, start=0, stop=None):
    """Read a file, or a part of it, as a mono waveform.

    Channels are averaged and another rate is resampled, with one warning a rate and process.

    Arguments
    ---------
    path : str or pathlib.Path
        Any file that libsndfile reads (WAV, FLAC, Ogg, MP3, ...).
    sample_rate : int
        Wanted samples a second.
    start, stop : int, optional
        The part to read, in samples of the file; by default all of it.

    Returns
    -------
    torch.Tensor
        (samples,), float32.

    Raises
    ------
    AudioError
        If the file is missing, unreadable, empty, or holds values that are not numbers.
    """
    check_file(path)
    try:
        part = {} if stop is None else {"num_frames": stop - start}
        waveform, rate = audio_io.load(str(path), frame_offset=start, **part)
    except Exception as error:
        # libsndfile's errors have no common type
        raise AudioError(f"{path}: cannot be read as audio ({audio_fault(error)})") from error
    if waveform.shape[-1] == 0:
        raise AudioError(f"{path}: holds no samples")
    waveform = waveform.mean(0) if waveform.dim() == 2 else waveform
    if not torch.isfinite(waveform).all():
        raise AudioError(f"{path}: holds samples that are not finite numbers")
    return resample(waveform, rate, sample_rate)


def resample(waveform, rate, sample_rate):
    """A waveform at another rate; a warning says so once a rate and process.

    Arguments
    ---------
    waveform : torch.Tensor
        (samples,) on the CPU.
    rate, sample_rate : int
        Samples a second that it has, and that are wanted.

    Example
    -------
    >>> resample(torch.zeros(441), 44100, 16000).shape
    torch.Size([160])
    """
    return waveform if rate == sample_rate else _resampler(rate, sample_rate)(waveform)


def find_audio(paths):
    """The given files, and the audio files under the given folders, sorted within each folder.

    Arguments
    ---------
    paths : iterable of str or Path

    Returns
    -------
    files : list of Path
        A folder without audio stands for itself, so that reading it tells so.
    """
    suffixes = {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"}
    suffixes |= {".aif", ".oga", ".opus"}
    files = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        # names that begin with a dot are other systems' notes about a file
        found = (one for one in path.rglob("[!.]*") if one.suffix.lower() in suffixes)
        files += sorted(one for one in found if one.is_file()) or [path]
    return files


def check_file(path):
    """Refuse what is no file.

    Arguments
    ---------
    path : str or Path

    Raises
    ------
    AudioError
        If it is a folder, of which :func:`find_audio` found no audio, or is not there.
    """
    if Path(path).is_dir():
        raise AudioError(f"{path}: a folder in which there is no audio file")
    if not Path(path).is_file():
        raise AudioError(f"{path}: no such file")


def audio_fault(error):
    """What libsndfile found wrong, without the file's name, which its errors and SpeechBrain's repeat."""
    fault = getattr(error, "__cause__", None) or error
    return getattr(fault, "error_string", str(fault)).rstrip(".")


@cache
def _resampler(rate, sample_rate):
    rates = resampled_rates.tolist()
    if rate not in rates:
        if 0 in rates:
            resampled_rates[rates.index(0)] = rate
        logger.warning("audio at %d Hz is resampled to %d Hz", rate, sample_rate)
    return Resample(rate, sample_rate)

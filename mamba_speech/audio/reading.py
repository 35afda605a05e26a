"""Reading audio of any format, rate and number of channels as one waveform at the model's rate."""

import os

from speechbrain.dataio import audio_io

from mamba_speech.audio.errors import AudioError, check_samples, recording_fault, unreadable
from mamba_speech.audio.finding import check_file
from mamba_speech.audio.resampling import resample


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
        If the file is missing, unreadable, empty, does not fit into memory, or holds samples that
        :func:`check_samples` refuses.
    """
    check_file(path)
    try:
        part = {} if stop is None else {"num_frames": stop - start}
        # as bytes: a name need not be text
        waveform, rate = audio_io.load(os.fsencode(path), frame_offset=start, **part)
    except Exception as error:
        # libsndfile's errors have no common type
        raise AudioError(recording_fault(path, unreadable(path, error))) from error
    if waveform.shape[-1] == 0:
        raise AudioError(f"{path}: holds no samples")
    check_samples(waveform, path)
    waveform = waveform.mean(0) if waveform.dim() == 2 else waveform
    try:
        return resample(waveform, rate, sample_rate)
    except (MemoryError, RuntimeError, ValueError) as error:
        raise AudioError(recording_fault(path, error)) from error

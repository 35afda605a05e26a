"""What gives a file's samples: libsndfile, of the file as it is or with its header put right, or a decoder of media."""

import os

import soundfile

from mamba_speech.audio.headers import PatchedFile
from mamba_speech.audio.mp3 import CountedFile

# bytes from which a WAV file may have more samples than its header can tell
LARGE = 1 << 31


class Sound(soundfile.SoundFile):
    """A sound file that does not seek to where it is after each read, as it cannot at every file's end."""

    def seekable(self):
        return False


def open_source(path, header):
    """Open a file; where its header is wrong about its length, as if it were right.

    Arguments
    ---------
    path : str or Path
    header : callable
        Gives the file's :class:`mamba_speech.audio.headers.Header`, or None; called where it is needed.

    Returns
    -------
    source : Sound or mamba_speech.audio.media.MediaFile
    beneath : PatchedFile, CountedFile or None
        A file to be closed after it.

    Raises
    ------
    soundfile.SoundFileError, MemoryError, AudioError
        If nothing can be read.
    """
    error, beneath = None, None
    # libsndfile takes every name that ends in .raw for samples without a header
    raw = os.fspath(path).lower().endswith(".raw")
    try:
        source, beneath = _patched(path, {}) if raw else (Sound(os.fsencode(path)), None)
        if source.frames > 0:
            return _complete(path, source, beneath, header)
    except (soundfile.SoundFileError, MemoryError) as fault:
        error = fault
    if header() is not None and header().patches:
        try:
            return _patched(path, header().patches)
        except soundfile.SoundFileError as fault:
            error = fault
    if error is None:
        return source, beneath
    # rarely needed
    from mamba_speech.audio import media

    if isinstance(error, soundfile.SoundFileError) and media.media_format(path):
        return media.open_media(path), None
    raise error


def _patched(path, patches, first=0):
    beneath = PatchedFile(os.fsencode(path), patches, first)
    try:
        return Sound(beneath), beneath
    except BaseException:
        beneath.close()
        raise


def _complete(path, source, beneath, header):
    """The source, or another that reads the whole file where libsndfile reads its beginning only."""
    if source.format == "OGG" and header() and header().chained:
        from mamba_speech.audio import media

        if media.has_decoder():
            source.close()
            return media.open_media(path), None
    large = source.format in ("WAV", "WAVEX") and os.path.getsize(path) >= LARGE
    if large and header() and header().promised is None and header().patches:
        source.close()
        return _patched(path, header().patches)
    if source.format == "FLAC" and header() and header().first:
        # libsndfile cannot go to a place behind a tag
        source.close()
        return _patched(path, {}, header().first)
    if source.subtype.startswith("MPEG") and header() and header().guessed:
        counted = CountedFile(os.fsencode(path), header().first)
        if counted.frames:
            source.close()
            return Sound(counted), counted
        counted.close()
    return source, beneath

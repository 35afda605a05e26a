"""Recordings in every format, rate and number of channels."""

import numpy as np
import soundfile

from tests.support.media import write_media
from tests.support.oddities.inputs import EXACT, KEPT, RATE, READ, SAME, TOO_SHORT, Odd, resampled

# Likeness of a kind of samples in dB; kinds of at least 16 bits keep all.
LIKENESS = {
    "PCM_U8": 15,
    "PCM_S8": 15,
    "ULAW": 25,
    "ALAW": 25,
    "IMA_ADPCM": 15,
    "MS_ADPCM": 15,
    "GSM610": 5,
    "G721_32": 15,
    "G723_24": 8,
    "G723_40": 20,
    "NMS_ADPCM_16": 3,
    "NMS_ADPCM_24": 8,
    "NMS_ADPCM_32": 15,
    "VORBIS": 8,
    "OPUS": 5,
    "MPEG_LAYER_III": 10,
}
# format: ending, and the kinds of samples that the library writes in it
SOUND_FILES = {
    "WAV": (
        "wav",
        """PCM_16 PCM_24 PCM_32 PCM_U8 FLOAT DOUBLE ALAW ULAW IMA_ADPCM MS_ADPCM GSM610 G721_32
        NMS_ADPCM_16 NMS_ADPCM_24 NMS_ADPCM_32""",
    ),
    "WAVEX": ("wav", "PCM_16 PCM_24 PCM_32 PCM_U8 FLOAT DOUBLE ALAW ULAW"),
    "RF64": ("rf64", "PCM_16 PCM_24 PCM_32 PCM_U8 FLOAT DOUBLE ALAW ULAW"),
    "W64": (
        "w64",
        "PCM_16 PCM_24 PCM_32 PCM_U8 FLOAT DOUBLE ALAW ULAW IMA_ADPCM MS_ADPCM GSM610",
    ),
    "AIFF": (
        "aiff",
        "PCM_16 PCM_24 PCM_32 PCM_S8 PCM_U8 FLOAT DOUBLE ALAW ULAW IMA_ADPCM GSM610 DWVW_16 DWVW_24",
    ),
    "AU": (
        "au",
        "PCM_16 PCM_24 PCM_32 PCM_S8 FLOAT DOUBLE ALAW ULAW G721_32 G723_24 G723_40",
    ),
    "CAF": (
        "caf",
        "PCM_16 PCM_24 PCM_32 PCM_S8 FLOAT DOUBLE ALAW ULAW ALAC_16 ALAC_20 ALAC_24 ALAC_32",
    ),
    "FLAC": ("flac", "PCM_16 PCM_24 PCM_S8"),
    "OGG": ("ogg", "VORBIS OPUS"),
    "MP3": ("mp3", "MPEG_LAYER_III"),
    "NIST": ("sph", "PCM_16 PCM_24 PCM_32 PCM_S8 ALAW ULAW"),
    "AVR": ("avr", "PCM_16 PCM_S8 PCM_U8"),
    "HTK": ("htk", "PCM_16"),
    "SVX": ("svx", "PCM_16 PCM_S8"),
    "MAT4": ("mat", "PCM_16 PCM_32 FLOAT DOUBLE"),
    "MAT5": ("mat", "PCM_16 PCM_32 PCM_U8 FLOAT DOUBLE"),
    "MPC2K": ("mpc", "PCM_16"),
    "PAF": ("paf", "PCM_16 PCM_24 PCM_S8"),
    "PVF": ("pvf", "PCM_16 PCM_32 PCM_S8"),
    "SDS": ("sds", "PCM_16 PCM_24 PCM_S8"),
    "IRCAM": ("sf", "PCM_16 PCM_32 FLOAT ALAW ULAW"),
    "VOC": ("voc", "PCM_16 PCM_U8 ALAW ULAW"),
    "XI": ("xi", "DPCM_8 DPCM_16"),
}
# formats that keep the sample rate roughly, or not at all
RATE_LOST = ("VOC", "XI")
# name: ending, encoder, rate and likeness
MEDIA = {
    "AAC in MP4, as phones record": ("m4a", "aac", RATE, 10),
    "AAC alone": ("aac", "aac", RATE, None),
    "the sound of an MP4 video": ("mp4", "aac", 48000, 10),
    "Opus in WebM, as browsers record": ("webm", "libopus", 48000, 5),
    "FLAC in Matroska": ("mkv", "flac", RATE, 60),
    "MP3 in WAV": ("wav", "libmp3lame", RATE, 10),
    "Windows Media": ("wma", "wmav2", RATE, 5),
    "AC-3": ("ac3", "ac3", 48000, 5),
    "MPEG layer II": ("mp2", "mp2", RATE, 10),
    "QuickTime": ("mov", "aac", RATE, 10),
    "Apple Lossless in MP4": ("m4a", "alac", RATE, 60),
    "AMR, as old phones record": ("amr", "libopencore_amrnb", 8000, None),
    "Opus named .opus": ("opus", "libopus", 48000, 5),
}
# rates that are tried, and likeness of the speech at each
RATES = {
    1: None,
    10: None,
    100: None,
    999: None,
    4000: None,
    4001: None,
    8000: None,
    11025: None,
    12000: None,
    15999: 30,
    16001: 30,
    22050: 40,
    22255: 40,
    24000: 40,
    32000: 40,
    37800: 40,
    44056: 40,
    44100: 40,
    48000: 40,
    88200: 40,
    96000: 40,
    176400: 40,
    192000: 40,
    352800: 40,
    384000: 40,
    705600: 40,
    767999: 40,
    768000: 40,
}


def write_as(form, subtype, **options):
    """A function that writes the plain recording in a format of libsndfile."""

    def write(path, samples):
        soundfile.write(path, samples, RATE, subtype, format=form, **options)

    return write


def write_medium(codec, rate):
    """A function that writes the plain recording with an encoder of FFmpeg."""

    def write(path, samples):
        write_media(path, resampled(samples, rate), rate, codec)

    return write


def at_rate(rate):
    """A function that writes the plain recording at a rate."""

    def write(path, samples):
        # a rate so low keeps nothing of speech
        spoken = samples[:3] if rate < 100 else resampled(samples, rate)
        soundfile.write(path, spoken, rate, "FLOAT")

    return write


def in_channels(*gains):
    """A function that writes the plain recording times a gain in each channel."""

    def write(path, samples):
        soundfile.write(path, np.outer(samples, gains), RATE, "PCM_16")

    return write


def with_noise(path, samples):
    """Two channels that have little in common, each as loud as the other."""
    other = np.std(samples) * np.random.default_rng(0).standard_normal(len(samples))
    soundfile.write(path, np.stack([samples, other.clip(-1, 1)], 1), RATE, "FLOAT")


def formats():
    """Every format of libsndfile with every kind of samples."""
    for form, (ending, subtypes) in SOUND_FILES.items():
        for subtype in subtypes.split():
            likeness = LIKENESS.get(subtype, EXACT)
            if form in RATE_LOST:
                likeness = None
            yield Odd(
                f"{form} files",
                f"{form} {subtype}",
                f"{form}_{subtype}.{ending}",
                write_as(form, subtype),
                SAME if likeness == EXACT else READ,
                others={"embed": TOO_SHORT} if form == "XI" else {},
                likeness=likeness,
            )
    for mode in ("CONSTANT", "VARIABLE"):
        write = write_as("MP3", "MPEG_LAYER_III", bitrate_mode=mode)
        name, file = f"MP3 of {mode.lower()} bit rate", f"{mode.lower()}.mp3"
        yield Odd("MP3 files", name, file, write, READ, likeness=10)
    yield Odd("WVE files", "WVE ALAW", "psion.wve", write_wve, READ, likeness=None)


def write_wve(path, samples):
    soundfile.write(path, resampled(samples, 8000), 8000, "ALAW", format="WVE")


def media():
    """What FFmpeg decodes and libsndfile does not."""
    for number, (name, (ending, codec, rate, likeness)) in enumerate(MEDIA.items()):
        file, write = f"{number}.{ending}", write_medium(codec, rate)
        yield Odd("Media files", name, file, write, READ, likeness=likeness)


def rates():
    """One recording at many rates."""
    for rate, likeness in RATES.items():
        name, write = f"{rate:,} Hz", at_rate(rate)
        others = {"embed": TOO_SHORT} if rate in (10, 100) else {}
        yield Odd("Sample rates", name, f"{rate}.wav", write, READ, KEPT, others, likeness)


def channels():
    """One recording in several channels."""
    for count in range(2, 9):
        name, write = f"{count} equal channels", in_channels(*[1] * count)
        yield Odd("Channels", name, f"{count}.wav", write)
    opposite, silent = f"{SAME}, warns: opposite_channels", f"{SAME}, warns: silent_channel"
    for name, gains, outcome in (
        ("stereo with the right side inverted", (1, -1), opposite),
        ("stereo with the left side inverted and half as loud", (-0.5, 1), opposite),
        ("stereo with the right side silent", (1, 0), silent),
        ("stereo with the left side silent", (0, 1), silent),
        ("four channels, one of them silent", (0, 1, 1, 1), silent),
        ("eight channels, one of them not silent", (0, 0, 0, 0, 0, 1, 0, 0), silent),
    ):
        file = f"{name.replace(' ', '_').replace(',', '')}.wav"
        yield Odd("Channels", name, file, in_channels(*gains), outcome, KEPT)
    yield Odd("Channels", "two voices, one a side", "sides.wav", with_noise, READ, likeness=None)


ODD = (*formats(), *media(), *rates(), *channels())

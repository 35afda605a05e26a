"""The eSpeak NG server process: reads utterances from stdin, writes their samples to stdout.

eSpeak NG keeps hidden state between utterances (random numbers, oscillator phases, echo buffers),
so that what it says depends on all that it said before. This process loads the library once and
forks for each utterance; a child always starts from the same freshly initialised state. It imports
nothing beyond the standard library and the loader, has one thread, and so forks cheaply and safely.

Each request is a line of JSON (see `synthesiser.Synthesiser.speak`). Each reply is one byte for its
kind (R ready, A audio, E error), four bytes for its length, and the payload.

Source: the C interface in eSpeak NG's `speak_lib.h` and `espeak_ng.h`, version 1.52.
"""

import ctypes
import json
import os
import signal
import struct
import sys
import tempfile

import espeakng_loader

AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_PHONEME_EVENTS = 0x0001
INITIALIZE_DONT_EXIT = 0x8000
CHARS_UTF8 = 1
POS_CHARACTER = 1
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4
# kinds of events, of which the first ends a list
LIST_TERMINATED, WORD, PHONEME = 0, 1, 7
# between the phonemes of a transcript; the character stands in the bits from 8 on
SEPARATOR = ord("_") << 8

# eSpeak NG copies the path of its data into a fixed buffer of 160 characters.
LONGEST_DATA_PATH = 120


class EventId(ctypes.Union):
    """What an event of `espeak_EVENT` is of: a number, or the name of a phoneme."""

    _fields_ = [
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    ]


class Event(ctypes.Structure):
    """The struct `espeak_EVENT`; `text_position` counts characters from 1."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", EventId),
    ]


SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event)
)


class VoiceRecord(ctypes.Structure):
    """The leading fields of `espeak_VOICE`."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
    ]


def load(data_path, phoneme_events=False):
    """Load and initialise the library.

    Arguments
    ---------
    data_path : str
        The folder `espeak-ng-data`.
    phoneme_events : bool
        Whether events of phonemes are told.

    Returns
    -------
    library : ctypes.CDLL
    info : dict
        `sample_rate` in Hz and `version`.
    """
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Info.restype = ctypes.c_char_p
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_GetCurrentVoice.restype = ctypes.POINTER(VoiceRecord)
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    options = INITIALIZE_DONT_EXIT | (INITIALIZE_PHONEME_EVENTS if phoneme_events else 0)
    sample_rate = library.espeak_Initialize(
        AUDIO_OUTPUT_SYNCHRONOUS, 0, data_path.encode(), options
    )
    if sample_rate <= 0:
        raise RuntimeError(f"eSpeak NG could not be initialised with the data in {data_path}")
    version = library.espeak_Info(None).decode().split()[0]
    return library, {"sample_rate": sample_rate, "version": version}


def select_voice(library, name):
    """Choose a voice such as `en-us+f3`, and make sure that the engine really took it.

    The engine reports an unknown language by its return code, but an unknown variant not at all: it
    then speaks with the plain voice. The identifier of the current voice tells.
    """
    if library.espeak_SetVoiceByName(name.encode()) != 0:
        raise ValueError(f"eSpeak NG has no voice named {name!r}")
    variant = name.partition("+")[2]
    identifier = library.espeak_GetCurrentVoice().contents.identifier.decode()
    if identifier.partition("+")[2] != variant:
        raise ValueError(f"eSpeak NG has no variant {variant!r} (asked for the voice {name!r})")


def synthesise(library, request):
    """Speak one request; return its samples as bytes of little-endian 16-bit integers.

    With `events` in the request the bytes are the length of a JSON text in four bytes, that text, and the samples. The
    text is a list of (kind, sample, place in the text, name of the phoneme), of words and phonemes.
    """
    pieces, found = [], []

    @SynthCallback
    def collect(samples, count, events):
        index = 0
        while events and events[index].type != LIST_TERMINATED:
            one = events[index]
            if one.type in (WORD, PHONEME):
                name = one.id.string.decode("utf-8", "replace") if one.type == PHONEME else ""
                found.append((one.type, one.sample, one.text_position, name))
            index += 1
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_SetSynthCallback(collect)
    library.espeak_ng_SetRandSeed(request["seed"])
    select_voice(library, request["voice"])
    for parameter, key in ((RATE, "rate"), (VOLUME, "volume"), (PITCH, "pitch"), (RANGE, "range")):
        if library.espeak_SetParameter(parameter, request[key], 0) != 0:
            raise ValueError(f"eSpeak NG refuses {key} = {request[key]}")
    text = request["text"].encode() + b"\0"
    status = library.espeak_Synth(text, len(text), 0, POS_CHARACTER, 0, CHARS_UTF8, None, None)
    if status != 0 or library.espeak_Synchronize() != 0:
        raise RuntimeError(f"eSpeak NG could not speak {request['text']!r} (status {status})")
    if not pieces:
        raise RuntimeError(f"eSpeak NG was silent on {request['text']!r}")
    if not request.get("events"):
        return b"".join(pieces)
    told = json.dumps(found).encode()
    return b"".join([struct.pack("<I", len(told)), told, *pieces])


def transcribe(library, request):
    """The phonemes of each of the request's texts, with ``_`` between them: a list in JSON."""
    select_voice(library, request["voice"])
    found = []
    for text in request["phonemes"]:
        bytes_of_text = ctypes.c_char_p(text.encode())
        place = ctypes.c_void_p(ctypes.cast(bytes_of_text, ctypes.c_void_p).value)
        parts = []
        # a call transcribes one clause, and moves on
        while place.value:
            clause = library.espeak_TextToPhonemes(ctypes.byref(place), CHARS_UTF8, SEPARATOR)
            parts.append((clause or b"").decode())
        found.append("_".join(parts))
    return json.dumps(found).encode()


def answer_in_child(library, request):
    """Fork, speak the request in the child, or transcribe it, and return the framed reply."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        # Whatever happens, the child ends here and never runs the server's own clean-up.
        try:
            os.close(read_end)
            with os.fdopen(write_end, "wb") as pipe:
                try:
                    answer = transcribe if "phonemes" in request else synthesise
                    kind, payload = b"A", answer(library, request)
                except (ValueError, RuntimeError) as error:
                    kind, payload = b"E", str(error).encode()
                pipe.write(kind + struct.pack("<I", len(payload)) + payload)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        reply = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        message = f"eSpeak NG stopped with status {status} on {request}".encode()
        reply = b"E" + struct.pack("<I", len(message)) + message
    return reply


def serve(data_path, phoneme_events=False):
    """Answer requests until stdin ends."""
    # The library may print; only replies may reach the real stdout.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        library, info = load(data_path, phoneme_events)
        kind, payload = b"R", json.dumps(info).encode()
    except (OSError, RuntimeError) as error:
        kind, payload = b"E", str(error).encode()
    replies.write(kind + struct.pack("<I", len(payload)) + payload)
    replies.flush()
    if kind == b"E":
        return
    for line in sys.stdin.buffer:
        replies.write(answer_in_child(library, json.loads(line)))
        replies.flush()


def main():
    """Serve with the loader's data, by a short link to it where its path is too long."""
    # An interrupt from the keyboard is for the parent; the end of stdin ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    data_path, phoneme_events = espeakng_loader.get_data_path(), "events" in sys.argv[1:]
    if len(data_path) <= LONGEST_DATA_PATH:
        serve(data_path, phoneme_events)
        return
    with tempfile.TemporaryDirectory(prefix="espeak") as folder:
        short_path = os.path.join(folder, "espeak-ng-data")
        os.symlink(data_path, short_path)
        serve(short_path, phoneme_events)


if __name__ == "__main__":
    main()

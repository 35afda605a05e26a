"""Recordings of any format, rate and number of channels: finding, reading, resampling, and what is wrong with them.

Each name is imported when it is first asked for, so that a check of files does not wait for torch.
"""

import importlib

_HOMES = {
    "LOUDEST": "errors",
    "AudioError": "errors",
    "audio_fault": "errors",
    "check_samples": "errors",
    "lacks_memory": "errors",
    "recording_fault": "errors",
    "unreadable": "errors",
    "check_file": "finding",
    "find_audio": "finding",
    "find_named": "finding",
    "is_folder": "finding",
    "walk_files": "finding",
    "open_audio": "opening",
    "load_audio": "reading",
    "BlockResampler": "resampling",
    "resample": "resampling",
    "resample_array": "resampling",
    "AudioWarning": "warnings",
    "collected_warnings": "warnings",
    "count_kinds": "warnings",
    "give_warnings": "warnings",
}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    found = globals()[name] = getattr(home, name)
    return found


def __dir__():
    return sorted({*globals(), *_HOMES})

"""Using trained speech models, from Python and by the command `mamba-speech`.

>>> from mamba_speech import KeywordSpotter, Recognizer, Separator, SpeakerVerifier

Each class is imported when it is first asked for, so that no task loads another and help does not wait for torch.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

__version__ = "0.1.0"
__all__ = [
    "AudioError",
    "KeywordSpotter",
    "LiveRecognizer",
    "Recognizer",
    "Separator",
    "SpeakerVerifier",
    "StreamingRecognizer",
]

_HOMES = {
    "AudioError": "mamba_speech.audio",
    "KeywordSpotter": "mamba_speech.kws.spotter",
    "LiveRecognizer": "mamba_speech.asr.live",
    "Recognizer": "mamba_speech.asr.recognizer",
    "Separator": "mamba_speech.separation.separator",
    "SpeakerVerifier": "mamba_speech.speaker.verifier",
    "StreamingRecognizer": "mamba_speech.asr.streaming",
}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return found


def __dir__():
    return sorted({*globals(), *__all__})


def _refuse_foreign(name):
    """Raise ImportError if a package that lies beside this one is hidden by another of its name.

    The other package is found, and not imported.
    """
    ours = Path(__file__).resolve().parent.parent / name
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ImportError(f"{ours} is missing: install mamba-speech anew")
    # a folder without __init__.py has no origin
    found = Path(spec.origin).parent if spec.origin else Path(spec.submodule_search_locations[0])
    if found.resolve() != ours:
        raise ImportError(
            f"another package named {name!r} ({spec.origin or found}) hides {ours}: remove it from PYTHONPATH, "
            "uninstall it, or run from another folder"
        )


def _runs_a_script_of_ours():
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    tree = Path(__file__).resolve().parent.parent
    folders = {tree / name for name in ("recipes", "examples", "benchmarks")}
    return script is not None and not folders.isdisjoint(Path(script).resolve().parents)


_refuse_foreign("modules")
# the script would fail in the other package, with an error that does not say why
if _runs_a_script_of_ours():
    _refuse_foreign("training")

"""Files of transcripts: one a recording and a format, each whole, none in another's place."""

import os
from pathlib import Path

from mamba_speech.asr.transcript_formats import FORMATS, TIMED
from mamba_speech.audio.outputs import plan_names
from mamba_speech.files import error_text, write_text
from mamba_speech.listed import plan_recordings
from mamba_speech.recordings import Recording

ALL = "all"


class TranscriptFiles:
    """Where the transcripts of the inputs of a command go.

    Arguments
    ---------
    inputs : list of str
        Files, folders and lists.
    folder : str or Path
        Made if it is not there.
    kind : str
        A key of :data:`mamba_speech.asr.transcript_formats.FORMATS`, or `all`.
    existing : str
        `refuse` files that are there, `replace` them, or `skip` the recordings that have them all.

    Attributes
    ----------
    recordings : list of mamba_speech.recordings.Recording
        Recordings to be transcribed.
    skipped : int
        Recordings that have their files already.

    Raises
    ------
    OSError
        If the folder is a file or cannot be made.
    ValueError
        If files that are there would be replaced without being told so, or inputs would be replaced.
    """

    def __init__(self, inputs, folder, kind=ALL, existing="refuse"):
        self.formats = tuple(FORMATS) if kind == ALL else (kind,)
        folder = Path(folder)
        plan = plan_recordings(
            inputs,
            lambda given: {one: folder / name for one, name in plan_names(given).items()},
            lambda name: folder / name,
        )
        paths = [one for one in inputs if not isinstance(one, Recording)]
        _check_inputs(paths, [self._paths(one) for one in plan.values()])
        there = {one for one, output in plan.items() if self._there(output, any)}
        if existing == "skip":
            there = {one for one in there if self._there(plan[one], all)}
        if existing == "refuse" and there:
            _refuse(folder, next(self._existing(plan[one]) for one in plan if one in there), there)
        skips = existing == "skip"
        self.recordings = [one for one in plan if not (skips and one in there)]
        self.skipped = len(plan) - len(self.recordings)
        self._replaces = existing != "refuse"
        # results come in the order of the recordings
        self._outputs = iter([(one, plan[one]) for one in self.recordings])
        _make_folder(folder)

    @property
    def needs_times(self):
        """Whether a format has times in it."""
        return any(one in TIMED for one in self.formats)

    def write(self, result, **details):
        """Write the files of the next recording's result.

        Arguments
        ---------
        result : mamba_speech.asr.transcript.Transcript
            Results come in the order of `recordings`, of which a command that is stopped leaves some out; one with an
            error leaves no file.
        **details
            Options of the formats: `word_times`, `confidence`.

        Returns
        -------
        str or None
            Why they could not be written.
        """
        output = next(path for one, path in self._outputs if one.place() == result.place())
        if result.error:
            return None
        try:
            taken = self._existing(output)
            if taken is not None and not self._replaces:
                return f"{result.path}: {taken} has come meanwhile; it was left as it is"
            output.parent.mkdir(parents=True, exist_ok=True)
            for name, path in zip(self.formats, self._paths(output), strict=True):
                write_text(path, FORMATS[name](result, **details))
        except (OSError, ValueError) as error:
            return f"{result.path}: its transcript could not be written: {error_text(error)}"
        return None

    def _paths(self, output):
        # not with_suffix(), which would take v1.2 for a name with an ending
        return [output.with_name(f"{output.name}.{one}") for one in self.formats]

    def _there(self, output, which):
        return which(os.path.lexists(path) for path in self._paths(output))

    def _existing(self, output):
        return next((path for path in self._paths(output) if os.path.lexists(path)), None)


def _check_inputs(inputs, outputs):
    """Refuse to replace what is read, whatever the user allows."""
    given = {os.path.realpath(one) for one in inputs}
    for paths in outputs:
        taken = next((one for one in paths if os.path.realpath(one) in given), None)
        if taken is not None:
            raise ValueError(
                f"{taken}: is an input and would be replaced: give another --output_folder"
            )


def _refuse(folder, first, there):
    results = (
        "the result of 1 recording" if len(there) == 1 else f"results of {len(there)} recordings"
    )
    raise ValueError(
        f"--output_folder {folder} holds {results} already, such as {first.name}: give --resume to go on with "
        "the others, --overwrite to replace them, or another folder"
    )


def _make_folder(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OSError(f"--output_folder {folder}: is a file, not a folder: give another") from error
    except NotADirectoryError as error:
        raise OSError(f"--output_folder {folder}: lies below a file: give another") from error
    except OSError as error:
        raise OSError(f"--output_folder {error_text(error)}: give another") from error

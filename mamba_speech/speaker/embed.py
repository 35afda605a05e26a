"""The command `mamba-speech embed`: one file of numbers for each recording, which says who speaks."""

import json
import os
from pathlib import Path

import numpy as np

from mamba_speech.arguments import add_device, add_inputs, add_json, add_run_folder, given_path
from mamba_speech.audio import AudioError, give_warnings
from mamba_speech.audio.outputs import plan_names
from mamba_speech.files import read_json, whole_file, write_json
from mamba_speech.listed import plan_recordings
from mamba_speech.printing import each_file, print_records, shown_place
from mamba_speech.speaker.database import locked
from mamba_speech.speaker.verifier import SpeakerVerifier

# record of the weights that made a folder's embeddings, and list of the recordings
RECORD = "embeddings.json"
RECORDINGS = "recordings.jsonl"


def add_arguments(parser):
    """Give the parser of `mamba-speech embed` its arguments."""
    add_run_folder(parser)
    add_inputs(parser)
    parser.add_argument(
        "--output_folder", type=given_path, required=True, help="folder of the embeddings"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="embeddings that are there are not made again; it always holds, so the option changes nothing",
    )
    add_device(parser)
    add_json(parser)
    parser.epilog = (
        "Writes NAME.npy for each input: a vector of 32-bit floats, not normalised. Of a folder, its tree is kept; of "
        "several inputs, the tree below the folder that holds them all. Where a.wav and a.flac lie side by side, their "
        "endings stay in NAME. An embedding that is there is not made again, if it was made by the same weights of the "
        "same recording, unchanged since. An embedding of another recording is never replaced: more of the folders of "
        "the new one then stand before its name. Prints a line an input: the recording and its embedding, with a tab "
        "between. Files that cannot be embedded are listed on stderr at the end; then the exit status is 1."
    )


def run_command(arguments):
    """Run `mamba-speech embed`; returns the exit status, 0 if every file was good."""
    folder = Path(arguments.output_folder)
    plan = plan_recordings(
        arguments.inputs,
        lambda inputs: plan_outputs(inputs, folder),
        lambda name: folder / f"{name}.npy",
    )
    verifier = SpeakerVerifier.load(arguments.run_folder, arguments.device)
    claim_folder(folder, verifier.weights_hash, arguments.run_folder)
    made = MadeEmbeddings(folder)

    def embed(recording):
        recording.check()
        output = made.place(plan[recording], recording)
        if recording.told and output.exists():
            raise AudioError(
                f"standard input: {output} is there already; move it, or give another --output_folder"
            )
        new = not made.holds(output, recording)
        if new:
            found = verifier.embed(recording)
            give_warnings(found.warnings)
            output.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(output, "wb") as file:
                np.save(file, found.vector)
            made.add(output, recording)
        yield {"embedding": str(output), "new": new}

    records = each_file(plan, embed)
    return print_records(
        records,
        lambda one: (shown_place(one), one["embedding"]),
        "embedded",
        arguments.json,
        len(plan),
    )


class MadeEmbeddings:
    """Which recording each embedding of a folder is of, so that two recordings of one name stay two.

    They stand in a file, a line each, which is added to as embeddings are made.

    Arguments
    ---------
    folder : Path
        Of the embeddings.
    """

    def __init__(self, folder):
        self.folder, self._file, self._made = folder, folder / RECORDINGS, {}
        text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        for line in text.splitlines():
            try:
                name, *made = json.loads(line)
            except (TypeError, ValueError):
                # a killed run leaves half a line at most: its embedding is made again
                continue
            self._made[name] = made

    def place(self, output, recording):
        """The file of a recording's embedding.

        Arguments
        ---------
        output : Path
            Taken if it is not the embedding of another recording, which is still there. Else more of the recording's
            own folders stand before its name.
        recording : mamba_speech.recordings.Recording

        Raises
        ------
        AudioError
            If every such name is taken.
        """
        folders = Path(os.path.abspath(recording.path)).parent.parts[1:]
        kept = len(output.relative_to(self.folder).parts)
        names = (Path(*folders[-more:], output.name) for more in range(kept, len(folders) + 1))
        for place in (output, *(self.folder / name for name in names)):
            if self._owner(place, recording) is None:
                return place
        raise AudioError(
            f"{recording.path}: its embedding would replace the embedding of {self._owner(output, recording)}; "
            "embed it into another folder"
        )

    def _owner(self, output, recording):
        """Another recording that an embedding is of; None if there is none."""
        made = self._made.get(os.path.relpath(output, self.folder))
        path, *_, part = self._state(recording)
        if made is None or not output.exists() or (made[0], made[3:]) == (path, part):
            return None
        return made[0] if os.path.exists(made[0]) else None

    def holds(self, output, recording):
        """Whether an embedding is there, and of a recording as it now is."""
        made = self._made.get(os.path.relpath(output, self.folder))
        return made is not None and output.exists() and made == self._flat_state(recording)

    def add(self, output, recording):
        """Tell that an embedding was made of a recording."""
        name = os.path.relpath(output, self.folder)
        self._made[name] = self._flat_state(recording)
        with open(self._file, "a", encoding="utf-8") as file:
            file.write("\n" * (file.tell() > 0) + json.dumps([name, *self._made[name]]))

    def _flat_state(self, recording):
        *file, part = self._state(recording)
        return [*file, *part]

    @staticmethod
    def _state(recording):
        status, row = os.stat(recording.path), recording.row
        part = [row.start, row.stop] if row is not None and row.is_segment else []
        return os.path.realpath(recording.path), status.st_size, status.st_mtime_ns, part


def plan_outputs(inputs, output_folder):
    """Which files are embedded, and the files of their embeddings.

    Arguments
    ---------
    inputs : list of str
        Files and folders.
    output_folder : Path

    Returns
    -------
    plan : dict of Path to Path
        From recordings to embeddings; see :func:`mamba_speech.audio.outputs.plan_names`.

    Example
    -------
    >>> plan = plan_outputs(["a/x.wav", "b/x.wav"], Path("out"))
    >>> [path.as_posix() for path in plan.values()]
    ['out/a/x.npy', 'out/b/x.npy']
    """
    plan = plan_names(inputs)
    return {path: output_folder / f"{name}.npy" for path, name in plan.items()}


def claim_folder(folder, weights, run):
    """Make a folder for the embeddings of one model; refuse one that holds another model's.

    Arguments
    ---------
    folder : Path
    weights : str
        Hash of the model.
    run : str or Path
        Output folder of the model's training, noted for readers.

    Raises
    ------
    ValueError
        If it holds embeddings of another model, or of nobody knows which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RECORD
    with locked(record):
        if not record.exists():
            found = next(folder.rglob("*.npy"), None)
            if found:
                raise ValueError(
                    f"{folder}: holds {found.relative_to(folder)}, and no {RECORD} says which model made it; give "
                    "another --output_folder"
                )
            # a folder's name may hold bytes that are no text
            name = str(run).encode("utf-8", "replace").decode()
            write_json(record, {"weights": weights, "run": name})
            return
        content = read_json(record)
        made_by = content.get("weights") if isinstance(content, dict) else None
        if made_by != weights:
            raise ValueError(
                f"{folder}: holds embeddings of another model ({record} names weights {str(made_by)[:8]}, this run has "
                f"{weights[:8]}); give another --output_folder"
            )

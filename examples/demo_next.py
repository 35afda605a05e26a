"""The end of the demo: where everything is, and commands that work as they stand, to go on from there."""

import shutil
import sys
from pathlib import Path

from demo_console import headline, shown, typed
from demo_plan import RECIPE, SCRIPT, YAML

from mamba_speech.files import read_csv, write_csv

# utterances of the lists that show how one's own speech is given
EXAMPLES = {"train": 200, "valid": 10, "test": 10}


def program(name):
    """How to call a program of this environment, which the shell may not have activated.

    Arguments
    ---------
    name : str
        `mamba-speech` or `python`.

    Returns
    -------
    list of str
    """
    if name == "python":
        return [sys.executable]
    script = Path(sys.executable).with_name(name)
    return [str(script)] if script.exists() else [sys.executable, "-m", "mamba_speech.cli"]


def transcribing(run, recording):
    """The command that transcribes with a run."""
    return [*program("mamba-speech"), "transcribe", shown(run), shown(recording)]


def write_examples(folder, run, test_file):
    """A folder for one's own recordings, and lists of the kind that one's own speech is given by.

    Arguments
    ---------
    folder : Path
        Folder of the demo.
    run : Path
        Its run, whose manifests tell of the corpus.
    test_file : Path
        Recording that is put into the folder of recordings.

    Returns
    -------
    recordings : Path
    lists : dict of str: Path
        `train`, `valid` and `test`.
    """
    recordings = folder / "recordings"
    recordings.mkdir(exist_ok=True)
    example = recordings / f"example{test_file.suffix}"
    if not example.exists():
        shutil.copyfile(test_file, example)
    sources = {"train": "train.csv", "valid": "dev-spoken.csv", "test": "test-spoken.csv"}
    lists = {}
    for name, source in sources.items():
        lists[name] = folder / "lists" / f"{name}.csv"
        lists[name].parent.mkdir(exist_ok=True)
        path = run / source
        if lists[name].exists() or not path.is_file():
            # they may have been edited since
            continue
        rows = [row for _, row in read_csv(path)[1]][: EXAMPLES[name]]
        own = [{"path": row["wav"], "text": row["wrd"]} for row in rows]
        write_csv(lists[name], ["path", "text"], own)
    return recordings, {name: path for name, path in lists.items() if path.exists()}


def own_data(run, lists, output_folder):
    """The command that goes on training with the speech of lists."""
    return [
        *(*program("python"), shown(SCRIPT), shown(YAML), "--pretrained_model", shown(run)),
        *("--train_manifest", shown(lists["train"]), "--valid_manifest", shown(lists["valid"])),
        *("--test_manifests", f"[{shown(lists['test'])}]", "--number_of_epochs", "1"),
        *("--output_folder", shown(output_folder)),
    ]


def say_where_it_is(folder, run, corpus):
    """List what the demo has left."""
    headline("Where it is")
    places = (
        (folder / "report.json", "all figures above"),
        (folder / "learning_curve.png", "losses and WER by epoch"),
        (folder / "alignment.png", "one utterance, and what was heard when"),
        (run, "the run: checkpoints, log.txt, train_log.txt, wer_test-spoken.txt"),
        (corpus, "the corpus, in LibriSpeech's layout"),
    )
    width = max(len(shown(path)) for path, _ in places)
    for path, what in places:
        print(f"  {shown(path):<{width}}  {what}")


def say_what_next(folder, run, test_file):
    """Print the next commands; each works when it is pasted where the demo was started."""
    recordings, lists = write_examples(folder, run, test_file)
    headline("What next")
    print(
        f"Your own recordings: put them into {shown(recordings)}, where an example lies. A model that has\n"
        "heard only a synthesiser and a few hundred words does not do well on people.\n"
        f"  {typed(transcribing(run, recordings))}"
    )
    if len(lists) == len(EXAMPLES):
        print(
            f"Your own data: {shown(lists['train'].parent)} holds lists with the columns path and text, for now of\n"
            "the corpus. Put your recordings into them, and go on from the demo's model.\n"
            f"  {typed(own_data(run, lists, folder.parent / 'mine'))}"
        )
    published = shown(RECIPE / "hparams" / "S2S" / "conmambamamba_large.yaml")
    print(
        "Is it listening? The same on shuffled transcripts:\n"
        "  make demo DEMO_ARGS=--shuffle_transcripts\n"
        f"The published sizes, for LibriSpeech and GPUs: {published}"
    )

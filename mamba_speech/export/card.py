"""The model card of an exported folder, README.md: what the model is, how to load it, and how good it was."""

import yaml

from mamba_speech import __version__
from mamba_speech.commands.info import training_command
from mamba_speech.run_task import KEYWORDS, RECOGNITION, SEPARATION, SPEAKER, STREAMING

# of each task: its name on the Hugging Face Hub; its public class; a call of that; the command
_USES = {
    RECOGNITION: (
        "automatic-speech-recognition",
        "Recognizer",
        'print(model.transcribe("speech.wav").text)',
        "transcribe {folder} speech.wav",
    ),
    STREAMING: (
        "automatic-speech-recognition",
        "LiveRecognizer",
        "context = model.make_context()\nfor update in model.listen(samples, context):\n    print(update.final_text)",
        "listen {folder}",
    ),
    SEPARATION: (
        "audio-to-audio",
        "Separator",
        'model.separate("meeting.wav").save("separated")',
        "separate {folder} meeting.wav --output_folder separated",
    ),
    KEYWORDS: (
        "audio-classification",
        "KeywordSpotter",
        'print(model.classify("word.wav").label)',
        "spot {folder} recording.wav",
    ),
    SPEAKER: (
        "audio-classification",
        "SpeakerVerifier",
        'print(model.verify("first.wav", "second.wav").score)',
        "verify {folder} first.wav second.wav",
    ),
}
# of each of SpeechBrain's classes: its module and a call
_INTERFACES = {
    "EncoderASR": ("ASR", 'print(model.transcribe_file("speech.wav"))'),
    "EncoderDecoderASR": ("ASR", 'print(model.transcribe_file("speech.wav"))'),
    "StreamingASR": (
        "ASR",
        (
            "config = DynChunkTrainConfig(8)\n"
            'print(model.transcribe_file("speech.wav", config, use_torchaudio_streaming=False))'
        ),
    ),
    "SepformerSeparation": ("separation", 'sources = model.separate_file("meeting.wav")'),
    "EncoderClassifier": ("classifiers", 'print(model.classify_file("word.wav")[-1])'),
    "SpeakerRecognition": (
        "speaker",
        (
            'score, same = model.verify_files("first.wav", "second.wav")\n'
            "print(float(score) > model.hparams.threshold)"
        ),
    ),
}
_WHAT = {
    RECOGNITION: "Speech recognition",
    STREAMING: "Speech recognition along a stream",
    SEPARATION: "Separation of the speakers of a recording",
    KEYWORDS: "Keyword spotting",
    SPEAKER: "Speaker verification",
}
_LICENCE = (
    "The code is under the MIT licence. The licence of the training data decides on the use of these weights; whoever "
    "publishes this folder names it here."
)


def write_card(task, interface, limits, record, synthetic, parameters):
    """The text of a model card.

    Arguments
    ---------
    task : str
        See :func:`mamba_speech.run_task.task_of`.
    interface : str
        SpeechBrain's class that loads the folder.
    limits : list of str
        Sentences on that class.
    record : dict
        See :func:`mamba_speech.export.record.read_record`.
    synthetic : bool or None
        Whether the model has heard only synthetic speech; None where nothing tells.
    parameters : int
        Numbers that training learns.
    """
    training = record.get("training") or {}
    parts = [
        _front_matter(task),
        f"# {_WHAT[task]}\n\nA model of {parameters:,} parameters, exported by mamba-speech {__version__}.",
        "## Use\n\n" + _uses(task, interface),
        "## Data\n\n" + "\n".join(_data(record, training, synthetic)),
        "## Figures\n\n" + _figures(record),
        "## Training\n\n" + _training(record, training),
        "## Limits\n\n" + "\n".join(f"- {one}" for one in _limits(limits, synthetic)),
        "## Licence\n\n" + _LICENCE,
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(task):
    """What the Hugging Face Hub reads."""
    head = {
        "library_name": "speechbrain",
        "pipeline_tag": _USES[task][0],
        "tags": ["mamba-speech", "speechbrain", "mamba", task],
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---"


def _uses(task, interface):
    _, name, call, command = _USES[task]
    module, their_call = _INTERFACES[interface]
    extra = (
        "from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig\n"
        if interface == "StreamingASR"
        else ""
    )
    return f"""\
Install mamba-speech, then take one of three ways. `FOLDER` is this folder.

On the command line:

```
mamba-speech {command.format(folder="FOLDER")}
```

In Python:

```python
from mamba_speech import {name}

model = {name}.load("FOLDER")
{call}
```

With SpeechBrain, which needs mamba-speech installed too, and which runs whatever the folder's YAML says:

```python
from speechbrain.inference.{module} import {interface}
{extra}
model = {interface}.from_hparams(source="FOLDER", savedir="loaded")
{their_call}
```"""


def _data(record, training, synthetic):
    heard = {
        True: "The model has heard only synthetic speech: expect many more errors with the voices of people.",
        False: "The model has heard recordings of people.",
        None: "The run did not record whether it heard people or a synthesiser.",
    }[synthetic]
    yield heard
    names = {}
    for session in training.get("sessions") or []:
        names |= {
            name: value
            for name, value in (session.get("overrides") or {}).items()
            if name.endswith(("_folder", "_manifest", "_manifests")) and name != "output_folder"
        }
    if names:
        yield ""
        yield from (f"- `{name}`: `{value}`" for name, value in names.items())


def _figures(record):
    tests = record.get("tests") or {}
    rows = [
        f"| {test} | {name} | {value:g} |"
        for test, one in tests.items()
        for name, value in (one.get("figures") or {}).items()
        if isinstance(value, int | float)
    ]
    if not rows:
        return "The run recorded no test."
    head = ["| test set | figure | value |", "| --- | --- | --- |"]
    return "Of the run's own tests, as `results.json` records them.\n\n" + "\n".join(head + rows)


def _training(record, training):
    sessions = training.get("sessions") or []
    recipe = record.get("recipe") or {}
    if not sessions or not recipe.get("script"):
        return "The run did not record its command."
    first = sessions[0]
    command = training_command(recipe, first)
    told = [f"In `{recipe.get('folder')}`:", f"```\n{command}\n```"]
    facts = {
        "epochs": training.get("epochs"),
        "seconds of training": training.get("seconds"),
        "device": first.get("device"),
        "commit of mamba-speech": (first.get("commit") or {}).get("sha"),
        "fidelity": first.get("fidelity"),
    }
    told.append(
        "\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None)
    )
    return "\n\n".join(one for one in told if one)


def _limits(limits, synthetic):
    yield "The figures hold for the run's own test sets. Test the model on speech like yours before you rely on it."
    if synthetic:
        yield "Only synthetic voices were heard in training."
    yield from limits

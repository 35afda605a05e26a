"""A spoken corpus of a minute, and the recipes' scripts run as a user runs them."""

import json
from functools import partial

import numpy as np
import pytest
import soundfile

from data_prep.spoken import generate_librispeech
from tests.support import recipes
from tests.support.recognition import DEBUG, RECIPE, SPLITS, call_script, run_script

# options under which more epochs do not change what the first one does
RESUMABLE = {"total_steps": 20, "max_batch_length_train": 15, "dropout": 0.1}


@pytest.fixture(scope="session")
def spoken(tmp_path_factory):
    """A corpus in LibriSpeech's layout: 40 s of training speech, 10 s each to validate and test."""
    folder = tmp_path_factory.mktemp("spoken")
    generate_librispeech(
        folder / "corpus", hours=40 / 3600, dev_minutes=1 / 6, test_minutes=1 / 6, jobs=2
    )
    return folder / "corpus"


@pytest.fixture(scope="session")
def own_speech(tmp_path_factory):
    """Twelve recordings in a script of its own, at several rates, formats and numbers of channels."""
    folder = tmp_path_factory.mktemp("own_speech")
    rng = np.random.default_rng(0)
    kinds = [("wav", 8000, 1), ("flac", 44100, 2), ("ogg", 16000, 1)]
    for index in range(12):
        suffix, rate, channels = kinds[index % 3]
        sound = 0.1 * rng.standard_normal((int(1.5 * rate), channels))
        soundfile.write(folder / f"{index}.{suffix}", sound, rate)
    paths = sorted(path.name for path in folder.iterdir())
    texts = ["доброе утро", "добрый вечер", "γειά σου", "早上 好"]
    rows = [(name, texts[i % 4]) for i, name in enumerate(paths)]
    (folder / "train.csv").write_text(
        "path,text\n" + "".join(f"{p},{t}\n" for p, t in rows), encoding="utf-8"
    )
    with open(folder / "valid.jsonl", "w", encoding="utf-8") as file:
        for path, text in rows[:4]:
            print(json.dumps({"audio_filepath": path, "text": text, "speaker": "a"}), file=file)
    return folder


@pytest.fixture(scope="session")
def train_ctc():
    """Run train_CTC.py; see :func:`run_script`."""
    return partial(run_script, "CTC")


@pytest.fixture(scope="session")
def train_s2s():
    """Run train_S2S.py; see :func:`run_script`."""
    return partial(run_script, "S2S")


@pytest.fixture
def import_recipe(monkeypatch):
    """Import a script as a module, its folder being where Python looks first."""
    with recipes.scripts(monkeypatch, RECIPE) as load:
        yield load


@pytest.fixture(scope="session")
def call_main():
    """Run a script's main() in this process; see :func:`call_script`."""
    return call_script


@pytest.fixture(scope="session", params=DEBUG)
def debug_run(request, spoken, tmp_path_factory):
    """Kind, options and folder of the first epoch of a debug model; tests go on with copies of the folder."""
    kind = request.param
    folder = tmp_path_factory.mktemp(kind) / "run"
    options = SPLITS | RESUMABLE | {"data_folder": spoken}
    if kind == "S2S":
        options |= {"augment_warmup": 2, "test_beam_size": 1, "max_decode_ratio": 0.2}
    call_script(kind, DEBUG[kind], **options, output_folder=folder, number_of_epochs=1)
    return kind, options, folder

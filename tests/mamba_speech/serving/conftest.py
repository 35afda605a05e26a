"""A service with a small model of every task, and recordings to send."""

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.support import recognition
from tests.support.run_folders import write_task_runs
from tests.support.serving import RATE

pytest.importorskip("fastapi", reason="serving needs mamba-speech[serve]")


@pytest.fixture(scope="package")
def folders(tmp_path_factory):
    """Run folders by name; nothing may be written into them."""
    folder = tmp_path_factory.mktemp("served")
    runs = write_task_runs(folder)
    runs["live"] = recognition.write_run(
        folder / "live",
        "CTC/conmamba_streaming_debug.yaml",
        folder / "tokenizer.model",
        {"WER": 50.0},
    )
    return {name: str(runs[name]) for name in ("ctc", "live", "keywords", "speakers", "windows")}


@pytest.fixture(scope="package")
def make_client(folders):
    """A client of a service with other settings; used in a `with`, which starts and ends the service."""
    from mamba_speech.serving.app import create_app
    from mamba_speech.serving.settings import read_settings

    def make(**settings):
        given = {"models": folders, "device": "cpu", "decoders": 1} | settings
        return TestClient(create_app(read_settings(environment={}, **given)))

    return make


@pytest.fixture(scope="package")
def client(make_client):
    with make_client() as client:
        yield client


@pytest.fixture(scope="package")
def samples():
    """Two seconds of a sound that changes, (samples,)."""
    random = np.random.default_rng(0)
    time = np.arange(2 * RATE) / RATE
    pitch = 200 + 100 * np.sin(7 * time)
    sound = 0.2 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * (1 + np.sin(20 * time))
    return (sound + 0.01 * random.standard_normal(len(sound))).astype(np.float32)

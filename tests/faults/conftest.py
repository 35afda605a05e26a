"""Runs that a case may spoil: one of CTC and one of keyword spotting, each trained once, each case with a copy."""

import pytest

from data_prep.spoken import generate_librispeech
from tests.support.faults import KINDS, TrainedRun, run_of
from tests.support.keywords import write_corpus


@pytest.fixture(scope="session")
def corpora(tmp_path_factory):
    """A tiny corpus for each kind of run; tests must not alter them."""
    folder = tmp_path_factory.mktemp("corpora")
    generate_librispeech(
        folder / "CTC", hours=20 / 3600, dev_minutes=1 / 12, test_minutes=1 / 12, jobs=2
    )
    write_corpus(folder / "KWS")
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture(scope="session")
def trained_runs(corpora, tmp_path_factory):
    """A trained and tested run of each kind, made when first asked for; tests must not alter them."""
    made = {}

    def get(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind) / "run"
            run = TrainedRun(kind, folder, run_of(kind, corpora[kind]))
            run.start()
            made[kind] = run
        return made[kind]

    return get


@pytest.fixture
def copy_run(trained_runs, tmp_path):
    """Copy a run: ``copy_run("CTC")`` or ``copy_run("KWS", "other name")``; the case may do to it what it likes."""

    def copy(kind, name=None):
        return trained_runs(kind).copy(tmp_path / (name or kind))

    return copy

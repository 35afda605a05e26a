"""What a case may spoil: runs of CTC and keyword spotting, trained once and copied, and caches of compiled kernels."""

from pathlib import Path

import pytest

from data_prep.spoken import generate_librispeech
from tests.support.faults import KINDS, TrainedRun, run_of
from tests.support.kernel_builds import Builds, Place, assert_compiled
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


@pytest.fixture(scope="session")
def builds():
    """Fresh processes that look for the compiled kernels."""
    server = Builds()
    yield server
    server.close()


@pytest.fixture(scope="session")
def kernel_library(tmp_path_factory):
    """A whole library of the compiled kernels, as a file of its own."""
    from modules.ssm.cpu.build import library

    path = tmp_path_factory.mktemp("library") / "whole.so"
    path.write_bytes(Path(library()._name).read_bytes())
    return path


@pytest.fixture(scope="session")
def whole_kernels(tmp_path_factory, kernel_library, builds):
    """A place with kernels, which others copy."""
    place = Place(tmp_path_factory.mktemp("whole"), kernel_library, builds)
    assert_compiled(place.run())
    assert place.built() == 1
    return place


@pytest.fixture
def place(tmp_path, kernel_library, builds, whole_kernels):
    """A cache of compiled kernels that a case may spoil."""
    return Place(tmp_path, kernel_library, builds, whole_kernels)

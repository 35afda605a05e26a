"""What every test runs under: the threads, the seeds, and the folder of real speech.

Tests on real speech take the fixture `data`, or the marker `data(name, ...)`. They skip, with the
reason, where `SPEECH_DATA` is unset or names no folder; where the folder is there they must run,
so a skip counts as a failure.
"""

import gc
import logging
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


def pytest_configure(config):
    """Hold torch to two threads, or to one in each of several workers (pytest -n), and hear Ctrl-C."""
    # a shell lets its jobs in the background ignore Ctrl-C, and what they start as well
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    workers = config.getoption("numprocesses", default=None)
    # Here, and torch imported after it, because OpenMP reads its variables once, when it is loaded.
    threads = os.environ.setdefault("OMP_NUM_THREADS", "1" if workers else "2")
    # Threads that spin for long while they wait take the cores from others; those that never spin
    # wake up too late (a training step takes 1.7 times as long). So they spin for a moment.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    os.environ.setdefault("MPLBACKEND", "Agg")
    # A test that asks a hub for a model has forgotten to make its own.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(int(threads.split(",")[0]))


@pytest.fixture(autouse=True)
def same_seeds():
    """Start every test from the same random state, whichever tests ran before it."""
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_foreign_handlers():
    """Take away the handlers that a training in this process leaves: pytest closes what they write to."""
    _remove_foreign_handlers()
    yield
    _remove_foreign_handlers()


def _remove_foreign_handlers():
    root = logging.getLogger()
    for handler in list(root.handlers):
        if not type(handler).__module__.startswith("_pytest."):
            root.removeHandler(handler)
            handler.close()


def speech_folder() -> Path | None:
    """Return the folder that `SPEECH_DATA` names, or None where there is none."""
    value = os.environ.get("SPEECH_DATA")
    return Path(value) if value and Path(value).is_dir() else None


def data_path(name: str) -> Path:
    """Return `$SPEECH_DATA/name`, or skip the test that asks for it."""
    value = os.environ.get("SPEECH_DATA")
    if not value:
        pytest.skip(f"{name}: SPEECH_DATA is not set")
    folder = speech_folder()
    if folder is None:
        pytest.skip(f"{name}: SPEECH_DATA={value} is not a folder")
    if not (folder / name).exists():
        pytest.skip(f"{name}: not in SPEECH_DATA={value}")
    return folder / name


@pytest.fixture
def data() -> Callable[[str], Path]:
    """Give real speech by name: `data("librispeech_asr")` is a path."""
    return data_path


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the tests on real speech: `data` where they take the fixture, and `exhaustive` all of them.

    First of all hooks, since `-m` selects in one too.
    """
    for item in items:
        if "data" in getattr(item, "fixturenames", ()):
            item.add_marker("data")
        if item.get_closest_marker("data"):
            item.add_marker("exhaustive")


def pytest_collection_finish():
    """Keep what the imports have left, millions of objects that live to the end, out of later garbage collections."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item):
    """Skip what this machine cannot run."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
    for marker in item.iter_markers("data"):
        for name in marker.args:
            data_path(name)


def skip_reason(report) -> str:
    """Return why a test was skipped, without pytest's own prefix."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Turn the skip of a test on real speech into a failure where the speech is there.

    Captured names that are not UTF-8 are escaped: a worker of pytest-xdist could not send them.
    """
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    expected_failure = hasattr(report, "wasxfail")
    if report.skipped and not expected_failure and item.get_closest_marker("data"):
        folder = speech_folder()
        if folder is not None:
            report.outcome = "failed"
            report.longrepr = (
                f"{item.nodeid} was skipped although SPEECH_DATA={folder} is there "
                f"({skip_reason(report)}). Unset SPEECH_DATA to run without real speech."
            )
    return report


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    """Close the run with the number of skipped tests for each reason."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(skip_reason(report) for report in skipped)
    terminalreporter.section("skipped tests by reason")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:5d}  {reason}")
    if not reasons:
        terminalreporter.line("    0  every test ran")

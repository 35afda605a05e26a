"""Where the Triton kernels are refused, and that `auto` takes them on a card."""

import os
import sysconfig

import pytest
import torch

from modules.ssm import available_backends
from modules.ssm.conv.dispatch import BACKENDS as CONVOLUTION
from modules.ssm.scan.dispatch import BACKENDS as SCAN
from modules.ssm.triton import refusal


@pytest.fixture(autouse=True)
def fresh():
    """Forget what was found out about this machine."""
    for function in (refusal.installed, refusal.launcher_refusal, refusal.card_refusal):
        function.cache_clear()
    yield
    for function in (refusal.installed, refusal.launcher_refusal, refusal.card_refusal):
        function.cache_clear()


def card(monkeypatch, capability, hip=None):
    """Let torch report an NVIDIA card of a capability, or an AMD one."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(torch.version, "hip", hip)


def test_cards_that_no_test_compiles_for_are_refused(monkeypatch):
    card(monkeypatch, (7, 5))
    assert "capability 8.0 and later, and this one has 7.5" in refusal.card_refusal(0)
    refusal.card_refusal.cache_clear()
    card(monkeypatch, (9, 0))
    assert refusal.card_refusal(0) is None
    refusal.card_refusal.cache_clear()
    card(monkeypatch, (9, 0), hip="6.0")
    assert "NVIDIA cards only" in refusal.card_refusal(0)


def test_a_launcher_that_cannot_be_compiled_is_refused_with_the_remedy(monkeypatch, tmp_path):
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_paths", lambda scheme: {"include": str(tmp_path)})
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install gcc, or name one in CC" in refusal.launcher_refusal()
    refusal.launcher_refusal.cache_clear()
    (tmp_path / "gcc").touch(mode=0o755)
    assert refusal.launcher_refusal() is None
    refusal.launcher_refusal.cache_clear()
    (tmp_path / "Python.h").unlink()
    assert "install python3-dev" in refusal.launcher_refusal()


def test_a_card_that_fits_gets_the_kernels_from_auto(monkeypatch):
    monkeypatch.setattr(refusal, "installed", lambda: True)
    monkeypatch.setattr(refusal, "launcher_refusal", lambda: None)
    monkeypatch.setattr(refusal, "card_refusal", lambda index: None)
    for backends in (SCAN, CONVOLUTION):
        on_a_card = [name for name in backends.implementations if name != "cpu"]
        assert on_a_card[0] == "triton"
    assert refusal.device_refusal(torch.device("cuda", 0)) is None
    monkeypatch.setattr(refusal, "card_refusal", lambda index: "too old")
    assert refusal.device_refusal(torch.device("cuda", 0)) == "too old"


def test_on_a_cpu_auto_takes_the_compiled_kernels_even_beside_the_interpreter(monkeypatch):
    before = available_backends()
    monkeypatch.setitem(os.environ, "TRITON_INTERPRET", "1")
    names = available_backends()
    assert names[0] == before[0] or before[0] != "cpu"
    assert [name for name in names if name != "triton"] == before


@pytest.mark.gpu
def test_auto_takes_the_kernels_on_this_card():
    assert available_backends("cuda")[0] == "triton"

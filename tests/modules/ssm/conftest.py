"""Triton's kernels made to run on any machine, within the test's own process."""

import sys

import pytest

from tests.support.triton import DEVICE, forget_kernels


@pytest.fixture
def interpreted(monkeypatch):
    """Define the kernels anew for this test: Triton reads the variable when a kernel is defined.

    So it is with Triton's own functions that are written in its language, ``tl.cdiv`` for one. They
    were defined when Triton was imported, perhaps by another test.
    """
    language = pytest.importorskip("triton.language", exc_type=ImportError)
    from triton.runtime import interpreter
    from triton.runtime.jit import JITFunction

    class Interpreted(interpreter.InterpretedFunction):
        """A function that leaves the language as it was: Triton's own class restores it after kernels only."""

        def __call__(self, *args, **kwargs):
            scope = interpreter._patch_lang(self.fn)
            try:
                return self.rewrite()(*args, **kwargs)
            finally:
                scope.restore()

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for name, function in list(vars(language.standard).items()):
        if isinstance(function, JITFunction):
            for place in (language.standard, language):
                if getattr(place, name, None) is function:
                    monkeypatch.setattr(place, name, Interpreted(function.fn))
    before = forget_kernels()
    yield
    forget_kernels()
    sys.modules.update(before)


@pytest.fixture
def runnable(request):
    """Let the kernels run on this machine: on its card, or else in the interpreter."""
    if DEVICE == "cpu":
        request.getfixturevalue("interpreted")

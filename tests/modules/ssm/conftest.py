"""Triton's interpreter, switched on within the test's own process."""

import sys

import pytest

KERNELS = "modules.ssm.triton."


def forget_kernels():
    """Take the modules that define kernels out of Python's table, and return them by name."""
    names = [name for name in sys.modules if name.startswith(KERNELS)]
    # a plan is no kernel, and tests compare plans by their class
    return {name: sys.modules.pop(name) for name in names if name != f"{KERNELS}plan"}


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

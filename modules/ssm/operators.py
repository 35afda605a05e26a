"""Kernels as PyTorch operators with gradients: what the compiled backends of scan and convolution share.

An operator lets ``torch.compile`` and ``torch.export`` see a call as one node. Its own autograd layer costs 80 us a
call, an ``autograd.Function`` 10 us, the operator without a gradient 30 us, and the bare kernel nothing. So an
:class:`Operator` takes the cheapest way that is safe for each call.
"""

import torch
from torch import Tensor


class Operator:
    """A kernel and its gradient, registered as ``mamba_speech::NAME`` and ``mamba_speech::NAME_backward``.

    The kernel takes ``(*tensors, lengths, *options)``, and with ``kept`` a last option ``save``: whether to fill the
    tensors that only the backward pass reads. It returns ``outputs`` tensors, the last state behind the others,
    and then those ``kept``. The backward kernel takes ``(*gradients of the outputs, *kept, *tensors, lengths,
    *options)``. It returns a gradient for each tensor, an empty one for each tensor that was not given.

    Arguments
    ---------
    name : str
    tensors : str
        PyTorch's schema of the tensors that may want a gradient, such as ``"Tensor x, Tensor? bias"``.
    options : str
        Schema of the options.
    outputs : int
        Number of outputs, the last state among them.
    forward, backward : callable
        The kernels.
    results : callable
        Empty tensors of the forward kernel's results, from the forward kernel's arguments.
    kept : int
        Number of tensors that the backward pass reads besides the arguments.
    direct : bool
        Whether a call that nothing watches may go past the dispatcher, to the kernel itself.
    given : callable, optional
        From the tensors to one truth value for each output but the last state, false for an output that this call
        leaves empty; by default every output is there.
    """

    def __init__(
        self,
        name,
        tensors,
        options,
        *,
        outputs,
        forward,
        backward,
        results,
        kept=0,
        direct=False,
        given=None,
    ):
        self._tensors = tensors.count("Tensor")
        self._outputs, self._kept = outputs, kept
        self._forward, self._backward = forward, backward
        self._direct, self._given = direct, given
        inputs = f"{tensors}, Tensor? lengths, {options}"
        before = [f"Tensor? grad_{i}" for i in range(outputs)]
        before += [f"Tensor kept_{i}" for i in range(kept)]
        made = ", ".join(["Tensor"] * (outputs + kept))
        self.operator = torch.library.custom_op(
            f"mamba_speech::{name}",
            forward,
            mutates_args=(),
            schema=f"({inputs}{', bool save' if kept else ''}) -> ({made})",
        )
        self.backward_operator = torch.library.custom_op(
            f"mamba_speech::{name}_backward",
            backward,
            mutates_args=(),
            schema=f"({', '.join(before)}, {inputs}) -> Tensor[]",
        )
        self.operator.register_fake(results)
        self.backward_operator.register_fake(self._empty_gradients)
        self.operator.register_autograd(self._gradient, setup_context=self._remember)
        self._function = _function(self)

    def __call__(self, tensors, lengths, *options):
        """Run the kernel; its outputs, and what it kept."""
        wanted = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
        saved = (wanted,) if self._kept else ()
        # forward-mode differentiation has no rule here: an autograd.Function says so, a bare call would drop it
        if not torch.compiler.is_compiling() and (wanted or _in_forward_mode()):
            return self._function.apply(*tensors, lengths, *options, *saved)
        return self._cheapest(tensors)(*tensors, lengths, *options, *saved)

    def run(self, *arguments):
        """Run the kernel or the operator, without autograd."""
        return self._cheapest(arguments[: self._tensors])(*arguments)

    def _cheapest(self, tensors):
        return self._forward if self._direct and unwatched(*tensors) else self.operator

    def _remember(self, ctx, inputs, output):
        tensors = self._tensors + 1  # the lengths are one more
        ctx.options = inputs[tensors : len(inputs) - bool(self._kept)]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:tensors], *output[self._outputs :])

    def _gradient(self, ctx, *grads):
        # read once: activation checkpointing computes them again for the first look only
        saved = ctx.saved_tensors
        tensors, lengths, kept = (
            saved[: self._tensors],
            saved[self._tensors],
            saved[self._tensors + 1 :],
        )
        *grad_outs, grad_last = grads[: self._outputs]
        given = self._given(tensors) if self._given else [True] * len(grad_outs)
        grad_outs = [
            (torch.zeros_like(tensors[0]) if g is None else g) if there else None
            for g, there in zip(grad_outs, given, strict=True)
        ]
        # with create_graph: the operator refuses a second derivative, the kernel would drop it
        direct = self._direct and not torch.is_grad_enabled()
        direct = direct and unwatched(*grad_outs, grad_last, *tensors)
        run = self._backward if direct else self.backward_operator
        made = run(*grad_outs, grad_last, *kept, *tensors, lengths, *ctx.options)
        wanted = (g if need else None for g, need in zip(made, ctx.needs_input_grad, strict=False))
        return *wanted, *[None] * (1 + len(ctx.options) + bool(self._kept))

    def _empty_gradients(self, *arguments):
        first = self._outputs + self._kept
        return empty_gradients(arguments[first : first + self._tensors])


def _function(operator):
    """The gradient of an operator's calls that do not go through the compiler."""

    class Gradient(torch.autograd.Function):
        @staticmethod
        def forward(*arguments):
            return operator.run(*arguments)

        setup_context = staticmethod(operator._remember)
        backward = staticmethod(operator._gradient)

    return Gradient


def empty_gradients(tensors, like=None):
    """Empty contiguous tensors for gradients, none of a size and of the type of ``like`` (by default the first
    tensor) for tensors that were not given.
    """
    like = tensors[0] if like is None else like
    return [like.new_empty(0) if t is None else t.new_empty(t.shape) for t in tensors]


def any_float64(tensors):
    """Whether any of the tensors (``None`` among them is fine) is float64, which no kernel computes in."""
    return any(t is not None and t.dtype == torch.float64 for t in tensors)


def _in_forward_mode():
    return torch.autograd.forward_ad._current_level >= 0


def unwatched(*tensors):
    """Whether nothing but this call sees these tensors: no compiler, tracer, mode or tensor subclass,
    and the numbers are where their addresses say (a negated view's are not, a tensor of zeros may have none).

    A kernel may then be called without the dispatcher, which would cost more than a short call does.
    """
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or any(t is not None and not _plain(t) for t in tensors)
    )


def _plain(x):
    return type(x) in (Tensor, torch.nn.Parameter) and not x.is_neg() and not x._is_zerotensor()

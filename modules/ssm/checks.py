"""The door of every operator: an argument of another type, shape or device is refused by name.

The checks run before a backend is chosen, so every backend refuses the same calls in the same words. What is
not checked here could end the process: the compiled kernels read memory at the addresses that they are given.
"""

import math
import numbers

import torch
from torch import Tensor

# float8 is left out: it is a format of storage, and most operations of PyTorch refuse it
FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# the unsigned types beyond uint8 have no minimum in PyTorch
_COUNTS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_tensor(name, tensor, shape, device):
    """Check a tensor of a known shape.

    Arguments
    ---------
    name : str
        Name of the argument, for the message.
    tensor : torch.Tensor
        Dense floating-point numbers.
    shape : tuple
        Sizes of its dimensions.
    device : torch.device
        Device of the operator's first argument.

    Raises
    ------
    ValueError
        If the argument is anything else.

    Example
    -------
    >>> import torch
    >>> check_tensor("D", torch.ones(3), (4,), torch.device("cpu"))
    Traceback (most recent call last):
        ...
    ValueError: D must have shape (4,); got (3,)
    """
    if (  # all of it in one expression: a step of one frame comes here ten times
        isinstance(tensor, Tensor)
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and tensor.shape == shape
        and tensor.dtype in FLOATING
        and tensor.device == device
    ):
        return
    if not is_dense(tensor):
        shape = str(shape).replace("'", "")
        raise ValueError(_no_tensor(name, tensor, f"of shape {shape}"))
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; got {tuple(tensor.shape)}")
    if tensor.dtype not in FLOATING:
        raise ValueError(_no_floats(name, tensor))
    raise ValueError(
        f"{name} is on {tensor.device}, and the input on {device}: move them to one device"
    )


def check_input(name, tensor, layout):
    """Check the first argument of an operator, whose sizes the other arguments share.

    Arguments
    ---------
    name : str
    tensor : torch.Tensor
        Dense floating-point numbers.
    layout : tuple of str
        Names of its dimensions.

    Raises
    ------
    ValueError
        If the argument is anything else.

    Example
    -------
    >>> check_input("u", None, ("batch", "time"))
    Traceback (most recent call last):
        ...
    ValueError: u must be a tensor (batch, time); got None
    """
    if not is_dense(tensor):
        raise ValueError(_no_tensor(name, tensor, f"({', '.join(layout)})"))
    if tensor.dim() != len(layout):
        raise ValueError(f"{name} must be ({', '.join(layout)}); got {tuple(tensor.shape)}")
    if tensor.dtype not in FLOATING:
        raise ValueError(_no_floats(name, tensor))


def check_module_input(name, x, weight, layout):
    """Check what a module takes in, against the weight (out channels, in channels) that meets it first.

    Raises
    ------
    ValueError
        If ``x`` is no tensor of that layout, has other channels, or another type or device than the weight.
    """
    if (
        isinstance(x, Tensor)
        and x.layout is torch.strided
        and not x.is_nested
        and x.dim() == len(layout)
        and x.shape[-1] == weight.shape[-1]
        and x.dtype == weight.dtype
        and x.device == weight.device
    ):
        return
    check_input(name, x, layout)
    if x.shape[-1] != weight.shape[-1]:
        raise ValueError(
            f"{name} must have {weight.shape[-1]} channels, as the module has; got {tuple(x.shape)}"
        )
    if x.device != weight.device:
        raise ValueError(
            f"{name} is on {x.device}, and the module on {weight.device}: move them to one device"
        )
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(
            f"{name} holds {_short(x.dtype)}, and the module {_short(weight.dtype)}: convert one of them, "
            "or run the module under torch.autocast"
        )


def check_state_matrix(A, channels, device):
    """Check ``A`` (channels, states) of a scan, and return the number of states.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    if is_dense(A) and (A.dim() != 2 or A.shape[0] != channels):
        raise ValueError(
            f"A must be (channels, states) with {channels} channels; got {tuple(A.shape)}"
        )
    states = A.shape[1] if is_dense(A) else "states"
    check_tensor("A", A, (channels, states), device)
    return states


def check_lengths(lengths, batch, time):
    """Check frame counts: an integer tensor ``(batch,)`` within ``0..time``, or ``None``.

    Values are read only where that costs no synchronisation: on the CPU. They are not read while a compiler
    or an exporter looks, which could not go on from there in one graph. The kernels read no frame
    outside the utterance, whatever the lengths say.

    Raises
    ------
    ValueError
        If the argument is anything else.
    """
    if lengths is None:
        return
    if not is_dense(lengths) or lengths.dtype not in _COUNTS:
        got = _short(lengths.dtype) if isinstance(lengths, Tensor) else _kind(lengths)
        raise ValueError(
            f"lengths must be an integer tensor of frame counts; got {got}; SpeechBrain's relative lengths are "
            "counted with modules.lengths (sample_counts, then fbank_frames and strided_frames)"
        )
    if lengths.shape != (batch,):
        raise ValueError(
            f"lengths must have shape ({batch},), one a batch item; got {tuple(lengths.shape)}"
        )
    if (
        lengths.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and batch
        and not 0 <= int(lengths.min()) <= int(lengths.max()) <= time
    ):
        raise ValueError(
            f"lengths must lie in 0..{time}, the number of frames; got {lengths.tolist()}"
        )


def frame_counts(lengths, x):
    """Checked lengths of the utterances of ``x`` (batch, time, ...), on its device.

    Raises
    ------
    ValueError
        As :func:`check_lengths`, and if the lengths hold no numbers but the tensor does.
    """
    if lengths is None:
        return None
    check_lengths(lengths, x.shape[0], x.shape[1])
    if lengths.device == x.device:
        return lengths
    if lengths.is_meta:
        raise ValueError(
            f"lengths are on meta, and the input on {x.device}: move them to one device"
        )
    return lengths.to(x.device)


def check_switch(name, value):
    """Check that ``value`` is true or false, or 1 or 0.

    Raises
    ------
    ValueError
        For anything else: a text such as ``"no"`` would count as true.
    """
    if value is True or value is False:
        return
    if not isinstance(value, numbers.Integral) or value not in (0, 1):
        raise ValueError(f"{name} must be True or False; got {_kind(value)}")


def check_count(name, value, least=1):
    """Check that ``value`` is a whole number of at least ``least``.

    Raises
    ------
    ValueError
        If it is anything else.

    Example
    -------
    >>> check_count("d_state", 0)
    Traceback (most recent call last):
        ...
    ValueError: d_state must be a whole number of 1 or more; got 0
    """
    whole = isinstance(value, (numbers.Integral, torch.SymInt)) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(f"{name} must be a whole number of {least} or more; got {value!r}")


def check_positive(name, value):
    """Check that ``value`` is a finite number above 0.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0; got {value!r}")


def check_pair(name, pair):
    """Check that ``pair`` holds two tensors, or twice ``None``: one a direction.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(
            f"{name} must be a pair of tensors, forward and backward; got {_kind(pair)}"
        )


def is_dense(x):
    """Whether ``x`` is a tensor whose numbers lie in memory by strides, as all operators need it."""
    return isinstance(x, Tensor) and x.layout is torch.strided and not x.is_nested


def _no_tensor(name, x, wanted):
    if not isinstance(x, Tensor):
        return f"{name} must be a tensor {wanted}; got {_kind(x)}"
    layout = "nested" if x.is_nested else _short(x.layout)
    return (
        f"{name} must be a dense tensor {wanted}; got one of layout {layout}: convert it beforehand"
    )


def _no_floats(name, x):
    got = _short(x.dtype)
    if x.is_complex():
        return f"{name} is complex ({got}): only real numbers are supported"
    return (
        f"{name} must hold floating-point numbers (float32, bfloat16, float16 or float64); got {got}: "
        f"convert it with {name}.float()"
    )


def _short(kind):
    """The name of a type or layout without its package."""
    return str(kind).removeprefix("torch.")


def _kind(value):
    """What a value is, in a word or two."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    return f"{type(value).__name__}"

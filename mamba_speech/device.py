"""Which device a model runs on."""

import torch

from modules.ssm.scan.dispatch import check_environment


def choose_device(name=None):
    """A device to run on: CUDA if there is any, else the CPU, where none is named.

    Arguments
    ---------
    name : str or torch.device, optional

    Returns
    -------
    device : torch.device

    Raises
    ------
    ValueError
        If there is no such kind of device.
    RuntimeError
        If this machine has none, or the backend that ``MAMBA_SPEECH_BACKEND`` names does not run there.

    Example
    -------
    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r} is unknown: use cpu, cuda, cuda:0 or mps") from error
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise RuntimeError(f"device {name!r} cannot be used here: {reason}") from error
    check_environment(device)
    return device

"""A network as an ONNX graph that holds for any batch and length, and its comparison with the network."""

import contextlib
import importlib.util
import io
import logging
import os
import warnings

import torch

from modules.ssm import use_backend

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSETS = (20, 21, 22, 23)
# of log-probabilities
TOLERANCE = 1e-4


def check_packages():
    """Raise ``RuntimeError`` if a package of the extra ``export`` is missing."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(
            f"--format onnx needs the package {missing[0]}: install it with pip install 'mamba-speech[export]'"
        )


def write_onnx(network, path, samples, outputs, opset=OPSETS[0]):
    """Write a network from waveforms as an ONNX file.

    Arguments
    ---------
    network : torch.nn.Module
        From waveforms (batch, samples) and sample counts (batch,) to a tensor, or several.
    path : str or Path
    samples : int
        Least samples of a batch's longest waveform.
    outputs : list of str
        Names of what the network gives.
    opset : int
        Version of ONNX's operators, one of :data:`OPSETS`.

    Raises
    ------
    ValueError
        If a part of the network cannot become a graph of any length.
    """
    # what it imports comes with the extra
    from mamba_speech.export.onnx_stft import short_time_fourier_transform

    batch = torch.export.Dim("batch", min=1)
    time = torch.export.Dim("samples", min=samples)
    example = torch.zeros(2, 5 * samples), torch.tensor([5 * samples, 3 * samples])
    try:
        with torch.no_grad(), use_backend("graph"), quiet():
            program = torch.export.export(
                network.eval(),
                example,
                dynamic_shapes=({0: batch, 1: time}, {0: batch}),
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            _drop_idle_squeezes(program)
            model = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=["waveform", "samples"],
                output_names=list(outputs),
                opset_version=opset,
                custom_translation_table={
                    torch.ops.aten.stft.default: short_time_fourier_transform
                },
            )
    # torch has no class for what its exporters cannot do
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"this network has no ONNX graph that holds for every length ({type(error).__name__}: {reason}); take "
            "--format speechbrain"
        ) from error
    model.save(str(path))


def _drop_idle_squeezes(program):
    """Take squeezes out whose dimension is not 1: PyTorch leaves these as they are, ONNX refuses them."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target != torch.ops.aten.squeeze.dim:
            continue
        source, dim = node.args
        if source.meta["val"].shape[dim] != 1:
            node.replace_all_uses_with(source)
            graph.erase_node(node)
    program.graph_module.recompile()


@contextlib.contextmanager
def quiet():
    """Without the exporters' own remarks, which are for their developers."""
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def open_session(path, threads=None):
    """An ONNX file in onnxruntime.

    Arguments
    ---------
    path : str or Path
    threads : int, optional
        By default, as many as there are processors for this process.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    # what it says below an error is on its own optimisations
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_graph(network, path, samples):
    """Compare an ONNX file with its network, at lengths that the export did not see and in a padded batch.

    Arguments
    ---------
    network : torch.nn.Module
    path : str or Path
    samples : int
        As of :func:`write_onnx`.

    Raises
    ------
    ValueError
        If an output differs by more than :data:`TOLERANCE`.
    """
    session = open_session(path)
    generator = torch.Generator().manual_seed(0)
    for counts in ([samples], [7 * samples + 13], [4 * samples + 5, samples, 2 * samples + 1]):
        wavs = 0.1 * torch.randn(len(counts), max(counts), generator=generator)
        worst = difference(network, session, wavs, torch.tensor(counts))
        if not worst <= TOLERANCE:
            raise ValueError(
                f"the ONNX graph differs from the network by {worst:.1e} at {counts} samples: this network cannot be "
                "exported; take --format speechbrain"
            )


@torch.no_grad()
def difference(network, session, wavs, samples):
    """Largest absolute difference of the outputs of a network and of its ONNX session.

    Of outputs with a time, only frames within each item's length count. Another length is an infinite difference.
    """
    expected = network(wavs, samples)
    expected = (expected,) if isinstance(expected, torch.Tensor) else tuple(expected)
    found = session.run(None, {"waveform": wavs.numpy(), "samples": samples.numpy()})
    one, other = expected[0], torch.from_numpy(found[0])
    if one.shape != other.shape or any(
        not torch.equal(length, torch.from_numpy(given))
        for length, given in zip(expected[1:], found[1:], strict=True)
    ):
        return float("inf")
    gaps = (one - other).abs()
    if len(expected) == 1:
        return gaps.max().item()
    return max(gap[:count].max().item() for gap, count in zip(gaps, expected[1], strict=True))

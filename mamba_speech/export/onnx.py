"""The format ``onnx``: a graph from waveforms to log-probabilities that onnxruntime runs without PyTorch."""

from mamba_speech.export.onnx_graph import OPSETS, check_graph, check_packages, quiet, write_onnx
from mamba_speech.export.waveform_runs import waveform_run, write_labels
from mamba_speech.run_errors import errors_name_run

MODEL_FILE = "model.onnx"
QUANTIZED_FILE = "model.int8.onnx"


def export(run_folder, folder, options):
    """Write a run into an empty folder; see :func:`mamba_speech.export.export_run`.

    ``options`` may hold ``opset``, one of :data:`mamba_speech.export.onnx_graph.OPSETS`, and ``quantize``, ``int8`` for
    a second file whose weights have 8 bits.
    """
    opset, quantize = options.get("opset", OPSETS[0]), options.get("quantize")
    if opset not in OPSETS:
        raise ValueError(f"opset must be from {OPSETS[0]} to {OPSETS[-1]}; got {opset}")
    if quantize not in (None, "int8"):
        raise ValueError(f"quantize must be int8; got {quantize!r}")
    check_packages()
    with errors_name_run(run_folder):
        run = waveform_run(run_folder)
        path = folder / MODEL_FILE
        write_onnx(run.network, path, run.least_samples, run.outputs, opset)
        check_graph(run.network, path, run.least_samples)
        if quantize:
            quantize_weights(path, folder / QUANTIZED_FILE)
    write_labels(folder, run)


def quantize_weights(source, target):
    """Write an ONNX file again with 8-bit weights of its matrix products; activations are quantised as they come.

    Features keep 32 bits: the range of power spectra is too wide for 8.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(
            str(source),
            str(target),
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=_of_features(onnx.load(str(source), load_external_data=False)),
            weight_type=QuantType.QInt8,
            per_channel=True,
        )


def _of_features(model):
    """Names of the nodes that compute features, by the module that the exporter notes for each node."""
    return [
        node.name
        for node in model.graph.node
        if any("'compute_features" in one.value for one in node.metadata_props)
    ]

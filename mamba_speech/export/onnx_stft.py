"""The short-time Fourier transform as one ONNX convolution.

onnxruntime's own STFT loses digits where the window is no power of two: features in dB differ by more than 1e-4.
"""

import functools
import math

import numpy as np
import onnx_ir
from onnxscript import opset18 as op


def short_time_fourier_transform(
    signal,
    n_fft,
    hop_length=None,
    win_length=None,
    window=None,
    normalized=False,
    onesided=None,
    return_complex=None,
    align_to_window=None,
):
    """ONNX operators for ``aten.stft`` of real signals (batch, samples).

    Arguments are PyTorch's. The result (batch, bins, frames, 2) has real and imaginary parts at its end, as the
    exporter keeps complex numbers.

    Raises
    ------
    ValueError
        If the transform is normalised or two-sided, which no feature of this project is.
    """
    if normalized or onesided is False:
        raise ValueError("only one-sided transforms that are not normalised become ONNX here")
    bins = n_fft // 2 + 1
    kernel = _constant(_fourier_kernel(n_fft))  # (2 * bins, 1, n_fft)
    if window is not None:
        before = (n_fft - (win_length or n_fft)) // 2
        after = n_fft - (win_length or n_fft) - before
        if before or after:
            window = op.Pad(window, _constant(np.array([before, after])))
        kernel = op.Mul(kernel, window)
    signal = op.Unsqueeze(signal, _constant(np.array([1])))
    parts = op.Conv(signal, kernel, strides=[hop_length or n_fft // 4])
    parts = op.Reshape(parts, _constant(np.array([0, 2, bins, -1])))
    return op.Transpose(parts, perm=[0, 2, 3, 1])


def _constant(array):
    return op.Constant(value=onnx_ir.tensor(array))


@functools.cache
def _fourier_kernel(n_fft):
    """Cosines and negative sines of all bins (2 * bins, 1, n_fft), float32."""
    # the product taken modulo n_fft first, so that the angles are exact
    turns = np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) % n_fft
    angles = 2 * math.pi / n_fft * turns
    return np.concatenate([np.cos(angles), -np.sin(angles)])[:, None].astype(np.float32)

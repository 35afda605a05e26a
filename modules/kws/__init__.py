"""Keyword spotting: features of short clips and streams, and the networks that classify them.

The public names are listed in ``__all__``. Features are (batch, time, features), lengths integer frame
counts; every network maps ``(features, frames)`` to logits (batch, n_classes).
"""

from modules.kws.convolutional import KeywordCNN, MobileNetV2KeywordSpotter
from modules.kws.features import KeywordFeatures, WaveToSpec
from modules.kws.mamba import (
    MambaKeywordSpotter,
    SpottingState,
    mamba_mel_large,
    mamba_mel_medium,
    mamba_mel_small,
    mamba_mfcc_large,
    mamba_mfcc_medium,
    mamba_mfcc_small,
)
from modules.kws.retention import (
    MultiScaleRetention,
    retention_chunkwise,
    retention_parallel,
    retention_recurrent,
)
from modules.kws.retnet import RetNetKeywordSpotter

__all__ = [
    "KeywordCNN",
    "KeywordFeatures",
    "MambaKeywordSpotter",
    "MobileNetV2KeywordSpotter",
    "MultiScaleRetention",
    "RetNetKeywordSpotter",
    "SpottingState",
    "WaveToSpec",
    "mamba_mel_large",
    "mamba_mel_medium",
    "mamba_mel_small",
    "mamba_mfcc_large",
    "mamba_mfcc_medium",
    "mamba_mfcc_small",
    "retention_chunkwise",
    "retention_parallel",
    "retention_recurrent",
]

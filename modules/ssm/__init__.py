"""The state-space core: selective scan, causal convolution, Mamba blocks and what training them needs.

The public names are listed in ``__all__``. Everything is time-major, ``(batch, time, channel)``, and
lengths are integer frame counts. The maths follows Gu and Dao, "Mamba: Linear-Time Sequence
Modeling with Selective State Spaces" (arXiv 2312.00752), section 3.
"""

from modules.ssm.backends import use_backend
from modules.ssm.blocks import BiMamba, Mamba, MambaState
from modules.ssm.chunks import ChunkedBiMamba
from modules.ssm.conv import bidirectional_conv1d, causal_conv1d, depthwise_conv1d
from modules.ssm.initialisation import scale_output_projections
from modules.ssm.parameter_groups import parameter_groups
from modules.ssm.scan import (
    available_backends,
    bidirectional_scan,
    selective_scan,
    selective_scan_fn,
    selective_scan_ref,
)
from modules.ssm.stack import MambaStack, RMSNorm

__all__ = [
    "BiMamba",
    "ChunkedBiMamba",
    "Mamba",
    "MambaStack",
    "MambaState",
    "RMSNorm",
    "available_backends",
    "bidirectional_conv1d",
    "bidirectional_scan",
    "causal_conv1d",
    "depthwise_conv1d",
    "parameter_groups",
    "scale_output_projections",
    "selective_scan",
    "selective_scan_fn",
    "selective_scan_ref",
    "use_backend",
]

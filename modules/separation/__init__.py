"""Speech separation: networks that take a mixture of speakers apart, and the measure that they are trained on.

The public names are listed in ``__all__``. Waveforms are (batch, time), several speakers' (batch, time, speakers);
what the encoder makes of them is (batch, channels, frames), as in the published models.
"""

from modules.separation.dual_path import DPMambaMaskNet, SepFormerMaskNet
from modules.separation.filterbank import set_fourier_filters_
from modules.separation.level import fit_to_mixture
from modules.separation.mask_net import MaskNet
from modules.separation.separator import Separator, encoded_frames, initialise_separator_
from modules.separation.si_snr import pit_si_snr, si_snr, si_snr_improvement
from modules.separation.streaming import StreamingSeparator

__all__ = [
    "DPMambaMaskNet",
    "MaskNet",
    "SepFormerMaskNet",
    "Separator",
    "StreamingSeparator",
    "encoded_frames",
    "fit_to_mixture",
    "initialise_separator_",
    "pit_si_snr",
    "set_fourier_filters_",
    "si_snr",
    "si_snr_improvement",
]

"""From a mixture's waveform to one waveform a speaker: learned encoder, mask net, learned decoder.

The frame of the time-domain separation networks since TasNet (Luo and Mesgarani, "Conv-TasNet", arXiv 1809.07454,
section II): the mask net looks at the encoded mixture and gives one mask a speaker; the decoder turns
the masked mixtures into waveforms. The three children carry the published names, and each is a checkpoint
file of its own in a published folder.
"""

import torch
from torch import nn
from torch.nn import functional as F

from modules.fidelity import check_fidelity
from modules.separation.filterbank import ENCODER_INITS, set_fourier_filters_
from modules.ssm.checks import check_lengths
from modules.ssm.masking import keep_valid, valid_frames


def encoded_frames(samples, kernel_size, stride):
    """Frames of the encoder for ``samples`` (an integer or an integer tensor): whole windows only.

    Example
    -------
    >>> encoded_frames(500, 16, 8), encoded_frames(15, 16, 8)
    (61, 0)
    """
    if isinstance(samples, torch.Tensor):
        return torch.div(samples - kernel_size, stride, rounding_mode="floor").add(1).clamp(min=0)
    return max((samples - kernel_size) // stride + 1, 0)


class SeparationNetwork(nn.Module):
    """Encoder, mask net and decoder as one network, from mixture to sources.

    Arguments
    ---------
    encoder : speechbrain.lobes.models.dual_path.Encoder
        Waveform to non-negative channels; its stride is half its kernel.
    masknet : torch.nn.Module
        ``masknet(encoded (batch, channels, frames), lengths)`` gives masks (speakers, batch, channels, frames):
        :class:`MaskNet`, :class:`DPMambaMaskNet` or :class:`SepFormerMaskNet`.
    decoder : speechbrain.lobes.models.dual_path.Decoder
        Channels to waveform, with the encoder's kernel and stride.
    fidelity : str
        ``corrected`` leaves padding out of everything, so that a padded batch gives what each mixture gives
        alone; ``upstream`` computes on padding as the published code does, and ignores ``samples``.
    encoder_init : str
        What the filters of encoder and decoder begin as: ``random``, or ``fourier`` (see
        :func:`set_fourier_filters_`).

    Raises
    ------
    ValueError
        If kernel, stride or channels of encoder and decoder differ, the kernel is odd, the mask net was built for
        another fidelity, or ``encoder_init`` is unknown.

    Example
    -------
    >>> import torch
    >>> from speechbrain.lobes.models.dual_path import Decoder, Encoder
    >>> from modules.separation.mask_net import MaskNet
    >>> from modules.separation.separator import SeparationNetwork
    >>> separator = SeparationNetwork(
    ...     Encoder(kernel_size=16, out_channels=8),
    ...     MaskNet(enc_dim=8, bot_dim=8, n_spk=2, n_mamba=1),
    ...     Decoder(in_channels=8, out_channels=1, kernel_size=16, stride=8, bias=False),
    ... )
    >>> separator(torch.randn(3, 400), samples=torch.tensor([400, 321, 80])).shape
    torch.Size([3, 400, 2])
    """

    def __init__(self, encoder, masknet, decoder, fidelity="corrected", encoder_init="random"):
        super().__init__()
        self.fidelity = check_fidelity(fidelity)
        self.encoder = encoder
        self.masknet = masknet
        self.decoder = decoder
        self.kernel_size = encoder.conv1d.kernel_size[0]
        self.stride = encoder.conv1d.stride[0]
        self.num_spks = masknet.num_spks
        self._check_parts()
        if encoder_init not in ENCODER_INITS:
            raise ValueError(
                f"encoder_init must be one of {', '.join(ENCODER_INITS)}; got {encoder_init!r}"
            )
        if encoder_init == "fourier":
            set_fourier_filters_(encoder, decoder)

    def _check_parts(self):
        if self.kernel_size % 2:
            raise ValueError(
                f"kernel_size must be even, for a stride of half of it; got {self.kernel_size}"
            )
        encoder = (self.kernel_size, self.stride, self.encoder.conv1d.out_channels)
        decoder = (
            self.decoder.kernel_size[0],
            self.decoder.stride[0],
            self.decoder.in_channels,
        )
        if encoder != decoder:
            raise ValueError(
                "encoder and decoder must share kernel_size, kernel_stride (half the kernel) and N_encoder_out; "
                f"the encoder has {encoder}, the decoder {decoder}"
            )
        if self.masknet.fidelity != self.fidelity:
            raise ValueError(
                f"the mask net was built with fidelity {self.masknet.fidelity!r}, the separator with "
                f"{self.fidelity!r}; give both the same"
            )

    def forward(self, mix, samples=None):
        """Separate a batch of mixtures.

        Arguments
        ---------
        mix : torch.Tensor
            (batch, time).
        samples : torch.Tensor, optional
            (batch,) integer sample counts; ``None``: every mixture is as long as the batch.

        Returns
        -------
        torch.Tensor
            (batch, time, speakers). In corrected mode it is 0 past each mixture's samples; samples after the last
            whole window are 0 as well, and so is all of a mixture that is shorter than one window.

        Raises
        ------
        ValueError
            If ``mix`` is not (batch, time), or ``samples`` are not integer counts within ``0..time``.
        """
        if mix.dim() != 2:
            raise ValueError(f"mix must be (batch, time); got shape {tuple(mix.shape)}")
        batch, time = mix.shape
        check_lengths(samples, batch, time)
        if time < self.kernel_size:
            return mix.new_zeros(batch, time, self.num_spks)
        if self.fidelity == "upstream":
            samples = None
        lengths = None
        if samples is not None:
            mix = keep_valid(mix, valid_frames(samples, time, mix.device))
            lengths = encoded_frames(samples, self.kernel_size, self.stride)
        encoded = self.encoder(mix)  # (batch, channels, frames)
        # a window that reaches past a mixture's end is no frame of it: there the masks are 0
        sources = self.decode(encoded * self.masknet(encoded, lengths), time)
        if lengths is None:
            return sources
        # a decoder with a bias speaks where no frame reaches
        reach = torch.where(lengths > 0, (lengths - 1) * self.stride + self.kernel_size, 0)
        return keep_valid(sources, valid_frames(reach, time, mix.device))

    def decode(self, masked, time):
        """Waveforms of masked mixtures (speakers, batch, channels, frames): (batch, time, speakers)."""
        speakers, batch = masked.shape[:2]
        # past SpeechBrain's forward, which squeezes away a batch of one and a channel of one alike
        waveforms = nn.ConvTranspose1d.forward(self.decoder, masked.flatten(0, 1))
        waveforms = waveforms.view(speakers, batch, -1).permute(1, 2, 0)
        return F.pad(waveforms, (0, 0, 0, time - waveforms.shape[1]))


def initialise_separator_(model, fidelity):
    """Draw the parameters of ``model`` anew as the published recipe does, or leave them as they are.

    Arguments
    ---------
    model : torch.nn.Module
    fidelity : str
        ``upstream`` runs the ``reset_parameters`` of every submodule, as published: the steps of the Mamba blocks lose
        their range and the output projections their scale. ``corrected`` leaves what construction drew.

    Raises
    ------
    ValueError
        If ``fidelity`` is neither.
    """
    if check_fidelity(fidelity) == "corrected":
        return
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()

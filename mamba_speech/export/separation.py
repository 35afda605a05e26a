"""A trained separator for SpeechBrain's ``SepformerSeparation``."""

from mamba_speech.export.content import Content, dump
from mamba_speech.separation.published import MASK_NETS, describe, load_strictly
from mamba_speech.separation.separator import Separator

_INTERFACE = """\
encoder: &encoder !new:speechbrain.lobes.models.dual_path.Encoder
    kernel_size: {kernel_size}
    out_channels: {channels}
masknet: &masknet !new:{masknet}
{arguments}
decoder: &decoder !new:speechbrain.lobes.models.dual_path.Decoder
    in_channels: {channels}
    out_channels: 1
    kernel_size: {kernel_size}
    stride: {stride}
    bias: False
model: !new:modules.separation.separator.SeparationNetwork
    encoder: *encoder
    masknet: *masknet
    decoder: *decoder
    fidelity: {fidelity}
modules:
    encoder: !ref <encoder>
    masknet: !ref <masknet>
    decoder: !ref <decoder>
"""


def content_of(run_folder):
    """The content of a folder for SpeechBrain.

    ``separate_batch`` gives what the network gives, at a level and, maybe, a sign that mean nothing;
    :meth:`mamba_speech.separation.separator.Separator.separate` brings that to the mixture's level.

    Arguments
    ---------
    run_folder : str or Path
        As of :class:`mamba_speech.separation.separator.Separator`.

    Returns
    -------
    mamba_speech.export.content.Content

    Raises
    ------
    FileNotFoundError, ValueError
        As :class:`mamba_speech.separation.separator.Separator`.
    """
    separator = Separator.load(run_folder, "cpu")
    weights = separator.network.state_dict()
    scalars = _scalars_of(separator.network) | {"sample_rate": separator.sample_rate}
    description = describe(weights, scalars, run_folder)
    load_strictly(description, weights, run_folder)
    network = MASK_NETS[description.masknet]
    arguments = dump(description.arguments).splitlines()
    interface = _INTERFACE.format(
        kernel_size=description.kernel_size,
        stride=description.kernel_size // 2,
        channels=description.channels,
        masknet=f"{network.__module__}.{network.__name__}",
        arguments="\n".join(f"    {line}" for line in arguments),
        fidelity=separator.network.fidelity,
    )
    return Content(
        interface="SepformerSeparation",
        options=dump({"sample_rate": separator.sample_rate, "num_spks": separator.num_spks})
        + interface,
        networks={"model": separator.network},
        limits=[
            "SpeechBrain's class gives each source at a level that means nothing, and reads a recording whole.",
        ],
    )


def _scalars_of(network):
    """What the shapes of a separator's weights do not tell, from the network itself."""
    masknet = network.masknet
    scalars = {"fidelity": network.fidelity}
    if hasattr(masknet, "mask_nonlinear"):
        scalars["mask_nonlinear"] = masknet.mask_nonlinear
    if hasattr(masknet, "dual_mdl"):
        block = masknet.dual_mdl[0]
        scalars |= {"chunk_size": masknet.K, "skip_around_intra": block.skip_around_intra}
        scalars["skip_n_block"] = masknet.skip_n_block
        if hasattr(block.intra_mdl, "mdl"):
            scalars["nhead"] = block.intra_mdl.mdl.layers[0].self_att.att.num_heads
    return scalars

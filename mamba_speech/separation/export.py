"""A trained separator as a folder that SpeechBrain's own ``SepformerSeparation`` loads.

The folder has the published layout too, so that :mod:`mamba_speech.separation.published` reads it as well.
"""

from pathlib import Path

import torch
import yaml

from mamba_speech.files import whole_file, write_text
from mamba_speech.run import OPTIONS_FILE, check_export_folder
from mamba_speech.separation.published import MASK_NETS, PARTS, describe, load_strictly
from mamba_speech.separation.separator import Separator

_NETWORKS = """\
encoder: !new:speechbrain.lobes.models.dual_path.Encoder
    kernel_size: !ref <kernel_size>
    out_channels: !ref <N_encoder_out>
masknet: !new:{masknet}
{arguments}
decoder: !new:speechbrain.lobes.models.dual_path.Decoder
    in_channels: !ref <N_encoder_out>
    out_channels: 1
    kernel_size: !ref <kernel_size>
    stride: !ref <kernel_size> // 2
    bias: False
modules:
    encoder: !ref <encoder>
    masknet: !ref <masknet>
    decoder: !ref <decoder>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        encoder: !ref <encoder>
        masknet: !ref <masknet>
        decoder: !ref <decoder>
"""


def save_for_speechbrain(run_folder, folder):
    """Write a trained run as a folder that ``SepformerSeparation.from_hparams(source=folder)`` loads.

    Its ``separate_batch`` gives what the network gives, at a level and, maybe, a sign that mean nothing;
    :meth:`mamba_speech.separation.separator.Separator.separate` brings that to the mixture's level.

    Arguments
    ---------
    run_folder : str or Path
        As of :class:`mamba_speech.separation.separator.Separator`.
    folder : str or Path
        Where ``hyperparams.yaml``, ``encoder.ckpt``, ``masknet.ckpt`` and ``decoder.ckpt`` go; made if it is not there.

    Raises
    ------
    FileExistsError
        If the folder holds a run, or another model.
    FileNotFoundError, ValueError
        As :class:`mamba_speech.separation.separator.Separator`.

    Example
    -------
    Not run here, since it needs a trained run::

        save_for_speechbrain("results/mambatasnet_mini/1234", "exported")
        separator = SepformerSeparation.from_hparams(source="exported", savedir="loaded")
        sources = separator.separate_file("mix.wav")
    """
    check_export_folder(folder, f"{PARTS[0]}.ckpt")
    separator = Separator.load(run_folder, "cpu")
    weights = separator.network.state_dict()
    scalars = _scalars_of(separator.network) | {"sample_rate": separator.sample_rate}
    description = describe(weights, scalars, run_folder)
    load_strictly(description, weights, run_folder)
    content = _dump(
        {
            "sample_rate": separator.sample_rate,
            "num_spks": separator.num_spks,
            "kernel_size": description.kernel_size,
            "N_encoder_out": description.channels,
        }
    )
    arguments = "\n".join(f"    {line}" for line in _dump(description.arguments).splitlines())
    network = MASK_NETS[description.masknet]
    masknet = f"{network.__module__}.{network.__name__}"
    content += _NETWORKS.format(masknet=masknet, arguments=arguments)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        with whole_file(folder / f"{part}.ckpt", "wb") as file:
            torch.save(getattr(separator.network, part).state_dict(), file)
    # last: without it the folder is no model
    write_text(folder / OPTIONS_FILE, content)


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


def _dump(values):
    return yaml.safe_dump(values, sort_keys=False)

"""Separators whose weights lie in one file a part, as the published Mamba-TasNet checkpoints and SpeechBrain's do.

A folder with ``encoder.ckpt``, ``masknet.ckpt`` and ``decoder.ckpt`` is enough: the sizes of the networks are
read off the names and shapes of the weights. Nothing that a YAML beside them names is built or executed.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from speechbrain.lobes.models.dual_path import Decoder, Encoder

from mamba_speech.checkpoint_files import find_damage, read_meta
from mamba_speech.checkpoints import read_tensors
from mamba_speech.plain_yaml import left_out, read_scalars, shorten
from mamba_speech.run import OPTIONS_FILE
from modules.separation.dual_path import DPMambaMaskNet, SepFormerMaskNet
from modules.separation.mask_net import MaskNet
from modules.separation.separator import SeparationNetwork

logger = logging.getLogger(__name__)

PARTS = ("encoder", "masknet", "decoder")
MASK_NETS = {one.__name__: one for one in (MaskNet, DPMambaMaskNet, SepFormerMaskNet)}
# Names of the validation loss in a checkpoint's meta file. It is the negative SI-SNR, so lower is better. The first
# is this project's name; the published code and earlier versions have the others.
LOSSES = ("loss", "si-snr", "-si-snr")
# what shapes do not tell: its names in a YAML, in order, and the published value
_UNTOLD = {
    "sample_rate": (("sample_rate",), 8000),
    "mask_nonlinear": (("mask_nonlinear",), "relu"),
    "chunk_size": (("chunk_size", "K"), 250),
    "skip_around_intra": (("skip_around_intra",), None),
    "skip_n_block": (("skip_n_block",), 0),
    "nhead": (("nhead",), 8),
}
# what these networks are built with and shapes do not tell: no other value can be loaded
_FIXED = {
    "MaskNet": {},
    "DPMambaMaskNet": {"norm": "ln", "linear_layer_after_inter_intra": False},
    "SepFormerMaskNet": {
        "norm": "ln",
        "linear_layer_after_inter_intra": False,
        "norm_before": True,
        "use_positional_encoding": True,
    },
}
# an argument that is read off the weights: its names in a YAML
_TOLD_TWICE = {
    "n_spk": ("num_spks", "n_spk"),
    "num_spks": ("num_spks",),
    "enc_dim": ("N_encoder_out", "enc_dim"),
    "in_channels": ("N_encoder_out",),
    "bot_dim": ("bot_dim",),
    "bidirectional": ("bidirectional",),
    "d_state": ("ssm_dim", "d_state"),
    "expand": ("mamba_expand", "expand"),
    "d_conv": ("mamba_conv", "d_conv"),
    "rms_norm": ("rms_norm",),
    "d_ffn": ("d_ffn",),
}
_LFS = b"version https://git-lfs.github.com/spec/"


@dataclass
class Description:
    """What a separator is built from.

    ``masknet`` is a key of ``MASK_NETS``, ``arguments`` are its arguments, ``assumed`` the
    options that neither shapes nor a YAML told, with the published values that were taken.
    """

    channels: int
    kernel_size: int
    sample_rate: int
    masknet: str
    arguments: dict
    assumed: dict = field(default_factory=dict)

    def build(self):
        """The network with fresh weights; the caller's random state stays as it was."""
        with torch.random.fork_rng(devices=[]):
            encoder = Encoder(kernel_size=self.kernel_size, out_channels=self.channels)
            masknet = MASK_NETS[self.masknet](**self.arguments)
            stride = self.kernel_size // 2
            decoder = Decoder(self.channels, 1, self.kernel_size, stride=stride, bias=False)
            fidelity = self.arguments.get("fidelity", "corrected")
            return SeparationNetwork(encoder, masknet, decoder, fidelity)


def load_published(folder):
    """Load a separator from a folder of the published repository, or from any with its three files.

    Arguments
    ---------
    folder : str or Path
        With ``encoder.ckpt``, ``masknet.ckpt`` and ``decoder.ckpt``, or a run's output folder that has such folders
        under ``save``; of several, the one of the lowest validation loss. Plain values of a
        ``hyperparams.yaml`` beside them tell what shapes do not, such as ``mask_nonlinear: softmax``. What it
        does not tell either is taken as published, and a warning names all of it.

    Returns
    -------
    (modules.separation.separator.SeparationNetwork, int)
        The network on the CPU, in evaluation mode, and its sample rate.

    Raises
    ------
    FileNotFoundError
        If the folder or one of the three files is not there.
    ValueError
        If a file cannot be read as weights, is of no network known here, or contradicts the YAML beside it.

    Example
    -------
    Not run here, since it needs a checkpoint::

        network, sample_rate = load_published("ckpts/WSJ0Mix/mambatasnet_XS/1234")
    """
    place = find_weights(folder)
    weights = read_weights(place)
    file = _options_file(place)
    # arguments of the mask net without it: the class's default holds, which nobody need be warned of
    default = left_out(file, "mask_nonlinear", beside="bot_dim")
    description = describe(weights, read_scalars(file), place, ("mask_nonlinear",) * default)
    network = load_strictly(description, weights, place)
    if description.assumed:
        taken = ", ".join(f"{name} {value}" for name, value in description.assumed.items())
        logger.warning(
            "%s: does not tell all of the model; taken as published: %s. If the model was trained with other "
            "values, write them into %s, a line each",
            place,
            taken,
            file or place / OPTIONS_FILE,
        )
    return network, description.sample_rate


def find_weights(folder):
    """The folder with the three files: the given one, or the best checkpoint of a run.

    Raises
    ------
    FileNotFoundError
        If there is none; the message names the first file that is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give a run's or a checkpoint's")
    places = [folder, *sorted(folder.glob("CKPT+*")), *sorted(folder.glob("save/CKPT+*"))]
    begun = [place for place in places if any((place / f"{part}.ckpt").exists() for part in PARTS)]
    whole = [place for place in begun if all((place / f"{part}.ckpt").exists() for part in PARTS)]
    if whole:
        if whole[0] == folder:
            return folder
        # checkpoints with a damaged meta file count only if there are no others
        sound = [place for place in whole if find_damage(place) is None] or whole
        # the lowest loss, else the newest
        return min(sound, key=_rank)
    if begun:
        missing = next(part for part in PARTS if not (begun[0] / f"{part}.ckpt").exists())
        raise FileNotFoundError(
            f"{begun[0] / missing}.ckpt: no such file; a separator's checkpoint is encoder.ckpt, "
            "masknet.ckpt and decoder.ckpt"
        )
    raise FileNotFoundError(
        f"{folder}: holds no separator: neither encoder.ckpt, masknet.ckpt and decoder.ckpt nor "
        "folders save/CKPT+... with them"
    )


def read_weights(place):
    """The state dict of a :class:`modules.separation.separator.SeparationNetwork` from the three files of a folder.

    Raises
    ------
    ValueError
        If a file is damaged, or holds anything but named tensors.
    """
    weights = {}
    for part in PARTS:
        file = Path(place) / f"{part}.ckpt"
        with open(file, "rb") as opened:
            if opened.read(len(_LFS)) == _LFS:
                raise ValueError(
                    f"{file}: is a pointer of Git LFS and not the weights; fetch them with `git lfs pull`"
                )
        content = read_tensors(file)
        if not isinstance(content, dict) or not all(
            isinstance(value, torch.Tensor) for value in content.values()
        ):
            raise ValueError(f"{file}: holds no weights by name; is it a separator's {part}?")
        weights |= {f"{part}.{name}": value for name, value in content.items()}
    return weights


def describe(weights, scalars, place, defaults=()):
    """Read a separator's sizes off its weights.

    Arguments
    ---------
    weights : dict of str to torch.Tensor
        State dict with the prefixes ``encoder.``, ``masknet.`` and ``decoder.``.
    scalars : dict
        Of :func:`mamba_speech.plain_yaml.read_scalars`; what shapes do not tell.
    place : str or Path
        Named in errors.
    defaults : tuple of str
        Options that are known to have their published values; they do not count as assumed.

    Returns
    -------
    Description

    Raises
    ------
    ValueError
        If the weights are of no network known here, a value has another type than it must, or the weights
        contradict it.
    """
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    reader = _Reader(shapes, scalars, defaults)
    try:
        channels, _, kernel_size = shapes["encoder.conv1d.weight"]
        if "masknet.layer_norm.gamma" in shapes:
            masknet, arguments = "MaskNet", reader.mask_net()
        elif f"{_DUAL}.0.intra_mdl.layers.0.mixer.A_log" in shapes:
            masknet, arguments = "DPMambaMaskNet", reader.dual_path_mamba()
        elif f"{_DUAL}.0.intra_mdl.mdl.layers.0.norm1.norm.weight" in shapes:
            masknet, arguments = "SepFormerMaskNet", reader.sepformer()
        else:
            raise KeyError(
                next((name for name in shapes if name.startswith("masknet.")), "masknet")
            )
        sample_rate = reader.option("sample_rate")
    except TypeError as error:
        raise ValueError(f"{place}: {error}") from error
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{place}: is of no separator known here, which are Mamba-TasNet, dual-path Mamba and SepFormer "
            f"(looking at {error})"
        ) from error
    _check_told(scalars, masknet, arguments | {"kernel_size": kernel_size}, place)
    arguments["fidelity"] = scalars.get("fidelity") or "corrected"
    return Description(channels, kernel_size, sample_rate, masknet, arguments, reader.assumed)


def _check_told(scalars, masknet, arguments, place):
    """Refuse weights beside a YAML of another model, which would be loaded and compute something else."""
    kernel_size = arguments["kernel_size"]
    held = {"kernel_size": kernel_size, "kernel_stride": kernel_size // 2} | _FIXED[masknet]
    for name, aliases in _TOLD_TWICE.items():
        if name in arguments:
            held |= dict.fromkeys(aliases, arguments[name])
    for name, value in held.items():
        told = scalars.get(name)
        if told is not None and told != value:
            raise ValueError(
                f"{place}: {name} is {shorten(told)} in its {OPTIONS_FILE}, and its weights are of a {masknet} with "
                f"{value!r}; the two are not of one model"
            )


def load_strictly(description, weights, place):
    """Build the network and give it the weights; every name and shape must fit.

    Raises
    ------
    ValueError
        If they do not; the first misfit is named.
    """
    try:
        network = description.build()
        if description.masknet == "SepFormerMaskNet":
            # the sinusoids may have been left out: they are the same in every network
            own = {k: v for k, v in network.state_dict().items() if k.endswith("pos_enc.pe")}
            weights = own | weights
        network.load_state_dict(weights, strict=True)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(
            f"{place}: its weights are not those of a {description.masknet} as published ({reason})"
        ) from error
    return network.eval().requires_grad_(False)


_DUAL = "masknet.dual_mdl"


class _Reader:
    """Arguments of the mask nets from shapes, and from scalars where shapes do not tell."""

    def __init__(self, shapes, scalars, defaults=()):
        self.shapes, self.scalars, self.defaults = shapes, scalars, defaults
        self.assumed = {}

    def option(self, name, default=None):
        """A value that shapes do not tell."""
        names, published = _UNTOLD[name]
        value = next(
            (self.scalars[one] for one in names if self.scalars.get(one) is not None), None
        )
        default = published if default is None else default
        if value is None:
            if name not in self.defaults:
                self.assumed[name] = default
            return default
        if type(value) is not type(default):
            raise TypeError(
                f"{name} is {shorten(value)} in its {OPTIONS_FILE}, and must be like {default!r}"
            )
        return value

    def mask_net(self):
        channels = self.shapes["masknet.layer_norm.gamma"][-1]
        bottleneck = self.shapes["masknet.bottleneck_conv1x1.conv.weight"][0]
        return {
            "enc_dim": channels,
            "bot_dim": bottleneck,
            "n_spk": self.shapes["masknet.mask_conv1x1.conv.weight"][0] // channels,
            "mask_nonlinear": self.option("mask_nonlinear"),
            **self._stack("masknet.mamba_net"),
        }

    def dual_path_mamba(self):
        sizes = self._dual_path()
        # the published L and M, of 16 dual blocks, go around the intra model, S and XS of 8 do not
        around = self.option("skip_around_intra", sizes["num_layers"] >= 16)
        return {
            **sizes,
            "skip_around_intra": around,
            "skip_n_block": self.option("skip_n_block"),
            **self._stack(f"{_DUAL}.0.intra_mdl"),
        }

    def sepformer(self):
        return {
            **self._dual_path(),
            "intra_layers": self._count(f"{_DUAL}.0.intra_mdl.mdl.layers"),
            "inter_layers": self._count(f"{_DUAL}.0.inter_mdl.mdl.layers"),
            "nhead": self.option("nhead"),
            "d_ffn": self.shapes[f"{_DUAL}.0.intra_mdl.mdl.layers.0.pos_ffn.ffn.0.weight"][0],
            "skip_around_intra": self.option("skip_around_intra", True),
        }

    def _dual_path(self):
        out_channels, in_channels, _ = self.shapes["masknet.conv1d.weight"]
        return {
            "num_spks": self.shapes["masknet.conv2d.weight"][0] // out_channels,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "num_layers": self._count(_DUAL),
            "K": self.option("chunk_size"),
        }

    def _stack(self, prefix):
        mixer = f"{prefix}.layers.0.mixer"
        inner, d_state = self.shapes[f"{mixer}.A_log"]
        d_model = self.shapes[f"{mixer}.out_proj.weight"][0]
        return {
            "n_mamba": self._count(f"{prefix}.layers"),
            "bidirectional": f"{mixer}.A_b_log" in self.shapes,
            "d_state": d_state,
            "expand": inner // d_model if inner % d_model == 0 else inner / d_model,
            "d_conv": self.shapes[f"{mixer}.conv1d.weight"][-1],
            "rms_norm": f"{prefix}.norm_f.bias" not in self.shapes,
            "dt_bc_norm": any(name.startswith(f"{mixer}.dt_norm") for name in self.shapes),
        }

    def _count(self, prefix):
        """How many numbered children there are under a name."""
        start = f"{prefix}."
        return len(
            {
                name.removeprefix(start).partition(".")[0]
                for name in self.shapes
                if name.startswith(start)
            }
        )


def _options_file(place):
    """The YAML that belongs to a checkpoint's folder: in it, or in its run's."""
    folders = [place]
    if place.name.startswith("CKPT+"):
        folders += [place.parent, place.parent.parent]
    files = (folder / OPTIONS_FILE for folder in folders)
    return next((file for file in files if file.is_file()), None)


def _rank(place):
    """Sorts checkpoints: by validation loss where it is known, then the newest."""
    meta = read_meta(place) or {}
    loss = next((meta[name] for name in LOSSES if isinstance(meta.get(name), float)), float("inf"))
    saved = meta.get("unixtime")
    return loss, -float(saved) if isinstance(saved, int | float) else 0.0

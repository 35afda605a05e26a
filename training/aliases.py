"""Names that published recipes give to options, and the names of these options here."""

import json
from typing import NamedTuple

_MAMBA_ASR_S2S = "xi-j/Mamba-ASR, hparams/S2S"
_MAMBA_ASR_CTC = "xi-j/Mamba-ASR, hparams/CTC"
_MAMBA_TASNET = "xi-j/Mamba-TasNet, hparams/WSJ0Mix"
_MAMBA_ASR_FORK = "mattmireles/Mamba-ASR, README"
_KWS_MAMBA = "Zig302/KWS-Mamba-Project, src/kws_mamba"
_SPEECHBRAIN_SV = "SpeechBrain, recipes/VoxCeleb/SpeakerRec"


class Alias(NamedTuple):
    """The option that another name means, and where that name comes from."""

    option: str
    source: str


# each works where the YAML has the option and no key of the other name
ALIASES = {
    "lr_adam": Alias("lr", _MAMBA_ASR_S2S),
    "transformer_dropout": Alias("dropout", _MAMBA_ASR_S2S),
    "batch_ordering": Alias("sorting", _MAMBA_ASR_S2S),
    "lr_model": Alias("lr", _MAMBA_ASR_CTC),
    "max_batch_len_val": Alias("max_batch_length_val", _MAMBA_ASR_CTC),
    "N_epochs": Alias("number_of_epochs", _MAMBA_TASNET),
    "clip_grad_norm": Alias("max_grad_norm", _MAMBA_TASNET),
    "n_warmup_step": Alias("n_warmup_steps", _MAMBA_TASNET),
    "percent_lr": Alias("lr_floor", _MAMBA_TASNET),
    "n_mamba": Alias("num_layers", _MAMBA_TASNET),
    "ssm_dim": Alias("d_state", _MAMBA_TASNET),
    "mamba_expand": Alias("expand", _MAMBA_TASNET),
    "mamba_conv": Alias("d_conv", _MAMBA_TASNET),
    "eval_only": Alias("skip_train", _MAMBA_TASNET),
    "epochs": Alias("number_of_epochs", _KWS_MAMBA),
    "base_lr": Alias("lr", _KWS_MAMBA),
    "warmup_frac": Alias("warmup_fraction", _KWS_MAMBA),
    "n_layers": Alias("num_layers", _KWS_MAMBA),
    "n_heads": Alias("nhead", _KWS_MAMBA),
    "save_dir": Alias("save_folder", _KWS_MAMBA),
    "emb_dim": Alias("embedding_size", _SPEECHBRAIN_SV),
    "sentence_len": Alias("crop_seconds", _SPEECHBRAIN_SV),
    "verification_file": Alias("trials", _SPEECHBRAIN_SV),
    "learning_rate": Alias("lr", "Hugging Face Transformers, TrainingArguments"),
}

# parts of an option that is a mapping: each is one key of it
PARTS = {"wandb_project": (Alias("wandb_options", _MAMBA_ASR_FORK), "project")}


def name_here(name, known):
    """The option that a name means, which may be a published one.

    Arguments
    ---------
    name : str
    known : collection of str
        Keys of the YAML.

    Returns
    -------
    str
        The name itself, if it is no published name of one of these keys.

    Example
    -------
    >>> name_here("lr_adam", {"lr"}), name_here("lr_adam", {"lr", "lr_adam"}), name_here("seed", {"lr"})
    ('lr', 'lr_adam', 'seed')
    """
    alias = PARTS[name][0] if name in PARTS else ALIASES.get(name)
    return alias.option if alias and name not in known and alias.option in known else name


def value_here(name, option, text):
    """The text of an option's value under its name here.

    Arguments
    ---------
    name, option : str
        The name that was typed, and the name here; see :func:`name_here`.
    text : str
        The value that was typed.

    Returns
    -------
    str

    Example
    -------
    >>> value_here("wandb_project", "wandb_options", "my speech"), value_here("lr_adam", "lr", "0.1")
    ('{"project": "my speech"}', '0.1')
    """
    if name in PARTS and option != name:
        return json.dumps({PARTS[name][1]: text})
    return text

"""SpeechBrain's run options, declared in the same way as a recipe's."""

from typing import Annotated, Literal

from pydantic import Field
from speechbrain.utils.run_opts import HELP_TEXTS, RunOptions

from training.option_schema import Count, Natural, Options, Path, Text, Words, option

Device = Annotated[
    str,
    Field(pattern=r"^(cpu|(cuda|mps|xpu|hpu)(:[0-9]+)?)$"),
    Words("a device such as cpu, cuda or cuda:1"),
]
Precision = Literal["fp32", "bf16", "fp16"]
_TYPES = {
    "debug_batches": Count,
    "debug_epochs": int,
    "log_config": Path,
    "device": Device,
    "distributed_backend": Literal["nccl", "gloo", "mpi"],
    "compile_mode": Literal["default", "reduce-overhead", "max-autotune"],
    "precision": Precision,
    "eval_precision": Precision,
    "max_grad_norm": float,
    "nonfinite_patience": Natural,
    "ckpt_interval_minutes": float,
    "ckpt_interval_steps": int,
    "grad_accumulation_factor": Count,
    "optimizer_step_limit": Count,
    "profile_warmup": Natural,
    "profile_steps": Count,
    "jit_module_keys": list[Text],
    "compile_module_keys": list[Text],
}
_HELP = HELP_TEXTS | {
    "jit_module_keys": "Names in modules that torch.jit compiles.",
    "compile_module_keys": "Names in modules that torch.compile compiles.",
}


def _declare():
    defaults = RunOptions()
    kinds = {name: _TYPES.get(name, bool) for name in _HELP if hasattr(defaults, name)}
    fields = {"__annotations__": kinds, "__module__": __name__}
    fields["__doc__"] = "SpeechBrain's run options; see its class of the same purpose."
    return type(Options)(
        "SpeechBrainOptions",
        (Options,),
        fields | {name: option(_HELP[name]) for name in kinds},
    )


SpeechBrainOptions = _declare()
RUN_OPTIONS = frozenset(SpeechBrainOptions.model_fields)


def make_run_options(file, values):
    """SpeechBrain's run options of a command line.

    Arguments
    ---------
    file : str
        The YAML.
    values : dict
        Values of the options that were given, by name.

    Returns
    -------
    speechbrain.utils.run_opts.RunOptions
    """
    return RunOptions(**values, param_file=file, overridden_args=set(values))

"""Settings of the service: a YAML file, environment variables over it, and the command line over both."""

import os
import re
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

# a setting `queue_size` is also the variable MAMBA_SPEECH_QUEUE_SIZE
PREFIX = "MAMBA_SPEECH_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Settings(BaseModel):
    """What the service serves, and its limits.

    Attributes
    ----------
    models : dict of str to str
        Run folder or exported folder of each name.
    host : str
    port : int
    page : bool
        Whether ``/`` is a page to try the models in.
    api_keys : list of SecretStr
        Keys of which a client must give one; none: no key is asked for.
    device : str or None
    threads : int or None
        Threads of a model's computations.
    max_upload_mb, max_seconds : float
        Largest body of a request, and longest recording.
    request_seconds, stream_idle_seconds, stream_seconds : float
        Longest time of an answer, of a stream without a message, and of a stream.
    queue_size : int
        Requests of a model that may wait; one more gets status 429.
    max_streams : int
        Streams at once.
    batch_seconds : float
        Audio of a batch, padding included.
    batch_wait_ms : float
        Time that a request waits for others when its model is idle.
    decoders : int
        Processes that decode uploads.
    decoder_memory_mb, decoder_seconds : float
        Limits of a decoder's process.
    """

    model_config = ConfigDict(extra="forbid")

    models: dict[str, str] = {}
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    page: bool = False
    api_keys: list[SecretStr] = []
    device: str | None = None
    threads: _Count | None = None
    max_upload_mb: _Positive = 100.0
    max_seconds: _Positive = 3600.0
    request_seconds: _Positive = 300.0
    stream_idle_seconds: _Positive = 60.0
    stream_seconds: _Positive = 7200.0
    queue_size: _Count = 64
    max_streams: _Count = 16
    batch_seconds: _Positive = 60.0
    batch_wait_ms: Annotated[float, Field(ge=0, le=10_000)] = 5.0
    decoders: _Count = 2
    decoder_memory_mb: _Positive = 2048.0
    decoder_seconds: _Positive = 60.0

    @field_validator("models")
    @classmethod
    def _named_well(cls, models):
        for name in models:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"the name {name!r} must be of letters, digits, dots, dashes and underscores"
                )
        return models

    @field_validator("api_keys")
    @classmethod
    def _no_empty_key(cls, keys):
        if any(not key.get_secret_value() for key in keys):
            raise ValueError("a key must not be empty")
        return keys

    def shown(self):
        """The settings as lines of text, without keys."""
        told = self.model_dump() | {"api_keys": f"{len(self.api_keys)} keys"}
        return "\n".join(f"{name}: {value}" for name, value in told.items())


def read_settings(file=None, environment=None, **given):
    """Settings from a file, from the environment, and from arguments; the later ones win.

    Arguments
    ---------
    file : str or Path, optional
        YAML. Folders in ``models`` are relative to it.
    environment : mapping, optional
        By default the process's. ``MAMBA_SPEECH_API_KEYS`` holds keys with commas between them, and
        ``MAMBA_SPEECH_MODELS`` pairs ``name=folder``.
    **given
        Settings by name; those that are None do not count.

    Returns
    -------
    Settings

    Raises
    ------
    ValueError
        If the file cannot be read, or a setting is unknown or out of its range. The error names it.

    Example
    -------
    >>> read_settings(environment={"MAMBA_SPEECH_PORT": "9000"}).port
    9000
    """
    values, sources = {}, {}
    if file is not None:
        values = _of_file(Path(file))
        sources = dict.fromkeys(values, str(file))
    for name, text in _of_environment(os.environ if environment is None else environment):
        values[name], sources[name] = text, PREFIX + name.upper()
    for name, value in given.items():
        if value is not None:
            values[name], sources[name] = value, f"--{name}"
    try:
        return Settings(**values)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        name = str(fault["loc"][0])
        if fault["type"] == "extra_forbidden":
            known = ", ".join(Settings.model_fields)
            raise ValueError(
                f"{sources.get(name, file)}: {name} is no setting; the settings are {known}"
            ) from None
        raise ValueError(f"{sources.get(name, name)}: {name}: {fault['msg']}") from None


def _of_file(file):
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}; give a YAML file of settings") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{file}: is no YAML ({' '.join(str(error).split())[:200]})") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(  # noqa: TRY004 - a file's content is a value to its user
            f"{file}: must hold settings, a line each, such as port: 8000"
        )
    models = values.get("models")
    if isinstance(models, dict):
        folders = {name: str(file.parent / str(one)) for name, one in models.items()}
        values = values | {"models": {str(name): one for name, one in folders.items()}}
    return values


def _of_environment(environment):
    for name in Settings.model_fields:
        text = environment.get(PREFIX + name.upper())
        if text is None:
            continue
        if name == "api_keys":
            yield name, [one for one in text.split(",") if one]
        elif name == "models":
            yield name, dict(_pair(one) for one in text.split(",") if one)
        else:
            yield name, text


def _pair(text):
    name, equals, folder = text.partition("=")
    if not equals:
        raise ValueError(f"{PREFIX}MODELS: {text!r} is not name=folder")
    return name.strip(), folder.strip()

"""The models that are served: loaded once, each with a queue and a thread."""

import io
import zipfile
from dataclasses import dataclass

import soundfile
import torch

from mamba_speech.asr.live import LiveRecognizer
from mamba_speech.asr.recognizer import Recognizer
from mamba_speech.kws.spotter import KeywordSpotter
from mamba_speech.run_task import KEYWORDS, RECOGNITION, SEPARATION, SPEAKER, STREAMING, task_of
from mamba_speech.separation.separator import Separator
from mamba_speech.serving.batching import Batcher
from mamba_speech.serving.errors import ServiceError, unusable
from mamba_speech.speaker.verifier import SpeakerVerifier

LOADERS = {
    RECOGNITION: Recognizer,
    STREAMING: Recognizer,
    SEPARATION: Separator,
    KEYWORDS: KeywordSpotter,
    SPEAKER: SpeakerVerifier,
}
# what a path answers with
TASKS_OF_PATHS = {
    "transcribe": (RECOGNITION, STREAMING),
    "separate": (SEPARATION,),
    "spot": (KEYWORDS,),
    "verify": (SPEAKER,),
    "embed": (SPEAKER,),
    "stream": (STREAMING, KEYWORDS),
}
# what errors of waveforms begin with
_NAME = "the waveform: "


@dataclass
class ServedModel:
    """A model, what it does, and its queue.

    Attributes
    ----------
    name : str
    task : str
        See :func:`mamba_speech.run_task.task_of`.
    model : object
        An object of this package's public classes.
    live : mamba_speech.asr.live.LiveRecognizer or None
        The same run for streams.
    batcher : mamba_speech.serving.batching.Batcher
    sample_rate : int
    """

    name: str
    task: str
    model: object
    live: object
    batcher: Batcher
    sample_rate: int

    async def ask(self, kind, item, seconds):
        """The answer to one request.

        Arguments
        ---------
        kind : str or tuple
            ``transcribe`` with whether words are wanted, ``separate``, ``verify``, ``embed``, or ``spot`` with a
            threshold.
        item : torch.Tensor or tuple of torch.Tensor
            A waveform (samples,) at ``sample_rate``; two of them for ``verify``.
        seconds : float

        Raises
        ------
        ServiceError
        """
        return await self.batcher.submit(item, seconds, kind)


def load_models(settings, observe):
    """Load every model of the settings.

    Arguments
    ---------
    settings : mamba_speech.serving.settings.Settings
    observe : callable
        Called with a model's name, the requests of a batch and its seconds.

    Returns
    -------
    dict of str to ServedModel

    Raises
    ------
    FileNotFoundError, RuntimeError, ValueError
        If a folder holds no model, or cannot be loaded.
    """
    if not settings.models:
        raise ValueError(
            "there is no model to serve: give run folders, or a file of settings with models"
        )
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return {
        name: _load(name, folder, settings, observe) for name, folder in settings.models.items()
    }


def _load(name, folder, settings, observe):
    task = task_of(folder)
    if task is None:
        raise ValueError(
            f"{folder}: holds no model that can be served: give the output folder of a training"
        )
    model = LOADERS[task].load(folder, settings.device)
    live = LiveRecognizer.load(folder, settings.device) if task == STREAMING else None
    rate = model.sample_rate

    def answer(kind, items):
        return _answer(model, rate, kind, items)

    batcher = Batcher(
        answer,
        settings.queue_size,
        settings.batch_seconds,
        settings.batch_wait_ms,
        lambda count, seconds: observe(name, count, seconds),
    )
    return ServedModel(name, task, model, live, batcher, rate)


def choose_model(models, path, name=None):
    """The model that answers a path.

    Arguments
    ---------
    models : dict of str to ServedModel
    path : str
        A key of :data:`TASKS_OF_PATHS`.
    name : str, optional
        The model's; by default the first that fits.

    Raises
    ------
    ServiceError
        With status 404 if there is none, or the named one does something else.
    """
    tasks = TASKS_OF_PATHS[path]
    fitting = [model for model in models.values() if model.task in tasks]
    names = ", ".join(model.name for model in fitting) or "none"
    if name is None:
        if not fitting:
            raise ServiceError(404, "no_model", f"no model of this service answers /{path}")
        return fitting[0]
    if name not in models:
        raise ServiceError(
            404, "model_not_found", f"there is no model {name!r}; for /{path} there is {names}"
        )
    if models[name].task not in tasks:
        raise ServiceError(
            404, "wrong_model", f"the model {name!r} does not answer /{path}; {names} does"
        )
    return models[name]


def _answer(model, rate, kind, items):
    """Results of a batch, in its order; an exception in place of a result."""
    what, *options = kind
    if what == "transcribe":
        found = model.transcribe(items, rate, word_times=options[0])
    elif what == "verify":
        return [_guarded(_verify, model, rate, pair) for pair in items]
    elif what == "embed":
        found = model.embed(items, rate)
    elif what == "spot":
        found = model.spot(items, rate, threshold=options[0])
    else:
        found = model.separate(items, rate)
    return [_checked(one) for one in found]


def _verify(model, rate, pair):
    first, second = pair
    return model.verify(first, second, rate)


def _guarded(function, *arguments):
    try:
        return function(*arguments)
    except (RuntimeError, ValueError) as error:
        return unusable(str(error).removeprefix(_NAME))


def _checked(result):
    return unusable(result.error.removeprefix(_NAME)) if result.error else result


def zipped(separation):
    """A ZIP file (bytes) with a WAV file of 16 bits for each speaker: ``speaker1.wav`` and so on."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for number, source in enumerate(separation.sources.T.numpy(), 1):
            file.writestr(f"speaker{number}.wav", as_wav(source, separation.sample_rate))
    return archive.getvalue()


def as_wav(samples, sample_rate):
    """A WAV file (bytes) of 16 bits.

    Example
    -------
    >>> import numpy as np
    >>> as_wav(np.zeros(8), 8000)[:4]
    b'RIFF'
    """
    file = io.BytesIO()
    soundfile.write(file, samples.clip(-1, 1), sample_rate, "PCM_16", format="WAV")
    return file.getvalue()

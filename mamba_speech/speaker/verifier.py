"""Speaker verification with a trained run: one speaker or two, embeddings, and who of the known speakers it is."""

from pathlib import Path

import torch

from mamba_speech.checkpoints import CompleteCheckpoints
from mamba_speech.device import choose_device
from mamba_speech.recordings import each_result, one_or_each, recordings_of
from mamba_speech.run import OPTIONS_FILE, given_folder, load_run, load_weights, read_options
from mamba_speech.run_errors import names_run
from mamba_speech.speaker.database import SpeakerDatabase, enroll
from mamba_speech.speaker.embedding import (
    Embedding,
    embed_recording,
    embed_recordings,
    model_hash,
    similarity,
)
from mamba_speech.speaker.results import Identification, Similarity, Verification
from mamba_speech.speaker.threshold import given_threshold, read_threshold

WANTED = ["sample_rate", "threshold_file"]
# of the validation: on trials, or of classes
SELECTION_KEYS = ("EER", "error")
# what every speaker model has
INTERFACE = ("embedding_size", "crop_samples", "min_samples", "sample_rate")


class SpeakerVerifier:
    """A trained speaker model: :meth:`load` a run, then :meth:`verify`, :meth:`embed` or :meth:`identify`.

    Arguments
    ---------
    model : torch.nn.Module
        Maps waveforms and counts of samples to embeddings, see :mod:`modules.speaker`.
    threshold : mamba_speech.speaker.threshold.Threshold, optional
    device : torch.device

    Attributes
    ----------
    model : torch.nn.Module
    sample_rate : int
        Samples a second that the model takes; recordings of another rate are resampled.
    threshold : mamba_speech.speaker.threshold.Threshold or None
        With ``value`` and ``source``; None if the run has none, which leaves scores without decisions.

    Example
    -------
    Not run here, since it needs a trained run::

        verifier = SpeakerVerifier.load("results/mamba_fbank/1")
        print(verifier.verify("a.wav", "b.wav").same)
    """

    def __init__(self, model, threshold=None, device=None):
        self.device = choose_device(device)
        self.model, self.threshold = model.to(self.device).eval(), threshold
        self.sample_rate = model.sample_rate
        self._hash = None

    @classmethod
    @names_run
    def load(cls, run, device=None, threshold=None):
        """The verifier of a run.

        Arguments
        ---------
        run : str or Path
            Output folder of a run of the speaker recipe, wherever it lies now.
        device : str or torch.device, optional
            A CUDA device if there is one, else the CPU.
        threshold : float, optional
            Another threshold than the run's.

        Raises
        ------
        FileNotFoundError, ValueError
            If the run cannot be loaded, see :func:`mamba_speech.run.load_run`, or its threshold not be read.
        RuntimeError
            If the device is not there.
        """
        device = choose_device(device)
        options = load_run(run, WANTED, selection_key=SELECTION_KEYS)
        return cls(*_model_and_threshold(run, options, threshold), device)

    @classmethod
    @names_run
    def load_from_checkpoint(cls, path, device=None):
        """The verifier with the weights of one checkpoint of a run, in place of the average that the run tested.

        Arguments
        ---------
        path : str or Path
            A checkpoint's folder, or its ``model.ckpt``, where they lie in the run. The run's own folder stands for
            :meth:`load`.
        device : str or torch.device, optional
            See :meth:`load`.

        Raises
        ------
        FileNotFoundError, ValueError
            If it is no checkpoint of a run, or cannot be loaded.
        RuntimeError
            If the device is not there.
        """
        path = given_folder(path)
        if (path / OPTIONS_FILE).is_file():
            return cls.load(path, device)
        device = choose_device(device)
        checkpoint = _find_checkpoint(path)
        run = next(
            (one for one in checkpoint.path.parents if (one / OPTIONS_FILE).is_file()),
            None,
        )
        if run is None:
            raise FileNotFoundError(
                f"{path}: no folder above it holds {OPTIONS_FILE}; give a checkpoint within its run"
            )
        options = read_options(run, ["model", *WANTED])
        threshold = _model_and_threshold(run, options)[1]
        load_weights(run, options, [checkpoint])
        return cls(options["model"], threshold, device)

    @property
    def weights_hash(self):
        """A text that tells this model's embeddings from others, see :func:`.embedding.model_hash`."""
        if self._hash is None:
            self._hash = model_hash(self.model)
        return self._hash

    def embed(self, audio, sample_rate=None):
        """The embedding of one recording or many.

        Arguments
        ---------
        audio, sample_rate
            See :func:`mamba_speech.recordings.recordings_of`. Files are read piece by piece, so that length takes no
            memory.

        Returns
        -------
        result : Embedding or iterator of Embedding
            For many recordings, an iterator in their order. An unusable recording gives a result with ``error``, and
            the others go on.

        Raises
        ------
        mamba_speech.audio.AudioError
            If a single recording is no usable audio, or holds less than half a second of speech.
        ValueError
            If a waveform has no sample rate.
        """
        recordings, many = recordings_of(audio, sample_rate)
        return one_or_each(embed_recordings(self.model, recordings), many)

    def verify(self, enrolment, audio, sample_rate=None, threshold=None):
        """Say whether one recording, or each of many, is of the same speaker as another one.

        Arguments
        ---------
        enrolment : str, Path, numpy.ndarray, torch.Tensor or Embedding
            One recording, or what :meth:`embed` gave for it.
        audio
            One recording or many to compare with it, see :meth:`embed`; an Embedding too.
        sample_rate : int, optional
            Of all waveforms.
        threshold : float, optional
            Another threshold than the verifier's.

        Returns
        -------
        result : Verification or iterator of Verification
            As of :meth:`embed`. The two recordings may change places: the score is the same to the last bit.

        Raises
        ------
        mamba_speech.audio.AudioError
            If the enrolment, or a single recording, cannot be used; see :meth:`embed`.
        ValueError
            If a waveform has no sample rate, or the enrolment is many recordings.
        """
        reference = self._one(enrolment, sample_rate)
        limit = self._threshold(threshold)

        def verify(found):
            return self.compare(reference, found, limit)

        if isinstance(audio, Embedding):
            return verify(self._one(audio))
        recordings, many = recordings_of(audio, sample_rate)
        return one_or_each(map(verify, embed_recordings(self.model, recordings)), many)

    def compare(self, enrolment, found, threshold=None):
        """The verification of two embeddings; an error of either is its error.

        Arguments
        ---------
        enrolment, found : Embedding
        threshold : mamba_speech.speaker.threshold.Threshold, optional
            The verifier's by default.

        Returns
        -------
        Verification
        """
        limit = threshold or self.threshold
        names = {**found.place(), "enrolment": enrolment.path, "seconds": found.seconds}
        # each once: a recording may be compared with itself
        names["warnings"] = tuple(dict.fromkeys((*found.warnings, *enrolment.warnings)))
        error = enrolment.error or found.error
        if error:
            return Verification(**names, error=error)
        score = similarity(enrolment.vector, found.vector)
        if limit is None:
            return Verification(**names, score=score)
        decision = {"threshold": limit.value, "threshold_source": limit.source}
        return Verification(**names, score=score, same=score > limit.value, **decision)

    def verify_speakers(self, audio1, audio2, sample_rate=None):
        """The similarity of two recordings, as the published Python interface has it.

        Arguments
        ---------
        audio1, audio2
            One recording each.
        sample_rate : int, optional
            Of waveforms.

        Returns
        -------
        Similarity
            A tuple of ``similarity``, from -1 to 1, and ``same``, which is None for a run without a threshold.

        Raises
        ------
        mamba_speech.audio.AudioError, ValueError
            As :meth:`verify`.
        """
        found = self.compare(self._one(audio1, sample_rate), self._one(audio2, sample_rate))
        return Similarity(found.score, found.same)

    def enroll(self, name, audio, database, sample_rate=None, *, replace=False, threshold=None):
        """Add one recording or many of a speaker to a database, which is made if it is not there.

        Arguments
        ---------
        name : str
            Of the speaker.
        audio, sample_rate
            See :meth:`embed`.
        database : str or Path
            A JSON file. Another process may write to it at the same time.
        replace : bool
            Removal of the recordings that the name has so far; by default they stay, and the new ones add up.
        threshold : float, optional
            Threshold of the database from now on. A new one has the verifier's by default.

        Returns
        -------
        result : Embedding or list of Embedding
            Those with an ``error`` were left out. If all were, the database stays as it was.

        Raises
        ------
        mamba_speech.audio.AudioError
            If a single recording cannot be used; see :meth:`embed`.
        OSError, ValueError
            If the name cannot be one, or the database is damaged, of another model, or cannot be written.
        """
        found = self.embed(audio, sample_rate)
        found = found if isinstance(found, Embedding) else list(found)
        embeddings = [found] if isinstance(found, Embedding) else found
        limit = self.threshold.value if self.threshold else None
        enroll(database, name, embeddings, self.weights_hash, limit, threshold, replace)
        return found

    def identify(self, audio, database, sample_rate=None, threshold=None):
        """Say which known speaker is heard in one recording, or in each of many, or that it is none of them.

        Arguments
        ---------
        audio, sample_rate
            See :meth:`embed`.
        database : mamba_speech.speaker.database.SpeakerDatabase, str or Path
        threshold : float, optional
            Another threshold than the database's.

        Returns
        -------
        result : Identification or iterator of Identification
            As of :meth:`embed`.

        Raises
        ------
        mamba_speech.audio.AudioError
            If a single recording cannot be used; see :meth:`embed`.
        FileNotFoundError, ValueError
            If the database is missing, damaged, empty, or of another model, or there is no threshold.
        """
        if not isinstance(database, SpeakerDatabase):
            database = SpeakerDatabase.read(database)
        database.check_model(self.weights_hash)
        database.check_voices()
        database.check_size(self.model.embedding_size)
        limit = database.limit(threshold)

        def identify(recording):
            found = embed_recording(self.model, recording)
            ranking = database.rank(found.vector)
            name, score = ranking[0]
            return Identification(
                path=found.path,
                seconds=found.seconds,
                speaker=name if score > limit else None,
                score=score,
                threshold=limit,
                ranking=ranking,
            )

        recordings, many = recordings_of(audio, sample_rate)
        return one_or_each(each_result(recordings, identify, Identification), many)

    def _one(self, audio, sample_rate=None):
        """The embedding of one recording."""
        if isinstance(audio, Embedding):
            if audio.error:
                raise ValueError(f"the embedding holds an error: {audio.error}")
            return audio
        recordings, many = recordings_of(audio, sample_rate)
        if many:
            raise ValueError(f"one recording is compared with others; got many: {audio!r:.60}")
        return one_or_each(embed_recordings(self.model, recordings), many=False)

    def _threshold(self, given):
        return self.threshold if given is None else given_threshold(given)


def _model_and_threshold(run, options, given=None):
    """The speaker model among a run's options, and its threshold or the one given."""
    model, file = options["model"], Path(run) / OPTIONS_FILE
    if not isinstance(model, torch.nn.Module) or not all(hasattr(model, one) for one in INTERFACE):
        raise ValueError(
            f"{file}: its model gives no speaker embeddings; it is a run of another task"
        )
    if options["sample_rate"] != model.sample_rate:
        raise ValueError(
            f"{file}: sample_rate is {options['sample_rate']}, and its model reads {model.sample_rate} Hz"
        )
    if given is not None:
        return model, given_threshold(given)
    return model, read_threshold(options["threshold_file"])


def _find_checkpoint(path):
    """The checkpoint that a folder, or a file in it, is."""
    folder = (path if path.is_dir() else path.parent).absolute()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    checkpointer = CompleteCheckpoints(folder.parent)
    for checkpoint in checkpointer.list_checkpoints():
        if checkpoint.path.resolve() == folder.resolve():
            return checkpoint
    reason = checkpointer.damaged.get(folder)
    told = f", since {reason}" if reason else ""
    raise FileNotFoundError(
        f"{path}: is no whole checkpoint{told}; give a folder CKPT+... of a run, or the model.ckpt in it"
    )

"""Clips of one word each: bringing them to one length, what is heard before them, and changing them while training.

Source of the changes: the published training of KWS-Mamba (time shift, white noise, stretching) and Warden,
"Speech Commands" (arXiv 1804.03209), section 7.2 (background noise).
"""

import torch
from noises import generate_noise
from rooms import draw_between, draw_room, reverberate
from speechbrain.augment.time_domain import SpeedPerturb
from speechbrain.dataio.batch import PaddedBatch
from torch.nn import functional as F

from data_prep.keywords.clips import OTHER_SPEECH
from mamba_speech.audio import load_audio


def fit_length(waveform, samples):
    """Bring a clip to ``samples``: zeros on both sides of a shorter one, the middle of a longer one.

    Example
    -------
    >>> import torch
    >>> fit_length(torch.ones(2), 4).tolist(), fit_length(torch.arange(6), 4).tolist()
    ([0.0, 1.0, 1.0, 0.0], [1, 2, 3, 4])
    """
    missing = samples - len(waveform)
    before = missing // 2
    # a negative padding cuts
    return F.pad(waveform, (before, missing - before))


def draw_piece(noises, samples):
    """A random piece (samples,) of one of the recordings ``noises``; a shorter one is repeated."""
    noise = noises[int(torch.randint(len(noises), ()))]
    if len(noise) < samples:
        noise = noise.repeat(-(-samples // len(noise)))
    start = int(torch.randint(len(noise) - samples + 1, ()))
    return noise[start : start + samples]


class ClipReader:
    """Reads a clip at the model's rate.

    Arguments
    ---------
    sample_rate : int
        In Hz.
    samples : int
        Length of the longest clip; a longer one loses its ends.
    pad : bool
        Whether shorter clips are brought to that length too.
    """

    def __init__(self, sample_rate, samples, pad):
        self.sample_rate, self.samples, self.pad = sample_rate, samples, pad

    def __call__(self, wav, start, stop, change_speed=None):
        """The waveform (samples,) between two samples of a file, and its length."""
        waveform = load_audio(wav, self.sample_rate, int(start), int(stop))
        if change_speed is not None:
            waveform = change_speed(waveform)
        length = self.samples if self.pad else min(self.samples, len(waveform))
        return fit_length(waveform, length), length


class ChangedClipReader:
    """Reads a training clip, changes it, and puts before it what is heard there.

    Arguments
    ---------
    read : ClipReader
    augment : ClipAugmenter
    context : ContextSource, optional
        By default nothing precedes a clip.
    silence : silence.SilenceSource, optional
        By default clips of `_silence_` are read as they are.
    hard : hard_negatives.HardNegatives, optional
        Pieces that are read in place of some of the other speech.
    """

    def __init__(self, read, augment, context=None, silence=None, hard=None):
        self.read, self.augment, self.context = read, augment, context
        self.silence, self.hard = silence, hard

    def __call__(self, wav, start, stop, label, words):
        """The waveform (samples,), its length, the length of the context in it, and a number drawn from 0 to 1."""
        chance = float(torch.rand(()))
        if self.hard is not None and words == OTHER_SPEECH:
            wav, start, stop = self.hard.draw() or (wav, start, stop)
        waveform, length = self.read(wav, start, stop, self.augment.change_speed)
        ahead = 0 if self.context is None else self.context.length(length)
        before = None
        if self.silence is not None and label == self.silence.label:
            waveform, before = self.silence(waveform, ahead)
        if before is not None:
            # noise on it would leave no digital silence
            return torch.cat([before, waveform]), ahead + length, ahead, chance
        before = self.context(ahead) if ahead else torch.zeros(0)
        # noise and shift go over both, so that nothing tells where the clip begins
        waveform = self.augment(torch.cat([before, waveform]))
        return waveform, len(waveform), len(before), chance


class ContextSource:
    """What a causal network hears before a training clip: other speech, as along a stream.

    Trained on clips alone, the network begins each from an empty state; on a stream its state is full of what was said
    before.

    Arguments
    ---------
    sample_rate : int
    seconds : float
        Least length of the context. It is longer by up to a hop, so that context and clip end with a frame of the
        network, as every moment does at which a stream is classified.
    hop : int
        Samples of a frame of the network.
    speech : list of (str, int, int, float)
        Pieces of recordings of other speech: file, first sample, end, seconds.
    noises : list of torch.Tensor
        Noise recordings, (samples,) each, for the context if there is no other speech.
    hard : hard_negatives.HardNegatives, optional
        Pieces with which some of the contexts end.
    pause : float
        Seconds. Half of the contexts of speech end with a silence of up to so long, as before a command.

    Raises
    ------
    ValueError
        If an option is outside its range, or there is neither speech nor noise.

    Example
    -------
    >>> import torch
    >>> context = ContextSource(16000, 0.5, 1024, speech=[], noises=[torch.randn(16000)])
    >>> length = context.length(16000)
    >>> length, (length + 16000) % 1024, len(context(length))
    (8576, 0, 8576)
    """

    def __init__(self, sample_rate, seconds, hop, speech, noises, hard=None, pause=0.0):
        if seconds <= 0:
            raise ValueError(f"context_seconds must be 0 or more; got {seconds}")
        if not speech and not noises:
            raise ValueError(
                "context_seconds needs other speech or noise to take it from: set other_speech_percentage above 0, add "
                "_background_noise_ to the corpus, or set --context_seconds 0"
            )
        if not 0 <= pause < seconds:
            raise ValueError(
                f"context_pause must be from 0 to less than context_seconds {seconds}; got {pause}"
            )
        self.sample_rate, self.seconds, self.hop = sample_rate, seconds, hop
        self.pause = round(pause * sample_rate)
        self.speech, self.noises, self.hard = list(speech), list(noises), hard

    def length(self, samples):
        """How many samples the context of a clip of so many samples has."""
        whole = round(self.seconds * self.sample_rate) + samples
        return -(-whole // self.hop) * self.hop - samples

    def __call__(self, length):
        """A context of so many samples, (length,)."""
        if not self.speech:
            return draw_piece(self.noises, length)
        if self.pause and torch.rand(()) < 0.5:
            pause = int(torch.randint(self.pause + 1, ()))
            return F.pad(self._speech(length - pause), (0, pause))
        return self._speech(length)

    def _speech(self, length):
        piece = self.hard and self.hard.draw()
        if piece:
            path, start, stop = piece
            seconds = self.hard.seconds
        else:
            path, start, stop, seconds = self.speech[int(torch.randint(len(self.speech), ()))]
        # in samples of the file: it ends somewhere in the piece's second half
        wanted = round(length * (stop - start) / seconds / self.sample_rate)
        ahead = 0 if piece else int(torch.randint((stop - start) // 2 + 1, ()))
        start = max(0, stop - ahead - wanted)
        # a recording that is too short has silence before it
        heard = load_audio(path, self.sample_rate, start, start + wanted)
        heard = heard[-length:]
        return F.pad(heard, (length - len(heard), 0))


class ContextBatch:
    """Batches of training clips, some of them without what precedes the clips.

    A whole batch at a time, since clips of one length need no masks and train much faster. The first clip's ``chance``
    decides, so that the loader's workers do not matter.

    Arguments
    ---------
    silence : float
        Part of the batches that nothing precedes: their clips begin from an empty state, as a stream does, and as the
        clips of validation and test.
    epochs : speechbrain.utils.epoch_loop.EpochCounter, optional
        Counts the epochs of the training.
    from_epoch : int
        First epoch in which anything precedes clips. A network learns words faster alone.

    Raises
    ------
    ValueError
        If ``silence`` is no part.

    Example
    -------
    >>> import torch
    >>> items = [{"sig": torch.arange(5.0), "samples": 5, "context": 3, "chance": 0.9}]
    >>> batch = ContextBatch(silence=1.0)(items)
    >>> batch.sig.data.tolist(), batch.samples.tolist(), batch.context.tolist()
    ([[3.0, 4.0]], [2], [0])
    """

    def __init__(self, silence, epochs=None, from_epoch=1):
        if not 0 <= silence <= 1:
            raise ValueError(f"context_silence must be from 0 to 1; got {silence}")
        self.silence, self.epochs, self.from_epoch = silence, epochs, from_epoch

    def __call__(self, items):
        """A PaddedBatch of ``items``, as the data set yields them."""
        # workers begin anew in each epoch, so theirs is the present number; it is 0 outside a training
        early = self.epochs is not None and max(1, self.epochs.current) < self.from_epoch
        if early or items[0]["chance"] < self.silence:
            items = [
                item
                | {
                    "sig": item["sig"][item["context"] :],
                    "samples": item["samples"] - item["context"],
                    "context": 0,
                }
                for item in items
            ]
        return PaddedBatch(items)


class ClipAugmenter:
    """Shift, speed and noise for a training clip, drawn anew each time from torch's generator.

    Arguments
    ---------
    sample_rate : int
    shift_ms : float
        Largest shift to either side, in milliseconds; zeros move in.
    speed_changes : list of int
        Speeds in %; one speed is drawn. ``[100]`` changes none.
    white_noise_max : float
        Largest standard deviation of white noise, where full scale is 1.
    background_probability : float
        Part of the clips that get a piece of a noise recording.
    background_snr : (float, float)
        Lowest and highest ratio of the clip's energy to that piece's, in dB.
    background_generated : float
        Part of these pieces that is generated anew (:func:`noises.generate_noise`) in place of a recording's.
    reverberation_probability : float
        Part of the clips that are heard in a room.
    gain_db : (float, float)
        Lowest and highest change of the level of clip and noise together, in dB.
    noises : list of torch.Tensor
        Noise recordings, (samples,) each, longer than none.

    Raises
    ------
    ValueError
        If an option is outside its range, or background noise is wanted and there is none.
    """

    def __init__(
        self,
        sample_rate,
        shift_ms=0.0,
        speed_changes=(100,),
        white_noise_max=0.0,
        background_probability=0.0,
        background_snr=(0.0, 20.0),
        background_generated=0.0,
        reverberation_probability=0.0,
        gain_db=(0.0, 0.0),
        noises=(),
    ):
        if shift_ms < 0 or white_noise_max < 0 or not 0 <= background_probability <= 1:
            raise ValueError(
                "shift_ms and white_noise_max must be 0 or more and background_probability from 0 to 1; got "
                f"{shift_ms}, {white_noise_max} and {background_probability}"
            )
        if len(background_snr) != 2 or background_snr[0] > background_snr[1]:
            raise ValueError(
                f"background_snr must be the lowest and the highest ratio in dB; got {background_snr}"
            )
        if not 0 <= background_generated <= 1:
            raise ValueError(
                f"background_generated must be from 0 to 1; got {background_generated}"
            )
        if background_probability and background_generated < 1 and not noises:
            raise ValueError(
                "the corpus has no _background_noise_ folder with recordings: add one, set --background_probability 0, "
                "or --background_generated 1 for noises that are made"
            )
        if not speed_changes or min(speed_changes) <= 0:
            raise ValueError(f"speed_changes must be percentages above 0; got {speed_changes}")
        if not 0 <= reverberation_probability <= 1 or gain_db[0] > gain_db[1]:
            raise ValueError(
                "reverberation_probability must be from 0 to 1 and gain_db the lowest and the highest change; got "
                f"{reverberation_probability} and {gain_db}"
            )
        self.reverberation_probability, self.gain_db = reverberation_probability, tuple(gain_db)
        self.max_shift = round(shift_ms * sample_rate / 1000)
        speeds = list(speed_changes)
        self.perturb = None if speeds == [100] else SpeedPerturb(sample_rate, speeds)
        self.white_noise_max = white_noise_max
        self.background_probability, self.background_snr = background_probability, background_snr
        self.sample_rate, self.background_generated = sample_rate, background_generated
        self.noises = list(noises)

    def change_speed(self, waveform):
        """The clip at one of the speeds; its length changes."""
        return waveform if self.perturb is None else self.perturb(waveform[None])[0]

    def __call__(self, waveform):
        """Shift a clip (samples,) and add noise to it; its length stays."""
        waveform = self._shift(waveform)
        if self.reverberation_probability and torch.rand(()) < self.reverberation_probability:
            waveform = reverberate(waveform, draw_room(self.sample_rate))
        if self.background_probability and torch.rand(()) < self.background_probability:
            waveform = waveform + self._background(waveform)
        if self.white_noise_max:
            scale = self.white_noise_max * torch.rand(())
            waveform = waveform + scale * torch.randn(waveform.shape)
        if any(self.gain_db):
            waveform = waveform * 10 ** (draw_between(*self.gain_db) / 20)
        return waveform

    def _shift(self, waveform):
        if not self.max_shift:
            return waveform
        by = int(torch.randint(-self.max_shift, self.max_shift + 1, ()))
        # a clip may be shorter than the shift
        by = max(-len(waveform), min(len(waveform), by))
        # a negative padding cuts
        return F.pad(waveform, (by, -by))

    def _background(self, waveform):
        # nothing is drawn where there is nothing to choose: runs without the option stay what they were
        generated = self.background_generated
        if generated and (generated == 1 or torch.rand(()) < generated):
            piece = generate_noise(len(waveform), self.sample_rate)
        else:
            piece = draw_piece(self.noises, len(waveform))
        low, high = self.background_snr
        ratio = low + (high - low) * torch.rand(())
        energies = waveform.square().sum() / piece.square().sum().clamp(min=1e-10)
        return piece * (energies * 10 ** (-ratio / 10)).sqrt()

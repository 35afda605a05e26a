"""Training clips of the class `_silence_`: noise of many kinds and levels, and digital silence.

Crops of a corpus' few noise recordings, all at one level, leave a spotter free to ring at anything else.
"""

import torch

from data_prep.keywords.clips import SILENCE

# a computed clip's root mean square lies between these, in dB below full scale
LEVELS_DB = (-90.0, -6.0)
# a half of the computed clips goes on in what is heard before them
CONTINUED = 0.5


class SilenceSource:
    """Clips of `_silence_`: a crop of a noise recording at another level, or computed noise in its place.

    Arguments
    ---------
    sample_rate : int
        In Hz.
    computed : float
        Part of the clips that are computed.
    changes_db : (float, float)
        Least and largest change of the level of a crop, in dB.
    hard : hard_negatives.HardNegatives, optional
        Source of seeds of computed noises on which the spotter rang. By default every noise is a new one.

    Raises
    ------
    ValueError
        If an option is outside its range.

    Example
    -------
    >>> import torch
    >>> source = SilenceSource(16000, computed=1.0, changes_db=(0.0, 0.0))
    >>> clip, before = source(torch.zeros(16000), before=8000)
    >>> clip.shape, before is None or before.shape == (8000,)
    (torch.Size([16000]), True)
    """

    label = SILENCE

    def __init__(self, sample_rate, computed, changes_db, hard=None):
        low, high = changes_db
        if not 0 <= computed <= 1 or low > high:
            raise ValueError(
                "computed_silence must be from 0 to 1, and silence_db the lowest and the highest change; got "
                f"{computed} and {changes_db}"
            )
        self.sample_rate, self.computed, self.changes_db = sample_rate, computed, (low, high)
        self.hard = hard

    def __call__(self, crop, before=0):
        """A clip in place of ``crop`` (samples,), and what is heard ``before`` samples long ahead of it.

        Returns
        -------
        (torch.Tensor, torch.Tensor or None)
            The second is ``None`` where the sound does not go on: then anything may precede the clip.
        """
        if self.computed and torch.rand(()) < self.computed:
            seed = self.hard and self.hard.draw_noise()
            sound = compute_noise(before + len(crop), self.sample_rate, seed)
            goes_on = bool(torch.rand(()) < CONTINUED)
            return sound[before:], sound[:before] if goes_on else None
        low, high = self.changes_db
        if low == high == 0:
            return crop, None
        change = low + (high - low) * torch.rand(())
        return (crop * 10 ** (change / 20)).clamp(-1, 1), None


def compute_noise(samples, sample_rate, seed=None):
    """Noise (samples,) of a random kind and level; one kind is digital silence.

    Arguments
    ---------
    samples : int
    sample_rate : int
        In Hz.
    seed : int, optional
        Number of the noise: the same one gives the same noise. By default torch's generator draws a new one.

    Returns
    -------
    torch.Tensor
        (samples,), from -1 to 1.
    """
    if not samples:
        return torch.zeros(0)
    if seed is not None:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            return compute_noise(samples, sample_rate)
    kind = KINDS[int(torch.randint(len(KINDS), ()))]
    sound = kind(samples, sample_rate)
    if torch.rand(()) < 0.3:
        sound = sound * _swell(samples, sample_rate)
    low, high = LEVELS_DB
    level = 10 ** ((low + (high - low) * torch.rand(())) / 20)
    power = sound.square().mean().sqrt().clamp(min=1e-9)
    return (sound * level / power).clamp(-1, 1) if float(power) > 1e-8 else torch.zeros(samples)


def _nothing(samples, sample_rate):
    return torch.zeros(samples)


def _coloured(samples, sample_rate):
    """Noise whose power falls with frequency to an exponent of 0 to 2.5, at times in one band alone."""
    spectrum = torch.fft.rfft(torch.randn(samples))
    frequencies = torch.linspace(0, 1, len(spectrum)).clamp(min=1 / len(spectrum))
    spectrum = spectrum * frequencies ** (-1.25 * torch.rand(()))
    if torch.rand(()) < 0.3:
        low, high = torch.rand(2).square().sort().values
        spectrum = spectrum * ((frequencies >= low) & (frequencies <= high + 0.05))
    return torch.fft.irfft(spectrum, samples)


def _tones(samples, sample_rate):
    """A tone, a chord or a melody, steady or gliding, plain or with harmonics, as hums and instruments have."""
    time = torch.arange(samples) / sample_rate
    sound = torch.zeros(samples)
    harmonics = int(torch.randint(1, 12, ()))
    melody = torch.rand(()) < 0.4
    for _ in range(int(torch.randint(1, 5, ()))):
        pitch = 40 * 100 ** torch.rand(()).item()
        glide = 0.3 * (torch.rand(()) - 0.5) if torch.rand(()) < 0.3 else 0.0
        course = 1 + glide * time
        if melody:
            # up to two octaves up and down, every 0.1 to 0.6 s
            note = int(sample_rate * (0.1 + 0.5 * torch.rand(())))
            steps = 4 ** (2 * torch.rand(samples // note + 1) - 1)
            course = course * steps.repeat_interleave(note)[:samples]
        phase = 2 * torch.pi * pitch * course.cumsum(0) / sample_rate
        for number in range(1, harmonics + 1):
            if pitch * number < sample_rate / 2:
                sound += torch.rand(()) / number * torch.sin(number * phase + 6.28 * torch.rand(()))
    return sound + 0.05 * torch.rand(()) * torch.randn(samples)


def _plucked(samples, sample_rate):
    """Notes or chords that are struck and die away, as of a piano, a guitar, a bell or a telephone."""
    step = max(1, int(sample_rate * (0.08 + 0.9 * torch.rand(()).item())))
    voices, harmonics = (int(torch.randint(1, most, ())) for most in (5, 9))
    root = 60 * 20 ** torch.rand(()).item()
    time = torch.arange(samples) / sample_rate
    count = samples // step + 1
    since = time - (torch.arange(samples) // step) * (step / sample_rate)
    envelope = torch.exp(-since * (0.5 + 12 * torch.rand(())))
    sound = torch.zeros(samples)
    for _ in range(voices):
        # semitones of an octave and a half above the root, another one at each stroke
        notes = 2 ** (torch.randint(19, (count,)) / 12)
        pitch = root * notes.repeat_interleave(step)[:samples]
        phase = 2 * torch.pi * pitch.cumsum(0) / sample_rate
        for number in range(1, harmonics + 1):
            heard = pitch * number < sample_rate / 2
            sound += heard * torch.rand(()) / number * torch.sin(number * phase)
    return sound * envelope + 0.02 * torch.rand(()) * torch.randn(samples)


def _calls(samples, sample_rate):
    """Short sounds with pauses between them: barks, doors, alarms, rustling; each of pitch, noise or both."""
    hiss = _coloured(samples, sample_rate)
    sound = _tones(samples, sample_rate) * torch.rand(()) + hiss * torch.rand(())
    envelope = torch.zeros(samples)
    for _ in range(int(torch.randint(1, 7, ()))):
        length = max(2, int(sample_rate * (0.03 + 0.6 * torch.rand(()).item() ** 2)))
        first = int(torch.randint(samples, ()))
        attack = 0.02 + 0.6 * torch.rand(())
        course = torch.linspace(0, 1, length)
        shape = torch.minimum(course / attack, (1 - course) / (1 - attack))
        last = min(samples, first + length)
        envelope[first:last] += (0.2 + torch.rand(())) * shape[: last - first]
    return sound * envelope


def _knocks(samples, sample_rate):
    """Clicks and knocks at random times or at regular ones, which ring on, over a soft noise."""
    ring = torch.randn(max(1, int(sample_rate * 0.1)))
    ring = ring * torch.exp(-torch.arange(len(ring)) / sample_rate * (20 + 2000 * torch.rand(())))
    impulses = torch.zeros(samples)
    seconds = samples / sample_rate
    if torch.rand(()) < 0.5:
        step = max(1, round(sample_rate / (1 + 30 * torch.rand(()).item())))
        impulses[int(torch.randint(step, ())) :: step] = 1.0
    else:
        count = max(1, int(seconds * 10 * torch.rand(())))
        impulses[torch.randint(samples, (count,))] = torch.rand(count) + 0.1
    length = samples + len(ring)
    sound = torch.fft.irfft(torch.fft.rfft(impulses, length) * torch.fft.rfft(ring, length), length)
    return sound[:samples] + 0.02 * torch.rand(()) * torch.randn(samples)


def _swell(samples, sample_rate):
    """A course of loudness, slow as wind or fast as an engine, (samples,) from 0.05 to 1.05."""
    time = torch.arange(samples) / sample_rate
    rate = 0.3 * 100 ** torch.rand(())
    return 0.55 + 0.5 * torch.sin(2 * torch.pi * (rate * time + torch.rand(())))


KINDS = (_nothing, _coloured, _coloured, _tones, _tones, _plucked, _calls, _knocks)

"""What training changes in a mixture: the speed of each speaker, when each begins, and which part of it is heard.

Source: the published recipe (xi-j/Mamba-TasNet) and SpeechBrain's for WSJ0-2mix, which change whole batches at once.
"""

import torch
from speechbrain.augment.time_domain import SpeedPerturb
from torch.utils.data import Dataset

from training.loading import item_seed


class MixtureAugmenter:
    """Changes a mixture's sources, each by itself, and mixes them anew.

    Arguments
    ---------
    sample_rate : int
        In Hz.
    speed_changes : list of int, optional
        Percentages of the speed; one is drawn for each source. ``None``: speeds stay.
    shifts : (int, int), optional
        Each source is rotated in time by a number of samples from the first to the one before the second;
        ``None``: sources begin where they did.
    longest : int, optional
        Of a longer mixture a random part of so many samples is kept.

    Raises
    ------
    ValueError
        If an option is outside its range.

    Example
    -------
    >>> import torch
    >>> augment = MixtureAugmenter(8000, speed_changes=[95, 105], longest=800)
    >>> mix, sources = augment(torch.randn(1000), torch.randn(1000, 2), torch.Generator())
    >>> mix.shape, sources.shape, torch.equal(mix, sources.sum(1))
    (torch.Size([800]), torch.Size([800, 2]), True)
    """

    def __init__(self, sample_rate, speed_changes=None, shifts=None, longest=None):
        if speed_changes is not None and not (speed_changes and min(speed_changes) > 0):
            raise ValueError(
                f"speed_changes must be percentages above 0, such as [95, 100, 105]; got {speed_changes}"
            )
        if shifts is not None and shifts[0] >= shifts[1]:
            raise ValueError(
                f"min_shift must be less than max_shift; got {shifts[0]} and {shifts[1]}"
            )
        if longest is not None and longest < 1:
            raise ValueError(
                f"training_signal_len must be a number of samples above 0; got {longest}"
            )
        self.speeds = None if speed_changes is None else SpeedPerturb(sample_rate, speed_changes)
        self.shifts, self.longest = shifts, longest

    def __call__(self, mix, sources, generator):
        """Change one mixture.

        Arguments
        ---------
        mix : torch.Tensor
            (samples,).
        sources : torch.Tensor
            (samples, speakers).
        generator : torch.Generator
            Of all that is drawn.

        Returns
        -------
        (torch.Tensor, torch.Tensor)
            Mixture and sources; as long as the shortest source, if speeds were changed.
        """
        if self.speeds is not None:
            sources = self._change_speeds(sources, generator)
        if self.shifts is not None:
            drawn = torch.randint(*self.shifts, (sources.shape[1],), generator=generator).tolist()
            sources = torch.stack([s.roll(d) for s, d in zip(sources.T, drawn, strict=True)], dim=1)
        if self.speeds is not None or self.shifts is not None:
            mix = sources.sum(1)
        if self.longest is not None and len(mix) > self.longest:
            last = len(mix) - self.longest
            begin = int(torch.randint(last + 1, (1,), generator=generator))
            part = slice(begin, begin + self.longest)
            mix, sources = mix[part], sources[part]
        return mix, sources

    def _change_speeds(self, sources, generator):
        """Each source at a speed of its own, cut to the shortest."""
        resamplers = self.speeds.resamplers
        drawn = torch.randint(len(resamplers), (sources.shape[1],), generator=generator).tolist()
        changed = [
            resamplers[d](source.unsqueeze(0)).squeeze(0)
            for source, d in zip(sources.T, drawn, strict=True)
        ]
        shortest = min(len(source) for source in changed)
        return torch.stack([source[:shortest] for source in changed], dim=1)


class AugmentedMixtures(Dataset):
    """A training set whose mixtures are changed anew every epoch.

    What happens to a mixture follows from the seed, the epoch and its index alone: neither the number of workers nor
    a resume in the middle of an epoch changes it.

    Arguments
    ---------
    mixtures : torch.utils.data.Dataset
        Of items ``id``, ``mix_sig`` (samples,), ``s1_sig``, ``s2_sig``, ... and ``samples``. Its ``set_epoch``, if
        it has one, is called too.
    num_spks : int
    augment : MixtureAugmenter
    seed : int
    """

    def __init__(self, mixtures, num_spks, augment, seed):
        self.mixtures, self.augment, self.seed = mixtures, augment, seed
        self.names = [f"s{number + 1}_sig" for number in range(num_spks)]
        self.epoch = 0

    def set_epoch(self, epoch):
        """Tell which epoch begins, before the loader starts its workers."""
        self.epoch = epoch
        if hasattr(self.mixtures, "set_epoch"):
            self.mixtures.set_epoch(epoch)

    @property
    def unreadable(self):
        """What the mixtures could not read and replaced, path to reason; nothing where they replace nothing."""
        return getattr(self.mixtures, "unreadable", {})

    def __len__(self):
        return len(self.mixtures)

    def __getitem__(self, index):
        """The item at ``index``, changed; ``samples`` is its length."""
        item = self.mixtures[index]
        drawn = torch.Generator().manual_seed(item_seed(self.seed, self.epoch, index))
        sources = torch.stack([item[name] for name in self.names], dim=1)
        mix, sources = self.augment(item["mix_sig"], sources, drawn)
        sources = dict(zip(self.names, sources.T, strict=True))
        return item | {"mix_sig": mix, **sources, "samples": len(mix)}

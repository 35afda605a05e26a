"""How loud separated sources are written: as in the mixture, or as loud as they go, and never clipped.

What is needed is gathered piece by piece, so that one gain a source holds for a whole recording of any length.
"""

import math

import torch

from modules.separation.level import fit_to_mixture

LEVELS = ("mixture", "peak")
# largest magnitude of what is written; full scale is 1
PEAK = 0.99


class Loudness:
    """Gathers the level of sources over a recording.

    Arguments
    ---------
    level : str
        ``mixture``: each source gets the gain with which all of them sum to the mixture best, as
        :func:`modules.separation.level.fit_to_mixture` finds it; where one would pass 0.99, all are turned down by one
        factor. ``peak``: the loudest sample of each is brought to 0.99.
    fitted : bool
        Whether the sources come at the mixture's level.

    Raises
    ------
    ValueError
        If ``level`` is neither.

    Example
    -------
    >>> loudness, sources = Loudness("mixture"), 0.1 * torch.eye(2).repeat(50, 1)
    >>> for part in sources.split(30):
    ...     loudness.add(part, part @ torch.tensor([0.5, 2.0]))
    ...     loudness.hear(part)
    >>> gains, factor = loudness.gains()
    >>> torch.allclose(gains, torch.tensor([0.5, 2.0]), atol=1e-3), factor
    (True, 1.0)
    """

    def __init__(self, level, fitted=False):
        if level not in LEVELS:
            raise ValueError(f"level must be {' or '.join(LEVELS)}; got {level!r}")
        self.level, self.fitted = level, fitted
        self.samples = 0
        self.products = self.with_mixture = 0
        self.peaks = 0

    def add(self, sources, mix):
        """Take the next piece: sources (samples, speakers) and mixture (samples,)."""
        self.samples += len(sources)
        if not self.fitted:
            sources, mix = sources.double(), mix.double()
            self.products = self.products + sources.T @ sources
            self.with_mixture = self.with_mixture + sources.T @ mix

    def hear(self, sources):
        """Take the next piece (samples, speakers) of what the gains will be put on; its peaks count."""
        if len(sources):
            self.peaks = torch.maximum(torch.as_tensor(self.peaks), sources.abs().amax(0))

    def gains(self):
        """The gain of each source, and the factor in it by which all were turned down.

        Returns
        -------
        (torch.Tensor, float)
            (speakers,), and at most 1.
        """
        gains = torch.ones_like(self.peaks) if self.fitted else self._fit()
        if self.level == "peak":
            signs = torch.where(gains < 0, -1.0, 1.0)
            return torch.where(self.peaks > 0, signs * PEAK / self.peaks, 0.0), 1.0
        loudest = float((gains.abs() * self.peaks).max())
        factor = min(1.0, PEAK / loudest) if loudest > 0 else 1.0
        return gains * factor, factor

    def _fit(self):
        """Least squares from the sums alone."""
        values, vectors = torch.linalg.eigh(self.products)
        roots = values.clamp(min=0).sqrt()
        # as few samples as there are speakers, with the same products as the whole recording
        sources = roots[:, None] * vectors.T
        mix = torch.where(roots > 1e-8 * roots.max(), vectors.T @ self.with_mixture / roots, 0.0)
        fitted = fit_to_mixture(sources, mix, peak=math.inf)
        energy = (sources**2).sum(0)
        return torch.where(energy > 0, (fitted * sources).sum(0) / energy, 0.0).float()

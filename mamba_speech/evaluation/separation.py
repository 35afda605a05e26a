"""How well mixtures were separated: SI-SNR, SDR and their gains over the mixture, STOI and PESQ, one row a mixture.

Sources: Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, for SI-SNR; Vincent et al., "Performance
measurement in blind audio source separation", TASLP 2006, and Scheibler, "SDR - medium rare with fast computations",
ICASSP 2022, for SDR; Taal et al., TASLP 2011, for STOI; ITU-T P.862 for PESQ.
"""

import importlib.util
import logging
import statistics
import warnings

import torch

from mamba_speech.evaluation.item_files import read_items
from mamba_speech.files import write_csv
from modules.separation.si_snr import pit_si_snr, si_snr

logger = logging.getLogger(__name__)

# by metric: the package that computes it
PACKAGES = {"si-snr": None, "sdr": "torchmetrics", "stoi": "pystoi", "pesq": "pesq"}
# as the published tables order them
COLUMNS = ("sdr", "sdr_i", "si-snr", "si-snr_i", "stoi", "pesq")
# limit of SDR, which may be infinite. SI-SNR ends at -80 dB too, since 1e-8 is added to its ratio.
LIMIT_DB = 80.0
# of the filter that SDR forgives
TAPS = 512
# root mean square of the quantisation to 16 bits is a third of a step of 2**-15
SILENCE = 2**-15 / 3


def check_metrics(metrics, sample_rate):
    """The metrics that can be computed here, in the order of their columns.

    SDR is part of the default: without its library it is left out, with a warning.

    Arguments
    ---------
    metrics : list of str
        Of ``si-snr``, ``sdr``, ``stoi`` and ``pesq``; SI-SNR is always there, since it orders the estimates.
    sample_rate : int
        In Hz.

    Returns
    -------
    tuple of str

    Raises
    ------
    ValueError
        If a name is unknown, the library of STOI or PESQ is missing, or PESQ does not know the sample rate.

    Example
    -------
    >>> check_metrics(["si-snr"], 8000)
    ('si-snr',)
    """
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    unknown = [name for name in metrics if name not in PACKAGES]
    if unknown:
        raise ValueError(
            f"--metrics: {unknown[0]} is unknown; write a list of {', '.join(PACKAGES)}"
        )
    chosen = []
    for name, package in PACKAGES.items():
        if name != "si-snr" and name not in metrics:
            continue
        if package is not None and importlib.util.find_spec(package) is None:
            missing = f"{name} needs the package {package}: pip install {package}"
            if name != "sdr":
                raise ValueError(f"--metrics: {missing}")
            logger.warning("%s; without it the test has no sdr columns", missing)
            continue
        chosen.append(name)
    if "pesq" in chosen and sample_rate not in (8000, 16000):
        raise ValueError(
            f"--metrics: pesq is defined at 8000 and 16000 Hz, not at {sample_rate}; leave it out"
        )
    return tuple(chosen)


class SeparationScores:
    """Scores of separated mixtures, collected batch by batch and written as a table.

    Every figure of a mixture is the mean over its speakers, the estimates being in the order of the best SI-SNR. A
    gain (``_i``) is what the estimate has more than the mixture itself. Computed on the CPU in float64.

    - A mixture with a silent source has no such figures: it is counted (``silent``) and left out.
    - An estimate with numbers that are not finite counts as silence, SI-SNR -80 dB (``not_finite`` counts mixtures).
    - SDR is held to +-80 dB, where silent and perfect estimates would give infinity.

    Arguments
    ---------
    metrics : list of str
        See :func:`check_metrics`.
    sample_rate : int
        In Hz.

    Raises
    ------
    ValueError
        As :func:`check_metrics`.

    Example
    -------
    >>> import torch
    >>> random = torch.Generator().manual_seed(0)
    >>> sources = torch.randn(1, 4000, 2, generator=random)
    >>> scores = SeparationScores(["si-snr"])
    >>> order = scores.add(["one"], sources.flip(2) + 0.1, sources, sources.sum(2))
    >>> order.tolist(), scores.rows[0]["snt_id"], scores.rows[0]["si-snr"] > 40
    ([[1, 0]], 'one', True)
    """

    def __init__(self, metrics=("si-snr", "sdr"), sample_rate=8000):
        self.metrics = check_metrics(metrics, sample_rate)
        self.sample_rate = sample_rate
        self.columns = [c for c in COLUMNS if c.removesuffix("_i") in self.metrics]
        self.rows, self.silent, self.not_finite, self.undefined = [], 0, 0, 0

    def add(self, ids, estimates, targets, mix, samples=None):
        """Score a batch.

        Arguments
        ---------
        ids : list of str
            Names of the mixtures.
        estimates, targets : torch.Tensor
            (batch, time, speakers).
        mix : torch.Tensor
            (batch, time).
        samples : torch.Tensor, optional
            (batch,) valid samples of each mixture; all by default.

        Returns
        -------
        torch.Tensor
            (batch, speakers) of integers, on the CPU: ``estimates[b, :, order[b]]`` faces ``targets[b]``.
        """
        estimates, targets, mix = (t.detach().cpu().double() for t in (estimates, targets, mix))
        if samples is None:
            samples = torch.full((len(mix),), mix.shape[1])
        orders = []
        for row, name in enumerate(ids):
            valid = slice(int(samples[row]))
            order = self._add_mixture(
                name, estimates[row, valid], targets[row, valid], mix[row, valid]
            )
            orders.append(order)
        return torch.stack(orders)

    def _add_mixture(self, name, estimates, targets, mix):
        """Score one mixture, estimates and targets (samples, speakers); gives the order (speakers,)."""
        if not torch.isfinite(estimates).all():
            self.not_finite += 1
            estimates = torch.zeros_like(estimates)
        snr, order = pit_si_snr(estimates[None], targets[None])
        if (targets.std(0, unbiased=False) < SILENCE).any():
            self.silent += 1
            return order[0]
        estimates, mixtures = estimates[:, order[0]], mix[:, None].expand_as(targets)
        figures = {"si-snr": float(snr)}
        figures["si-snr_i"] = figures["si-snr"] - float(
            si_snr(mixtures[None], targets[None]).mean()
        )
        if "sdr" in self.metrics:
            figures["sdr"] = signal_distortion_ratio(estimates, targets)
            figures["sdr_i"] = figures["sdr"] - signal_distortion_ratio(mixtures, targets)
        for metric, measure in (("stoi", intelligibility), ("pesq", perceived_quality)):
            if metric in self.metrics:
                figures[metric] = measure(estimates, targets, self.sample_rate)
                self.undefined += figures[metric] is None
        self.rows.append({"snt_id": name} | {column: figures[column] for column in self.columns})
        return order[0]

    def mean(self, column):
        """Mean of a column over the mixtures that have it; None if none has."""
        values = [row[column] for row in self.rows if row[column] is not None]
        return statistics.fmean(values) if values else None

    def figures(self):
        """What a test reports: means, median and share of failures, and how many mixtures were scored or not.

        Returns
        -------
        dict of str: float
            The columns' means; ``si-snr_i_median``; ``below_10_dB``, the share of mixtures in % whose SI-SNR gain is
            below 10 dB; ``mixtures``, ``silent``, ``not_finite``, and with STOI or PESQ ``undefined``, the figures
            that could not be had.

        Raises
        ------
        ValueError
            If no mixture was scored.
        """
        if not self.rows:
            raise ValueError(
                f"no mixture was scored: {self.silent} of {self.silent} have a silent source"
                if self.silent
                else "no mixture was scored: the test set is empty"
            )
        figures = {column: self.mean(column) for column in self.columns}
        gains = [row["si-snr_i"] for row in self.rows]
        figures["si-snr_i_median"] = statistics.median(gains)
        figures["below_10_dB"] = 100 * sum(gain < 10 for gain in gains) / len(gains)
        figures |= {"mixtures": len(gains), "silent": self.silent, "not_finite": self.not_finite}
        if {"stoi", "pesq"} & set(self.metrics):
            figures["undefined"] = self.undefined
        return {name: value for name, value in figures.items() if value is not None}

    def write(self, path):
        """Write the rows as CSV, the means last as ``avg``; a figure that could not be had is left empty.

        Arguments
        ---------
        path : str or Path
            ``test_results.csv`` by the published name.
        """
        average = {"snt_id": "avg"} | {column: self.mean(column) for column in self.columns}
        write_csv(path, ["snt_id", *self.columns], [*self.rows, average])


def read_scores(path):
    """Read what :meth:`SeparationScores.write` has written, its means left out.

    Arguments
    ---------
    path : str or Path

    Returns
    -------
    dict of str: dict of str: float
        Figures by column, by the mixture's name. A figure that could not be had is left out.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`mamba_speech.evaluation.item_files.read_items`.
    """
    return read_items(path, ("snt_id", "si-snr_i"), _parse, "mixture", not_items=("avg",))


def _parse(row):
    figures = {name: float(cell) for name, cell in row.items() if cell and name != "snt_id"}
    if "si-snr_i" not in figures:
        raise ValueError("no SI-SNR improvement")
    return figures


def signal_distortion_ratio(estimates, targets):
    """SDR in dB, which forgives a filter of 512 taps, averaged over speakers and held to +-80 dB each.

    Of ``bss_eval_sources`` of mir_eval, which is to go, it differs by less than 1e-8 dB.

    Arguments
    ---------
    estimates, targets : torch.Tensor
        (samples, speakers) in float64, in one order.

    Returns
    -------
    float
    """
    from torchmetrics.functional.audio import signal_distortion_ratio as sdr

    # zeros change nothing; with fewer samples than taps torchmetrics correlates a signal with its own repetition
    lacking = max(0, TAPS - len(targets))
    ratios = []
    # one speaker at a time: after torch.set_num_threads, torch 2.11 gets a batch of systems wrong on several threads
    for signals in zip(estimates.T, targets.T, strict=True):
        signals = [torch.nn.functional.pad(signal, (0, lacking)) for signal in signals]
        try:
            ratio = sdr(*signals, filter_length=TAPS)
        except torch.linalg.LinAlgError:
            ratio = torch.tensor(torch.nan)
        if ratio.isnan():
            # a pure tone leaves the filter open, a perfect estimate can be rounded to beyond it: a trace of white
            # noise settles both, at 100 dB
            ratio = sdr(*signals, filter_length=TAPS, load_diag=1e-10)
        ratios.append(float(ratio.clamp(-LIMIT_DB, LIMIT_DB)))
    return statistics.fmean(ratios)


def intelligibility(estimates, targets, sample_rate):
    """STOI from 0 to 1, averaged over speakers; None where there is too little speech for it.

    Arguments
    ---------
    estimates, targets : torch.Tensor
        (samples, speakers), in one order.
    sample_rate : int
        In Hz.

    Returns
    -------
    float or None
    """
    from pystoi import stoi

    with warnings.catch_warnings():
        # pystoi warns, and gives 1e-5, where fewer than 30 frames are left
        warnings.simplefilter("error", RuntimeWarning)
        try:
            values = [
                stoi(target.numpy(), estimate.numpy(), sample_rate)
                for estimate, target in zip(estimates.T, targets.T, strict=True)
            ]
        except RuntimeWarning:
            return None
    return float(statistics.fmean(values))


def perceived_quality(estimates, targets, sample_rate):
    """PESQ, narrow band at 8 kHz and wide band at 16, averaged over speakers; None where it finds no utterance.

    Arguments
    ---------
    estimates, targets : torch.Tensor
        (samples, speakers), in one order.
    sample_rate : int
        8000 or 16000 Hz.

    Returns
    -------
    float or None
    """
    from pesq import PesqError, pesq

    band = "nb" if sample_rate == 8000 else "wb"
    # the level of an estimate says nothing, and pesq divides both signals by the greater peak
    energy = estimates.square().sum(0).clamp(min=torch.finfo(estimates.dtype).tiny)
    estimates = estimates * (estimates * targets).sum(0) / energy
    try:
        values = [
            pesq(sample_rate, target.numpy(), estimate.numpy(), band)
            for estimate, target in zip(estimates.T, targets.T, strict=True)
        ]
    except PesqError:
        return None
    return float(statistics.fmean(values))

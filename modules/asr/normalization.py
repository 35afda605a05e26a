"""Global mean and variance normalisation of features, in the two versions that SpeechBrain has had.

SpeechBrain 1.1 keeps the mean and deviation of all frames seen, which is what "global" says: long
utterances weigh more. SpeechBrain 1.0, which the published recipes pin, averages the means and the
deviations of utterances, a batch at a time, all batches alike, so that the deviations miss the
differences between utterances. The first is the default; ``fidelity: upstream`` takes the second.
"""

import torch
from speechbrain.processing import features
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks

from modules.fidelity import check_fidelity


@register_checkpoint_hooks
class GlobalNormalization(features.InputNormalization):
    """SpeechBrain's ``InputNormalization`` with ``norm_type: global``, by either version's statistics.

    Arguments
    ---------
    update_until_epoch : int
        The epoch, counted from 1, from which the statistics stay as they are.
    fidelity : str
        ``corrected`` pools frames, ``upstream`` averages utterances.

    Example
    -------
    >>> import torch
    >>> normalize = GlobalNormalization()
    >>> x = normalize(3 + 2 * torch.randn(4, 100, 8), torch.ones(4), epoch=1)
    >>> bool(x.mean().abs() < 0.01)
    True
    """

    def __init__(self, update_until_epoch=4, fidelity="corrected"):
        super().__init__(norm_type="global", update_until_epoch=update_until_epoch)
        self.fidelity = check_fidelity(fidelity)

    def _update_global_stats(self, x, mask):
        if self.fidelity == "corrected":
            return super()._update_global_stats(x, mask)
        frames = mask.sum(1)  # (batch, 1)
        means = (x * mask).sum(1) / frames
        squares = ((x - means.unsqueeze(1)) * mask).square().sum(1)
        deviations = (squares / (frames - 1).clamp(min=1)).sqrt()
        self.count += 1
        weight = 1 / self.count
        for name, batch in (("glob_mean", means.mean(0)), ("glob_std", deviations.mean(0))):
            old = getattr(self, name).to(x.device)
            setattr(self, name, batch if self.count == 1 else torch.lerp(old, batch, weight))

    @mark_as_saver
    def _save(self, path):
        super()._save(path)

    @mark_as_loader
    def _load(self, path, end_of_epoch=False):
        super()._load(path, end_of_epoch)

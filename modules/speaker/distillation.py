"""Distance of a student's hidden states from its teacher's: layer by layer, or by heads that predict some of them.

Sources: the SV-Mixer paper (arXiv 2509.14136), which compares layers of equal depth by their mean squared error; Chang
et al., "DistilHuBERT" (arXiv 2110.01900, section 2), for the heads of a student of fewer layers.
"""

import torch
from torch import nn
from torch.nn import functional as F

from modules.ssm.masking import valid_frames


class HiddenDistance(nn.Module):
    """How far a student's hidden states are from a teacher's of the same crops.

    A student of the teacher's depth and width is compared layer by layer. Of a student of fewer layers, or of another
    width, the last layer predicts evenly spaced layers of the teacher, its last among them, each by a linear head.

    Arguments
    ---------
    config : dict
        Configuration of the teacher, with ``hidden_size`` and ``num_hidden_layers``.
    d_model, n_layers : int, optional
        Channels and layers of the student; by default the teacher's.
    n_heads : int
        Layers of the teacher that heads predict.
    cosine_weight : float
        Weight of DistilHuBERT's second term, the log-sigmoid of the cosine; its first is the mean absolute error.

    Raises
    ------
    ValueError
        If the student has more layers than the teacher, or the heads are fewer than 1 or more than its layers.

    Example
    -------
    >>> import torch
    >>> config = {"hidden_size": 16, "num_hidden_layers": 2}
    >>> states = [torch.randn(2, 5, 16) for _ in range(3)]
    >>> HiddenDistance(config)(states, states, torch.tensor([5, 3])).item()
    0.0
    """

    def __init__(self, config, d_model=None, n_layers=None, n_heads=3, cosine_weight=1.0):
        super().__init__()
        width, depth = config["hidden_size"], config["num_hidden_layers"]
        d_model = width if d_model is None else d_model
        n_layers = depth if n_layers is None else n_layers
        if n_layers > depth:
            raise ValueError(f"n_layers must be at most the teacher's {depth}; got {n_layers}")
        self.cosine_weight, self.heads, self.predicted = cosine_weight, None, None
        if (d_model, n_layers) != (width, depth):
            if not 1 <= n_heads <= depth:
                raise ValueError(f"n_heads must be from 1 to the teacher's {depth}; got {n_heads}")
            self.predicted = [depth * (one + 1) // n_heads for one in range(n_heads)]
            self.heads = nn.ModuleList(nn.Linear(d_model, width) for _ in range(n_heads))

    def forward(self, hidden, wanted, lengths):
        """Compare hidden states.

        Arguments
        ---------
        hidden, wanted : list of torch.Tensor
            Of the student and of the teacher: the input of the first layer and the output of each, (batch, time,
            channels).
        lengths : torch.Tensor
            (batch,) frame counts; frames behind them do not count.

        Returns
        -------
        torch.Tensor
            The mean over layers and valid frames.
        """
        valid = valid_frames(lengths, wanted[0].shape[1], wanted[0].device)
        if self.heads is None:
            pairs = zip(hidden[1:], wanted[1:], strict=True)
            return torch.stack([F.mse_loss(a[valid], b[valid]) for a, b in pairs]).mean()
        last, distances = hidden[-1][valid], []
        for head, number in zip(self.heads, self.predicted, strict=True):
            own, theirs = head(last), wanted[number][valid]
            cosine = F.logsigmoid(F.cosine_similarity(own, theirs, dim=-1)).mean()
            distances.append(F.l1_loss(own, theirs) - self.cosine_weight * cosine)
        return torch.stack(distances).mean()


def copy_front_end(student, teacher):
    """Let a student begin with its teacher's convolutions.

    Arguments
    ---------
    student : modules.speaker.student.Student
    teacher : modules.speaker.self_supervised.SelfSupervised

    Raises
    ------
    ValueError
        If the two have convolutions of different sizes or normalisations.
    """
    front_end = teacher.network.feature_extractor
    try:
        student.front_end.load_state_dict(front_end.state_dict(), strict=True)
    except RuntimeError as error:
        raise ValueError(
            "the student's convolutions are not its teacher's: build it from the teacher's own configuration, whose "
            f"conv_dim, conv_kernel, conv_bias and feat_extract_norm count ({str(error).splitlines()[-1].strip()})"
        ) from error

"""Student networks: a teacher's convolutions, light layers in the place of its Transformer, a back-end on their mean.

Source: the SV-Mixer paper (arXiv 2509.14136, section 3). Its layers have no positions.
"""

import torch
from torch import nn

from modules.speaker.back_ends import EcapaBackEnd, LinearBackEnd
from modules.speaker.convolutional import ConvolutionalFrontEnd
from modules.speaker.front_ends import check_samples
from modules.speaker.layers import LAYERS
from modules.speaker.redimnet import ReDimNetBackEnd
from modules.speaker.windows import check_crops
from modules.ssm.masking import keep_valid, valid_frames

BACK_ENDS = {"linear": LinearBackEnd, "ecapa": EcapaBackEnd, "redimnet": ReDimNetBackEnd}


class Student(nn.Module):
    """Waveforms to speaker embeddings with the layout of a teacher: hidden states of both can be compared.

    Arguments
    ---------
    config : dict
        Configuration of the teacher: see :class:`modules.speaker.convolutional.ConvolutionalFrontEnd`, and
        ``hidden_size`` and ``num_hidden_layers``.
    layer : str
        Kind of the layers, one of :data:`modules.speaker.layers.LAYERS`.
    back_end : str
        ``linear``, ``ecapa`` or ``redimnet``.
    d_model, n_layers : int, optional
        Channels and number of the layers; by default the teacher's.
    crop_seconds : float
        Length of every utterance for layers that mix frames of one number; others take any length.
    embedding_size : int
        Channels of an embedding.
    layer_options, back_end_options : dict, optional
        Further options of each layer and of the back-end.
    sample_rate : int
        Samples a second.

    Raises
    ------
    ValueError
        If a kind is unknown, a size is missing or below 1, or an utterance has another length than it must have.

    Example
    -------
    >>> import torch
    >>> config = {"hidden_size": 16, "num_hidden_layers": 2, "conv_dim": [8] * 7}
    >>> student = Student(config, layer="bimamba", back_end="linear", embedding_size=12)
    >>> student(torch.randn(2, 8000), torch.tensor([8000, 4000])).shape
    torch.Size([2, 12])
    """

    def __init__(
        self,
        config,
        layer="sv_mixer",
        back_end="ecapa",
        d_model=None,
        n_layers=None,
        crop_seconds=3.0,
        embedding_size=192,
        layer_options=None,
        back_end_options=None,
        sample_rate=16000,
    ):
        super().__init__()
        for name, value, known in (("layer", layer, LAYERS), ("back_end", back_end, BACK_ENDS)):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
        d_model = _size("d_model", d_model, config, "hidden_size")
        n_layers = _size("n_layers", n_layers, config, "num_hidden_layers")
        self.front_end = ConvolutionalFrontEnd(config, sample_rate)
        self.sample_rate, self.embedding_size = sample_rate, embedding_size
        kind = LAYERS[layer]
        samples = round(crop_seconds * sample_rate)
        self.crop_samples = None if kind.any_length else samples
        n_frames = None if kind.any_length else self.front_end.frames(samples)
        self.project = nn.Sequential(
            nn.LayerNorm(self.front_end.output_size),
            nn.Linear(self.front_end.output_size, d_model),
        )
        self.layers = nn.ModuleList(
            kind(d_model, n_frames=n_frames, **(layer_options or {})) for _ in range(n_layers)
        )
        self.layer_weights = nn.Parameter(torch.zeros(n_layers))
        self.back_end = BACK_ENDS[back_end](d_model, embedding_size, **(back_end_options or {}))

    @property
    def min_samples(self):
        """Samples of the shortest utterance."""
        return self.front_end.min_samples if self.crop_samples is None else self.crop_samples

    def forward(self, wavs, samples=None, return_hidden=False):
        """Embed utterances.

        Arguments
        ---------
        wavs : torch.Tensor
            (batch, samples) at ``sample_rate``; what stands behind an utterance's end does not matter.
        samples : torch.Tensor, optional
            (batch,) integer sample counts; ``None`` if all utterances fill the batch.
        return_hidden : bool
            Whether the hidden states are given too.

        Returns
        -------
        torch.Tensor or (torch.Tensor, list of torch.Tensor, torch.Tensor)
            (batch, embedding_size), not normalised; and the input of the first layer and the output of each,
            (batch, time, d_model), with the frame counts (batch,).
        """
        samples = check_samples(wavs, samples, self.min_samples)
        check_crops(wavs, samples, self.crop_samples)
        x, lengths = self.front_end(wavs, samples)
        valid = valid_frames(lengths, x.shape[1], x.device)
        hidden = [keep_valid(self.project(x), valid)]
        for layer in self.layers:
            hidden.append(layer(hidden[-1], lengths))
        weights = self.layer_weights.softmax(0)
        mean = sum(w * one for w, one in zip(weights, hidden[1:], strict=True))
        embeddings = self.back_end(mean, lengths)
        return (embeddings, hidden, lengths) if return_hidden else embeddings


def _size(name, given, config, key):
    """A size of a student: the given one, or its teacher's."""
    size = config.get(key) if given is None else given
    if size is None:
        raise ValueError(f"{name} is not given, and the teacher's configuration has no {key}")
    if size < 1:
        raise ValueError(f"{name} must be 1 or more; got {size}")
    return size

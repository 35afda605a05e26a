"""wav2vec 2.0, HuBERT and WavLM as front-ends and as teachers, whole or partly frozen, exact in any padded batch.

The transformers library builds the networks from a plain dictionary, so that a trained run needs no file but its own.
Sources: wav2vec 2.0 (arXiv 2006.11477), HuBERT (arXiv 2106.07447), WavLM (arXiv 2110.13900).
"""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from modules.speaker.convolutional import ConvolutionalFrontEnd
from modules.speaker.ssl_networks import (
    SETTINGS,
    SHAPE,
    build,
    check_config,
    complete,
    import_transformers,
)
from modules.ssm.masking import keep_valid, valid_frames


class SelfSupervised(nn.Module):
    """A wav2vec 2.0, HuBERT or WavLM network that gives frames of one layer, or a learned mean of all layers.

    Frozen parts run without gradients and without dropout, also in training. Padding reaches no frame: waveforms
    and the first convolution are normalised over an utterance's own samples, and no frame attends to padding.

    Arguments
    ---------
    config : dict
        The model's ``config.json``, and ``do_normalize`` of its preprocessor: :func:`read_config` gives both. Keys
        that are absent have the transformers library's defaults; ``hidden_dropout``, ``layerdrop`` and the other
        rates may be set anew.
    layer : str or int
        ``last``, ``weighted_sum`` (softmax weights over the first layer's input and every layer's output), or the
        number of a layer, 0 for the first layer's input. Layers above it are not built.
    trainable_layers : int or str
        Number of layers, counted from the highest that is built, that learn; ``all`` also trains the projection and
        the positions below the layers.
    train_front_end : bool
        Training of the convolutions too; only with ``trainable_layers="all"``.
    gradient_checkpointing : bool
        Activations within a layer are computed again for the gradients: less memory, more time.
    sample_rate : int
        Samples a second.

    Raises
    ------
    ValueError
        If an option or a part of the configuration is not as above.
    RuntimeError
        If the transformers library is not installed.

    Example
    -------
    >>> import torch
    >>> config = {"model_type": "wavlm", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    ...     "intermediate_size": 32, "conv_dim": [8] * 7, "num_conv_pos_embedding_groups": 2}
    >>> front_end = SelfSupervised(config, trainable_layers=1)
    >>> features, lengths = front_end(torch.randn(2, 8000), torch.tensor([8000, 4000]))
    >>> features.shape, lengths.tolist()
    (torch.Size([2, 24, 16]), [24, 12])
    """

    def __init__(
        self,
        config,
        layer="weighted_sum",
        trainable_layers=0,
        train_front_end=False,
        gradient_checkpointing=False,
        sample_rate=16000,
    ):
        super().__init__()
        check_config(config)
        self.config = {key: config[key] for key in SETTINGS if key in config}
        self.sample_rate, self.gradient_checkpointing = sample_rate, gradient_checkpointing
        built = build(self.config)
        n_layers = built.config.num_hidden_layers
        self.layer, self.depth = layer, _depth(layer, n_layers)
        self.trainable_layers = self._count_trainable(trainable_layers)
        self.train_below = trainable_layers == "all"
        self.train_front_end = bool(train_front_end)
        if self.train_front_end and not self.train_below:
            raise ValueError(
                "train_front_end trains the convolutions below all layers: set trainable_layers to all"
            )
        self.output_size = built.config.hidden_size
        self.stable = bool(built.config.do_stable_layer_norm)
        self.layerdrop = float(built.config.layerdrop)
        self.has_final_norm = self.stable and self.depth == n_layers
        built.feature_extractor = ConvolutionalFrontEnd(self.config, sample_rate)
        built.encoder.layers = built.encoder.layers[: self.depth]
        if self.stable and not self.has_final_norm:
            built.encoder.layer_norm = None
        self.network = built
        self.layer_weights = (
            nn.Parameter(torch.zeros(self.depth + 1)) if layer == "weighted_sum" else None
        )
        for part in self._frozen_parts():
            part.requires_grad_(False)
        self.train()

    def _count_trainable(self, layers):
        if layers == "all":
            return self.depth
        if not isinstance(layers, int) or not 0 <= layers <= self.depth:
            raise ValueError(
                f"trainable_layers must be all, or lie in 0..{self.depth}, the layers that are built; "
                f"got {layers!r}"
            )
        return int(layers)

    def _frozen_parts(self):
        """Modules that do not learn."""
        encoder = self.network.encoder
        if not self.train_front_end:
            yield self.network.feature_extractor
        if not self.train_below:
            yield from (self.network.feature_projection, encoder.pos_conv_embed, encoder.dropout)
            if not self.stable or not self.trainable_layers:
                yield from () if encoder.layer_norm is None else (encoder.layer_norm,)
        yield from encoder.layers[: self.depth - self.trainable_layers]

    def train(self, mode=True):
        """Set the mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    @property
    def min_samples(self):
        """Samples that the first frame reads."""
        return self.network.feature_extractor.min_samples

    def frames(self, samples):
        """Frames that ``samples`` (an int, or a tensor of counts) give."""
        return self.network.feature_extractor.frames(samples)

    def forward(self, wavs, samples=None):
        """Compute features.

        Arguments
        ---------
        wavs : torch.Tensor
            (batch, samples); what stands behind an utterance's end does not matter.
        samples : torch.Tensor, optional
            (batch,) integer sample counts; ``None`` if all utterances fill the batch.

        Returns
        -------
        (torch.Tensor, torch.Tensor)
            (batch, time, output_size), zero behind each utterance, and the frame counts (batch,).
        """
        states, lengths = self.hidden_states(wavs, samples)
        if self.layer_weights is None:
            return states[-1], lengths
        weights = self.layer_weights.softmax(0)
        return sum(w * x for w, x in zip(weights, states, strict=True)), lengths

    def hidden_states(self, wavs, samples=None):
        """Compute the frames of every layer.

        Takes what :meth:`forward` takes.

        Returns
        -------
        (list of torch.Tensor, torch.Tensor)
            The input of the first layer and the output of each layer, (batch, time, output_size), and the frame
            counts (batch,). The last output is normalised where the network has a final normalisation.
        """
        network, encoder = self.network, self.network.encoder
        with _gradients(self.train_front_end):
            features, lengths = network.feature_extractor(wavs, samples)
        valid = valid_frames(lengths, features.shape[1], features.device)
        with _gradients(self.train_below):
            x = network.feature_projection(features)
            # wav2vec 2.0 and WavLM also return what they project
            x = keep_valid(x[0] if isinstance(x, tuple) else x, valid)
            x = x + encoder.pos_conv_embed(x)
            if not self.stable:
                x = encoder.layer_norm(x)
            x = encoder.dropout(x)
        states, bias = [keep_valid(x, valid)], None
        first = self.depth - self.trainable_layers
        for index, layer in enumerate(encoder.layers):
            with _gradients(index >= first):
                x, bias = self._run(index, layer, x, valid, bias)
                states.append(keep_valid(x, valid))
        if self.has_final_norm:
            with _gradients(self.trainable_layers > 0):
                states[-1] = keep_valid(encoder.layer_norm(x), valid)
        return states, lengths

    def _run(self, index, layer, x, valid, bias):
        """One layer, and WavLM's position bias, which its first layer computes for all."""
        wavlm = self.config["model_type"] == "wavlm"
        drops = layer.training and self.layerdrop > 0 and not (wavlm and index == 0)
        drops = drops and float(torch.rand(())) < self.layerdrop
        # processes that train together want a gradient of every parameter, be it 0
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        if drops and not together:
            return x, bias
        if wavlm:
            options = {"attention_mask": valid, "position_bias": bias, "index": index}
        else:
            options = {"attention_mask": valid[:, None, None]}
        if self.gradient_checkpointing and layer.training and torch.is_grad_enabled():
            out = checkpoint(layer, x, use_reentrant=False, **options)
        else:
            out = layer(x, **options)
        out, bias = out if wavlm else (out[0] if isinstance(out, tuple) else out, None)
        return (x + 0.0 * out if drops else out), bias


def read_config(source):
    """Read what :class:`SelfSupervised` is built from, without the weights.

    Arguments
    ---------
    source : str or pathlib.Path
        Name on the Hugging Face Hub, or a folder that the transformers library saved.

    Returns
    -------
    dict
        Plain values only, fit for a YAML file.

    Raises
    ------
    FileNotFoundError
        If the source cannot be read.
    ValueError
        If it holds a model of another kind.
    RuntimeError
        If the transformers library is not installed.
    """
    transformers = import_transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(str(source)).to_dict()
        preprocessor = transformers.AutoFeatureExtractor.from_pretrained(str(source))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(_cannot_read(source)) from error
    config["do_normalize"] = bool(preprocessor.do_normalize)
    check_config(config, source)
    kept = {key: config[key] for key in SETTINGS if key in config}
    return {key: list(one) if isinstance(one, tuple) else one for key, one in kept.items()}


def check_shape(config, theirs, source):
    """Raise ``ValueError`` unless ``config`` has the kind, the depth and the widths of a source's own, ``theirs``."""
    ours = {key: value for key, value in complete(config).items() if key in theirs}
    differences = [
        f"{key} is {theirs[key]}, not {ours.get(key)}"
        for key in SHAPE
        if key in theirs and ours.get(key) != theirs[key]
    ]
    if differences:
        raise ValueError(
            f"{source} is another model than the configuration says ({'; '.join(differences)}): "
            "give its own configuration, which read_config reads, or another source"
        )


def load_pretrained(module, source, save_path):
    """Load a teacher's weights into a :class:`SelfSupervised` through SpeechBrain's wrapper of its family.

    Arguments
    ---------
    module : SelfSupervised
        Network of the source's kind and sizes; it may have fewer layers because of its option ``layer``.
    source : str or pathlib.Path
        Name on the Hugging Face Hub, or a folder that the transformers library saved.
    save_path : str or pathlib.Path
        Folder for downloads.

    Returns
    -------
    unused : dict of str to torch.Tensor
        Weights of the source that have no place in ``module``.

    Raises
    ------
    FileNotFoundError
        If the source cannot be read.
    ValueError
        If it is of another kind, depth or width than ``module``; the sentence lists the differences.
    RuntimeError
        If the transformers library is not installed.
    """
    theirs = read_config(source)
    check_shape(module.config, theirs, source)
    try:
        weights = _wrapper(theirs["model_type"])(str(source), str(save_path), freeze=True).model
    except (OSError, RuntimeError, ValueError) as error:
        raise FileNotFoundError(_cannot_read(source)) from error
    wanted = module.network.state_dict()
    theirs = weights.state_dict()
    module.network.load_state_dict({name: theirs[name] for name in theirs if name in wanted})
    return {name: value for name, value in theirs.items() if name not in wanted}


def _gradients(wanted):
    """Gradients where they are wanted and not switched off around."""
    return torch.set_grad_enabled(wanted and torch.is_grad_enabled())


def _depth(layer, n_layers):
    """Layers to build for the option ``layer``."""
    if layer in ("last", "weighted_sum"):
        return n_layers
    if not isinstance(layer, int) or not 0 <= layer <= n_layers:
        raise ValueError(
            f"layer must be last, weighted_sum, or lie in 0..{n_layers}; got {layer!r}"
        )
    return int(layer)


def _wrapper(kind):
    """SpeechBrain's class for a family of models."""
    if kind == "hubert":
        from speechbrain.integrations.huggingface.hubert import HuBERT as wrapper
    elif kind == "wavlm":
        from speechbrain.integrations.huggingface.wavlm import WavLM as wrapper
    else:
        from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2 as wrapper
    return wrapper


def _cannot_read(source):
    return (
        f"cannot read a model from {source}: give a folder that the transformers library saved, with "
        "preprocessor_config.json, or a name on the Hugging Face Hub that this machine can reach"
    )

"""Checks that every speaker network must pass, whatever it is made of."""

import torch
import transformers

from tests.support.pairs import random_pairs


def largest_shift(model, pairs=50, longest=8000, seed=0):
    """Largest change of an embedding by a neighbour in the batch, over pairs of utterances of random lengths.

    The shortest utterance that the model takes is paired with the longest. Noise stands behind the shorter one's end.
    The scale is the largest value of the embeddings. Each utterance has several neighbours, and is embedded alone once.
    """
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    dtype = next(model.parameters()).dtype
    count = 4 + pairs // 3
    samples = torch.randint(model.min_samples, longest + 1, (count,), generator=generator)
    samples[0], samples[1] = longest, model.min_samples
    wavs = torch.randn(count, longest, generator=generator).to(dtype)
    worst = 0.0
    with torch.no_grad():
        alone = torch.cat([model(wav[None, :n]) for wav, n in zip(wavs, samples, strict=True)])
        for pair in map(list, random_pairs(count, pairs)):
            together = model(wavs[pair, : samples[pair].max()], samples[pair])
            shift = (together - alone[pair]).abs().max() / alone[pair].abs().max()
            worst = max(worst, float(shift))
    return worst


# tiny teachers of each family, in both kinds of normalisation
_TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 2,
    "num_buckets": 16,
    "max_bucket_distance": 20,
}
_GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "do_normalize": False}
_LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "do_normalize": True}
TEACHERS = {
    f"{kind}-{norm['feat_extract_norm']}": {"model_type": kind, **_TINY, **norm}
    for kind in ("wav2vec2", "hubert", "wavlm")
    for norm in (_GROUP, {**_LAYER, "conv_bias": True})
}


def build_teacher(name):
    """A tiny random network of the transformers library, in evaluation mode, moved off its initial values."""
    config = dict(TEACHERS[name])
    config.pop("do_normalize")
    config = transformers.AutoConfig.for_model(config.pop("model_type"), **config)
    network = transformers.AutoModel.from_config(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, parameter.mean().item(), 0.2)
    return network.eval()


def save_teacher(name, folder):
    """Save :func:`build_teacher`'s network and its preprocessor to ``folder``, and return the network."""
    network = build_teacher(name)
    network.save_pretrained(folder)
    preprocessor = transformers.Wav2Vec2FeatureExtractor(
        do_normalize=TEACHERS[name]["do_normalize"]
    )
    preprocessor.save_pretrained(folder)
    return network

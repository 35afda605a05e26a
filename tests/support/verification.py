"""Voices made of harmonics, and a network of a few weights that tells them apart without training."""

import json

import numpy as np
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references

from mamba_speech.speaker.threshold import write_threshold

RATE = 16000
# the keys that using a run needs, as the recipe's YAML files have them
RUN = """\
seed: 1
fidelity: corrected
output_folder: results/1
save_folder: !ref <output_folder>/save
threshold_file: !ref <save_folder>/threshold.json
sample_rate: 16000
avg_checkpoints: 2
checkpoint_choice: last
d_model: 8
front_end: !new:modules.speaker.front_ends.FilterbankFrontEnd
    sample_rate: !ref <sample_rate>
    n_mels: 24
encoder: !new:modules.speaker.encoder.BiMambaEncoder
    d_model: !ref <d_model>
    n_layers: 1
    d_state: 4
model: !new:modules.speaker.encoder.SpeakerEncoder
    front_end: !ref <front_end>
    encoder: !ref <encoder>
    embedding_size: 6
    subsampling: 2
checkpointer: !new:speechbrain.utils.checkpoints.Checkpointer
    checkpoints_dir: !ref <save_folder>
    recoverables:
        model: !ref <model>
"""
# the same on a self-supervised network, whose configuration stands in the YAML
FILTERBANKS = "modules.speaker.front_ends.FilterbankFrontEnd\n    sample_rate: !ref <sample_rate>\n    n_mels: 24"
SELF_SUPERVISED = "modules.speaker.self_supervised.SelfSupervised\n    config: !ref <ssl_config>"
SSL_RUN = """\
ssl_config:
    model_type: wavlm
    hidden_size: 16
    num_hidden_layers: 2
    num_attention_heads: 2
    intermediate_size: 32
    conv_dim: [8, 8, 8, 8, 8, 8, 8]
    num_conv_pos_embedding_groups: 2
    do_normalize: True
""" + RUN.replace(FILTERBANKS, SELF_SUPERVISED)

# the same with a student that reads crops of one length
_MODEL = RUN[RUN.index("d_model:") : RUN.index("checkpointer:")]
STUDENT_RUN = RUN.replace(
    _MODEL,
    """\
teacher_config:
    model_type: wavlm
    hidden_size: 16
    num_hidden_layers: 2
    conv_dim: [8, 8, 8, 8, 8, 8, 8]
    do_normalize: True
model: !new:modules.speaker.student.Student
    config: !ref <teacher_config>
    layer: sv_mixer
    back_end: linear
    crop_seconds: 1.0
    embedding_size: 6
""",
)


def say(speaker, seconds, seed=0, rate=RATE):
    """A few syllables of one speaker's pitch and timbre with a little noise, (samples,)."""
    timbre, random = np.random.default_rng(speaker), np.random.default_rng([speaker, seed])
    time = np.arange(round(seconds * rate)) / rate
    pitch = timbre.uniform(90, 250) * (1 + 0.05 * np.sin(2 * np.pi * random.uniform(1, 3) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tone = sum(timbre.uniform(0, 1) * np.sin(k * phase) for k in range(1, 15))
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * random.uniform(3, 5) * time)
    return 0.05 * tone * syllables + 0.001 * random.standard_normal(len(time))


def write_voice(path, speaker, seconds=1.5, seed=0, rate=RATE, channels=1):
    """A file of such a voice, the same in every channel; gives its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = say(speaker, seconds, seed, rate)
    soundfile.write(path, np.stack([sound] * channels, axis=1), rate, "PCM_16")
    return path


def json_rows(text):
    """What a command printed with --json."""
    return [json.loads(line) for line in text.splitlines()]


def tab_rows(text):
    """What a command printed in columns."""
    return [line.split("\t") for line in text.splitlines()]


def write_run(folder, threshold=0.5, seed=0, statistic="EER", yaml=RUN):
    """What a run of the recipe leaves behind: options, two checkpoints of random weights, and a threshold."""
    text = resolve_references(yaml, {"output_folder": str(folder)}).getvalue()
    for epoch in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(10 * seed + epoch)
            run = load_hyperpyyaml(text)
        run["checkpointer"].save_checkpoint(meta={"epoch": epoch, statistic: 0.2})
    (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
    if threshold is not None:
        write_threshold(run["threshold_file"], threshold, "valid_trials.txt", 900, 12, 0.0325)
    return folder


class Timbre(torch.nn.Module):
    """A speaker model: the mean power of random filters over the valid samples of each recording."""

    sample_rate, min_samples, embedding_size = RATE, 64, 12

    def __init__(self, crop_samples=None, seed=0):
        super().__init__()
        self.crop_samples = crop_samples
        self.filters = torch.nn.Conv1d(1, self.embedding_size, self.min_samples, bias=False)
        generator = torch.Generator().manual_seed(seed)
        self.filters.weight.data.normal_(generator=generator)
        self.seen = []

    def forward(self, wavs, samples):
        """Embeddings (B, embedding_size)."""
        assert not self.training and not torch.is_grad_enabled()
        self.seen.append(tuple(wavs.shape))
        power = self.filters(wavs[:, None]).square()  # (B, filters, windows)
        places = torch.arange(power.shape[2], device=wavs.device)
        valid = (places < (samples - self.min_samples + 1)[:, None])[:, None]
        mean = (power * valid).sum(2) / valid.sum(2)
        return (mean + 1e-6).log()

"""A corpus of harmonic voices in VoxCeleb's layout, and the speaker recipe's scripts run on it."""

from pathlib import Path

import torch

from modules.speaker.resemblyzer import VoiceEncoder
from tests.support.recipes import call_main, command_line
from tests.support.verification import write_voice
from training.tasks import find_script

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "VoxCeleb" / "SV"
FOLDER = RECIPE / "hparams"
# sizes only: the rest of each YAML stays as it is
SMALL = {"d_model": 16, "num_layers": 1, "nhead": 2, "d_ffn": 32, "embedding_size": 16}
SMALL |= {
    "n_mels": 24,
    "cepstral_statistics": 20,
    "batch_size": 4,
    "num_workers": 0,
    "d_state": 4,
    "valid_speakers": 2,
}
SMALL |= {
    "trainable_layers": 1,
    "crops_per_speaker": "null",
    "n_speakers": "null",
    "n_utterances": "null",
}
SMALL |= {"valid_fraction": 0.3, "grad_accumulation_factor": 1}
# 61 frames, of which four are joined into one
SMALL |= {"n_frames": 16}
SMALL |= {"crop_seconds": 0.6, "crop_seconds_max": 0.8, "warmup_fraction": 0.1}


def write_corpus(folder, speakers=7, sessions=2, utterances=2):
    """So many voices, the last two of which are on the trial list alone; gives the folder."""
    for speaker in range(speakers):
        for session in range(sessions):
            for number in range(utterances):
                name = f"id{speaker:05d}/s{session}/{number:05d}.wav"
                # the shortest are shorter than a crop
                seconds = 0.5 + 0.4 * number + 0.1 * session
                write_voice(folder / "wav" / name, speaker, seconds, 10 * session + number)
    tested = [f"id{speaker:05d}" for speaker in range(speakers)[-2:]]
    lines = [f"1 {one}/s0/00000.wav {one}/s1/00001.wav\n" for one in tested]
    lines += [f"0 {tested[0]}/s0/0000{n}.wav {tested[1]}/s1/0000{n}.wav\n" for n in (0, 1)]
    (folder / "veri_test2.txt").write_text("".join(lines))
    return folder


def train_here(yaml, *flags, small=(), **options):
    """Run the script of a YAML of the recipe within this process; gives the output folder."""
    path = FOLDER / f"{yaml}.yaml"
    script = find_script(path.resolve()).stem
    call_main(RECIPE, script, *command_line(path, *flags, small=small, **options))
    return Path(options["output_folder"])


def write_voice_encoder(folder):
    """What of an installed Resemblyzer is read, with random weights, and a package that fails if it is imported."""
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('must not be imported')")
    state = VoiceEncoder().state_dict()
    state |= {"similarity_weight": torch.ones(1), "similarity_bias": torch.ones(1)}
    torch.save({"model_state": state, "step": 3}, folder / "pretrained.pt")

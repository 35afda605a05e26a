"""A corpus of tones in the layout of Speech Commands, and the recipe's training run on it."""

from pathlib import Path

import numpy as np
import soundfile

from tests.support.recipes import call_main, command_line

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "SpeechCommands" / "KWS"
RATE = 16000
# a word is a rise or a fall of pitch, or a steady tone: beginning and end in Hz
WORDS = {"up": (300, 900), "down": (900, 300), "stop": (500, 500)}
# all words of the tones, and nothing else
TASK = {"words": "all", "n_classes": 3, "split": "lists", "other_speech_percentage": 0}
# what needs other speech and a class for it, which these corpora do not hold
TASK |= {"hard_negatives": 0, "context_loss": 0}
# sizes only: the rest of each YAML stays as it is
SMALL = {
    "d_model": 16,
    "num_layers": 1,
    "nhead": 2,
    "alpha": 0.1,
    "hidden_size": 12,
    "num_workers": 0,
}
SMALL |= {"batch_size": 8, "n_mels": 32, "n_mfcc": 13, "n_fft": 512}
SPEAKERS = [f"{number:08x}" for number in range(9)]


def say(word, speaker, seconds=0.9):
    """A glide of one speaker's timbre with a little noise, (samples,)."""
    random = np.random.default_rng(int(speaker, 16))
    low, high = WORDS[word]
    pitch = np.linspace(low, high, round(seconds * RATE)) * random.uniform(0.85, 1.15)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tone = sum(random.uniform(0.3, 1) * np.sin(k * phase) / k for k in (1, 2, 3))
    return 0.1 * tone * np.hanning(len(tone)) + 0.002 * random.standard_normal(len(tone))


def write_corpus(folder, words=tuple(WORDS), speakers=SPEAKERS):
    """Word folders, noise, and lists that leave the last two speakers to test and the two before to validate."""
    lists = {"testing_list.txt": speakers[-2:], "validation_list.txt": speakers[-4:-2]}
    for word in words:
        (folder / word).mkdir(parents=True)
        for speaker in speakers:
            sound = say(word, speaker)
            soundfile.write(folder / word / f"{speaker}_nohash_0.wav", sound, RATE, "PCM_16")
    for name, chosen in lists.items():
        lines = [f"{word}/{speaker}_nohash_0.wav\n" for word in words for speaker in chosen]
        (folder / name).write_text("".join(lines))
    (folder / "_background_noise_").mkdir()
    hiss = 0.05 * np.random.default_rng(0).standard_normal(3 * RATE)
    soundfile.write(folder / "_background_noise_" / "hiss.wav", hiss, RATE, "PCM_16")
    return folder


def train_here(yaml, *flags, small=(), **options):
    """Run train.py within this process; gives the output folder."""
    path = RECIPE / "hparams" / f"{yaml}.yaml"
    call_main(RECIPE, "train", *command_line(path, *flags, small=small, **options))
    return Path(options["output_folder"])

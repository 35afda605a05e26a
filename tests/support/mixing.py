"""Short noises that stand for speech, and mixtures made of them, for the tests of the mixtures."""

from pathlib import Path

import numpy as np
import soundfile

from data_prep.mixtures import (
    Mixture,
    Settings,
    Source,
    build_mixtures,
)
from data_prep.mixtures.__main__ import main

RATE = 8000


def write_noise(path, seconds=0.5, rate=RATE, scale=0.05, channels=1, **options):
    """Write noise that is different for every path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([*path.as_posix().encode()])
    noise = scale * random.standard_normal((round(seconds * rate), channels))
    soundfile.write(path, noise, rate, **options)
    return noise[:, 0]


def read_set(folder):
    """The files of a set by name: shape (samples,), as integers."""
    return {
        path.relative_to(folder).as_posix(): soundfile.read(path, dtype="int16")[0].astype(int)
        for path in sorted(folder.rglob("*.wav"))
    }


def same(first, second):
    """Whether two sets have the same files with the same samples."""
    return first.keys() == second.keys() and all(
        np.array_equal(one, second[name]) for name, one in first.items()
    )


def draw(output_folder, speech, *options):
    """Run the command on a folder of speech, quickly, in this process."""
    counts = ("--train", "4", "--valid", "2", "--test", "2", "--min_seconds", "0.1", "--jobs", "1")
    main([str(output_folder), "--speech", str(speech), *counts, *map(str, options)])


def one_list(*files, gains=(0.0, 0.0, 0.0)):
    """A list of one mixture of such files, whose folder is the speaker."""
    sources = (Source(Path(f).parts[0], (f,), g) for f, g in zip(files, gains, strict=False))
    return {"tr": [Mixture("mixture", tuple(sources))]}


def build(tmp_path, speech, lists, **settings):
    """Mix a list and return the files of its only mixture, `mix` first."""
    folder = build_mixtures(tmp_path / "out", lists, Settings(str(speech), **settings), 1, False)
    names = ["mix", *(f"s{n + 1}" for n in range(len(lists["tr"][0].sources)))]
    made = [soundfile.read(folder / f"tr/{name}/mixture.wav") for name in names]
    assert {rate for _, rate in made} == {settings.get("sample_rate", RATE)}
    return [waveform for waveform, _ in made]

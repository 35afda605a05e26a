"""Who speaks: voices of eSpeak NG, and speaker tables whose splits share neither base nor variant.

A voice is an accent (`en-us`), one of the engine's variants of the vocal tract (`f3`), and a rate
and a pitch. `data/voices.json` says which accents and variants each split may use; it leaves out
variants that are hard to understand (whispers, robots) or that repeat another under a new name.
Different variants can still sound alike; `docs/data.md` says how much.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mamba_speech.files import read_json

DATA = Path(__file__).with_name("data")
FIRST_SPEAKER = {"train": 1001, "dev": 5001, "test": 7001}

# Above about 200 words a minute an utterance can have fewer encoder frames than characters.
SLOWEST, FASTEST = 110, 165


@dataclass(frozen=True)
class Voice:
    """One way of speaking.

    Arguments
    ---------
    base : str
        The accent, a language code that the engine knows: `en`, `en-us`, `ru`, ...
    variant : str
        The vocal tract, one of the engine's variants; empty for the plain voice.
    rate : int
        Words a minute, 80 to 450.
    pitch : int
        0 to 99; 50 is the variant's own.
    pitch_range : int
        How lively the melody is, 0 to 99; 50 is usual.

    Example
    -------
    >>> Voice("en-us", "f3").name
    'en-us+f3'
    """

    base: str
    variant: str = ""
    rate: int = 160
    pitch: int = 50
    pitch_range: int = 50

    @property
    def name(self):
        """The engine's name of the voice, without rate and pitch."""
        return f"{self.base}+{self.variant}" if self.variant else self.base


@dataclass(frozen=True)
class Speaker:
    """A voice with an identity: its number in the corpus, its split, and its sex, `M` or `F`."""

    id: int
    split: str
    sex: str
    voice: Voice


def available_languages():
    """The languages for which there are voices, as a sorted list of codes."""
    return sorted(_table()["bases"])


def speaker_table(language, split, count=None, seed=0):
    """Draw the speakers of one split.

    Each (accent, variant) pair is used at most once. The variants are taken in turns, so that as
    many different ones occur as the count allows, women's and men's by turns too while there are.

    Arguments
    ---------
    language : str
        `en` or `ru`.
    split : str
        `train`, `dev` or `test`.
    count : int, optional
        How many speakers; all pairs by default.
    seed : int
        Seed of the draw.

    Returns
    -------
    speakers : list of Speaker

    Raises
    ------
    ValueError
        For an unknown language or split, or more speakers than there are pairs.

    Example
    -------
    >>> [speaker.id for speaker in speaker_table("en", "test", 3)]
    [7001, 7002, 7003]
    """
    table = _table()
    if language not in table["bases"]:
        raise ValueError(
            f"no voices for language {language!r}; choose one of {available_languages()}"
        )
    if split not in FIRST_SPEAKER:
        raise ValueError(f"unknown split {split!r}; choose one of {sorted(FIRST_SPEAKER)}")
    random = np.random.default_rng([seed, FIRST_SPEAKER[split]])
    bases = table["bases"][language][split]
    turns = {
        sex: _rounds(bases, table["variants"][split][sex].split(), random) for sex in ("F", "M")
    }
    available = sum(len(pairs) for pairs in turns.values())
    count = available if count is None else count
    if not 1 <= count <= available:
        raise ValueError(
            f"{count} speakers asked for the {split} split, but language {language!r} has "
            f"1 to {available} there"
        )
    order = []
    while len(order) < count:
        order += [(sex, *turns[sex].pop(0)) for sex in ("F", "M") if turns[sex]]
    return [
        Speaker(FIRST_SPEAKER[split] + index, split, sex, _draw_voice(base, variant, random))
        for index, (sex, base, variant) in enumerate(order[:count])
    ]


def _rounds(bases, variants, random):
    """All (base, variant) pairs; each variant occurs once before any occurs twice."""
    variants = ["" if variant == "plain" else variant for variant in random.permutation(variants)]
    start = random.integers(len(bases))
    return [
        (bases[(start + index + turn) % len(bases)], variant)
        for turn in range(len(bases))
        for index, variant in enumerate(variants)
    ]


def _draw_voice(base, variant, random):
    return Voice(
        base,
        str(variant),
        rate=int(random.integers(SLOWEST, FASTEST + 1)),
        pitch=int(random.integers(35, 66)),
        pitch_range=int(random.integers(35, 71)),
    )


def _table():
    return read_json(DATA / "voices.json")

"""What the demo reports of a test set: error rates with their interval, voices, and pairs of texts.

Reads the alignments that SpeechBrain's ErrorRateStats writes, `wer_<test set>.txt`.
"""

import re
from dataclasses import dataclass

import numpy as np
from speechbrain.utils.metric_stats import ErrorRateStats

from mamba_speech.evaluation.bootstrap import mean_interval
from mamba_speech.files import read_csv
from mamba_speech.train_log import read_train_log
from training.results import read_rows

HEADER = re.compile(r"^(?P<id>.+), %WER \S+ \[ \d+ / \d+, \d+ ins, \d+ del, \d+ sub \]$")
PAIRS = 10


@dataclass(frozen=True)
class Scored:
    """One utterance of a test set: what was said, what was heard, and how many words are wrong."""

    id: str
    said: str
    heard: str
    words: int
    errors: int

    @property
    def voice(self):
        """The speaker's number, with which ids in LibriSpeech's layout begin."""
        return self.id.split("-")[0]


def read_alignments(path):
    """Read the utterances of a `wer_*.txt` file.

    Arguments
    ---------
    path : Path

    Returns
    -------
    utterances : list of Scored

    Raises
    ------
    ValueError
        If the file holds none.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    texts = {}
    # an utterance is its header and three lines: the reference, the operations, the hypothesis
    for number, line in enumerate(lines):
        header = HEADER.match(line)
        if header is not None:
            texts[header["id"]] = (_words(lines[number + 1]), _words(lines[number + 3]))
    if not texts:
        raise ValueError(f"{path}: holds no alignments; run the test of the training script again")
    stats = ErrorRateStats()
    said, heard = zip(*texts.values(), strict=True)
    stats.append(list(texts), list(heard), list(said))
    return [
        Scored(
            score["key"],
            " ".join(texts[score["key"]][0]),
            " ".join(texts[score["key"]][1]),
            score["num_ref_tokens"],
            score["num_edits"],
        )
        for score in stats.scores
    ]


def _words(line):
    return [word for word in map(str.strip, line.split(" ; ")) if word not in ("", "<eps>")]


def error_rate(utterances):
    """Word error rate in percent."""
    return 100 * sum(one.errors for one in utterances) / sum(one.words for one in utterances)


def by_voice(utterances):
    """The utterances of each voice, in the order of the voices' numbers."""
    voices = {}
    for one in sorted(utterances, key=lambda one: one.id):
        voices.setdefault(one.voice, []).append(one)
    return voices


def interval(utterances, seed):
    """95 % interval of the word error rate by bootstrap over voices.

    Voices, and not utterances, are drawn with replacement: the question is how well the recogniser
    would do on other voices, and voices differ more than sentences do. Source: Bisani and Ney,
    "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004.

    Arguments
    ---------
    utterances : list of Scored
    seed : int

    Returns
    -------
    bounds : (float, float)
        In percent.
    """
    utterances = sorted(utterances, key=lambda one: one.id)
    errors, words, voices = zip(
        *((one.errors, one.words, one.voice) for one in utterances), strict=True
    )
    found = mean_interval(errors, words, voices, seed=seed, scale=100)
    return found.low, found.high


def voice_table(utterances, voices_csv):
    """A row for each voice, from the one understood best to the worst.

    Arguments
    ---------
    utterances : list of Scored
    voices_csv : Path
        The table of speakers that the spoken corpus comes with.

    Returns
    -------
    rows : list of dict
        With `speaker`, `voice` (accent and variant), `rate` in words a minute, `utterances`, `words`
        and `WER`.
    """
    voices = {row["speaker"]: row for _, row in read_csv(voices_csv)[1]}
    rows = []
    for speaker, own in by_voice(utterances).items():
        voice = voices[speaker]
        rows.append(
            {
                "speaker": speaker,
                "voice": "+".join(filter(None, (voice["base"], voice["variant"]))),
                "rate": int(voice["rate"]),
                "utterances": len(own),
                "words": sum(one.words for one in own),
                "WER": round(error_rate(own), 2),
            }
        )
    return sorted(rows, key=lambda row: row["WER"])


def draw_pairs(utterances, count, seed):
    """Utterances drawn at random, the same ones for the same seed, whatever was heard in them."""
    ordered = sorted(utterances, key=lambda one: one.id)
    count = min(count, len(ordered))
    chosen = np.random.default_rng(seed).choice(len(ordered), size=count, replace=False)
    return [ordered[index] for index in chosen]


def make_report(run, voices_csv, test_set, seed):
    """All figures of a run on one test set.

    Arguments
    ---------
    run : Path
        Output folder of the training.
    voices_csv : Path
        The table of speakers that the spoken corpus comes with.
    test_set : str
    seed : int
        Of the bootstrap, and of the pairs drawn.

    Returns
    -------
    report : dict
        Fit for JSON.
    """
    utterances = read_alignments(run / f"wer_{test_set}.txt")
    result = read_rows(run)[test_set]
    pairs = draw_pairs(utterances, PAIRS, seed)
    return {
        "test_set": test_set,
        "WER": round(error_rate(utterances), 2),
        "WER_interval_95": [round(bound, 2) for bound in interval(utterances, seed)],
        "CER": round(result["CER"], 2),
        "real_time_factor": result["RTF"],
        "parameters": result["parameters"],
        "result": result,
        "epochs": read_train_log(run / "train_log.txt"),
        "voices": voice_table(utterances, voices_csv),
        "pairs": [{"id": one.id, "said": one.said, "heard": one.heard} for one in pairs],
    }

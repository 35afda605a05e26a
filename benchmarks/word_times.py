#!/usr/bin/env python3
"""How far the starts of words lie from the phoneme events of eSpeak NG, which speaks the sentences.

    python benchmarks/word_times.py results/demo/run [--utterances 200] [--seed 1] [--out FOLDER]

The test voices say sentences of the test part of the grammar, in scenes of noise and reverberation as in a spoken
corpus, after 0 to 1 s of silence. The run writes them down; a word counts if it was recognised. Writes
word_times.json and word_times_table.json.
"""

import argparse
from difflib import SequenceMatcher

import numpy as np
import torch
from measure import machine, parse

from data_prep.spoken import acoustics
from data_prep.spoken.corpus import SAMPLE_RATE
from data_prep.spoken.synthesiser import Synthesiser
from data_prep.spoken.texts import Grammar, SentenceSource
from data_prep.spoken.voices import speaker_table
from mamba_speech.arguments import given_path, whole_number
from mamba_speech.arguments import seed as any_seed
from mamba_speech.asr.decoders import S2SDecoder
from mamba_speech.asr.recognizer import Recognizer
from mamba_speech.evaluation.tables import as_text
from mamba_speech.files import write_json

# seconds: goals of the median error, and of 95 in 100
GOAL_MEDIAN, GOAL_95 = 0.040, 0.150
# most seconds of silence in front of a sentence
LONGEST_LEAD = 1.0


def spoken(count, seed):
    """Sentences of the test voices: texts, waveforms (samples,), and starts of words in seconds by their places."""
    source = SentenceSource(Grammar("en"), "test", seed)
    speakers = speaker_table("en", "test", seed=seed)
    with Synthesiser(events=True) as synthesiser:
        for index in range(count):
            random = np.random.default_rng((seed, index))
            text = source.draw()
            said, starts = synthesiser.speak_with_words(
                speakers[index % len(speakers)].voice,
                text[0].upper() + text[1:] + ".",
                int(random.integers(2**31)),
            )
            sound = acoustics.resample(said, synthesiser.sample_rate, SAMPLE_RATE)
            lead = int(random.uniform(0, LONGEST_LEAD) * SAMPLE_RATE)
            sound = np.concatenate([np.zeros(lead, np.float32), sound])
            scene = acoustics.draw_scene(random, True)
            sound = acoustics.apply_scene(sound, SAMPLE_RATE, scene, random)
            times = {place: start + lead / SAMPLE_RATE for place, start in starts.items()}
            yield text.upper(), torch.from_numpy(sound).float(), times


def errors_of(words, text, starts):
    """Differences in seconds, found minus spoken, of the words that were recognised.

    Arguments
    ---------
    words : sequence of mamba_speech.asr.alignment.Word
    text : str
        What was said.
    starts : dict of int to float
        Seconds by the place of a word in the text.

    Returns
    -------
    list of float
    """
    matcher = SequenceMatcher(None, text.split(), [word.text for word in words], autojunk=False)
    return [
        words[block.b + step].start - starts[block.a + step]
        for block in matcher.get_matching_blocks()
        for step in range(block.size)
        if block.a + step in starts
    ]


def summary(errors, spoken_words):
    """Figures of a list of differences in seconds."""
    off = np.abs(errors)
    figures = {
        "words": len(off),
        "spoken": spoken_words,
        "median": float(np.median(off)),
        "percentile_95": float(np.percentile(off, 95)),
        "mean_difference": float(np.mean(errors)),
        "largest": float(off.max()),
    }
    return figures | {
        "met": figures["median"] <= GOAL_MEDIAN and figures["percentile_95"] < GOAL_95
    }


def measure(recognizer, sentences):
    """Errors of a recogniser's words over sentences, and how many words were spoken."""
    errors, count = [], 0
    for text, sound, starts in sentences:
        words = recognizer.transcribe(sound, SAMPLE_RATE, word_times=True).words
        errors += errors_of(words, text, starts)
        count += len(starts)
    if not errors:
        raise SystemExit("no word was recognised: give a run that was trained on spoken English")
    return summary(errors, count)


def table(result):
    """Rows for Markdown."""
    return [
        {
            "texts": name,
            "words recognised, of those spoken": f"{row['words']} of {row['spoken']}",
            "median error, ms": f"{1000 * row['median']:.0f}",
            "95 in 100 under, ms": f"{1000 * row['percentile_95']:.0f}",
            "mean difference, ms": f"{1000 * row['mean_difference']:+.0f}",
            "largest, ms": f"{1000 * row['largest']:.0f}",
            "goal": f"{1000 * GOAL_MEDIAN:.0f} and {1000 * GOAL_95:.0f}",
            "met": "yes" if row["met"] else "no",
            "processor": result["machine"]["processor"],
            "date": result["machine"]["date"],
            "command": f"`{result['machine']['command']}`",
        }
        for name, row in result["decodings"].items()
    ]


def main():
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "run", type=given_path, help="output folder of a run of train_S2S.py or train_CTC.py"
    )
    parser.add_argument(
        "--utterances", type=whole_number(1, 10_000), default=200, help="number of sentences"
    )
    parser.add_argument(
        "--seed", type=any_seed, default=1, help="seed of sentences, voices and scenes"
    )
    options = parse(parser, None, rounds=1, threads=1)
    sentences = list(spoken(options.utterances, options.seed))
    recognizer = Recognizer.load(options.run, "cpu")
    found = {"as the run is tested": measure(recognizer, sentences)}
    # of a CTC run the texts are the CTC output's already
    if isinstance(recognizer.decode, S2SDecoder):
        best_path = Recognizer.load(options.run, "cpu", ctc_only=True)
        found["best path of the CTC output"] = measure(best_path, sentences)
    result = {"machine": machine(), "utterances": options.utterances, "seed": options.seed}
    result |= {"decodings": found}
    write_json(options.out / "word_times.json", result)
    write_json(options.out / "word_times_table.json", table(result))
    print(as_text(table(result)))


if __name__ == "__main__":
    main()

"""What the kinds of CTC scoring cost a trained run in word errors and in time; part of ``decoding.py``.

Every utterance is encoded once and searched alone by every kind of scoring with every beam in turn,
so that all of them see the same encoder output and the same machine.
"""

import tempfile
import time
from pathlib import Path

import torch
from speechbrain.utils.metric_stats import ErrorRateStats

from data_prep.librispeech_prepare import prepare_librispeech
from mamba_speech.asr.decoders import CTC_SCORINGS, S2S_OPTIONS, S2SDecoder
from mamba_speech.asr.recognizer import Recognizer
from mamba_speech.audio import load_audio
from mamba_speech.files import read_csv
from mamba_speech.run import read_options
from modules.lengths import relative_lengths

# the decoder alone, without CTC
NO_CTC = "none"
SCORINGS = (NO_CTC, *CTC_SCORINGS)


def read_split(data_folder, split, most):
    """Audio files and texts of a part of a corpus in LibriSpeech's layout.

    Raises
    ------
    SystemExit
        If there is no such corpus or part, or nothing usable in it.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            prepare_librispeech(data_folder, folder, te_splits=[split], select_n_sentences=most)
        except (OSError, ValueError) as error:
            raise SystemExit(str(error)) from error
        rows = [row for _, row in read_csv(Path(folder) / f"{split}.csv")[1]]
    return [(row["wav"], row["wrd"]) for row in rows]


def decoders(recognizer, run_folder, scorings, beams):
    """Decoders of a run with its own options, but for scoring and beam."""
    run = read_options(run_folder, [], list(S2S_OPTIONS))
    options = {S2S_OPTIONS[name]: value for name, value in run.items() if name in S2S_OPTIONS}
    made = {}
    for scoring in scorings:
        changed = {"ctc_weight": 0.0} if scoring == NO_CTC else {"ctc_scoring": scoring}
        for beam in beams:
            changed["beam_size"] = beam
            made[scoring, beam] = S2SDecoder(
                recognizer.model, recognizer.tokenizer, **(options | changed)
            )
    return made, options


@torch.inference_mode()
def encode(recognizer, waveform):
    """Encoder output (1, time, d_model) of one waveform and its number of frames (1,)."""
    samples = torch.tensor([len(waveform)])
    features, lengths = recognizer.compute_features(waveform.unsqueeze(0), samples=samples)
    normalised = recognizer.normalize(features, relative_lengths(lengths, features.shape[1]))
    return recognizer.model.encode(normalised, lengths)


def measure_run(options):
    """Word errors and seconds by scoring and beam, on the CPU and without a language model.

    Returns
    -------
    dict
        ``rows`` (scoring, beam, wer, errors, seconds of all searches), ``encoder`` and ``audio`` (seconds), ``words``,
        ``utterances``, ``split`` and the run's ``options``.
    """
    utterances = read_split(options.data_folder, options.split, options.utterances)
    try:
        recognizer = Recognizer.load(options.run, device="cpu", no_lm=True)
        made, searched = decoders(recognizer, options.run, options.scorings, options.beams)
    except (OSError, ValueError, AttributeError) as error:
        raise SystemExit(f"--run {options.run}: {error}") from error
    errors = {key: ErrorRateStats() for key in made}
    seconds = dict.fromkeys(made, 0.0)
    audio = encoder = 0.0
    for path, text in utterances:
        waveform = load_audio(path, recognizer.sample_rate)
        audio += len(waveform) / recognizer.sample_rate
        start = time.perf_counter()
        encoded, lengths = encode(recognizer, waveform)
        encoder += time.perf_counter() - start
        for key, decode in made.items():
            start = time.perf_counter()
            (found,) = decode(encoded, lengths)
            seconds[key] += time.perf_counter() - start
            errors[key].append([path], [found.split()], [text.split()])
    rows = []
    for (scoring, beam), metric in errors.items():
        summary = metric.summarize()
        rows.append(
            {
                "scoring": scoring,
                "beam": beam,
                "wer": summary["error_rate"],
                "errors": summary["num_edits"],
                "seconds": seconds[scoring, beam],
            }
        )
    return {
        "rows": rows,
        "encoder": encoder,
        "audio": audio,
        "words": summary["num_scored_tokens"],
        "utterances": len(utterances),
        "split": options.split,
        "options": searched,
    }

"""The command evaluate: figures of each task equal what its results give, and a list that is odd is told."""

import csv
import json

import numpy as np
import pytest
import soundfile
import torch

from mamba_speech import KeywordSpotter, Separator
from mamba_speech.evaluation.verification import eer
from modules.separation.si_snr import pit_si_snr, si_snr
from tests.support.run_folders import call
from tests.support.verification import write_voice


@pytest.fixture
def texts(voices, tmp_path):
    """A list of two recordings with texts in two cases."""
    path = tmp_path / "texts.csv"
    rows = [f"{voices[0]},one two three", f"{voices[1]},Four two"]
    path.write_text("path,text\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def edits(said, heard):
    """Edit distance of two sequences, by its recursion."""
    table = np.zeros((len(said) + 1, len(heard) + 1), dtype=int)
    table[:, 0], table[0] = np.arange(len(said) + 1), np.arange(len(heard) + 1)
    for i, a in enumerate(said, 1):
        for j, b in enumerate(heard, 1):
            swap = table[i - 1, j - 1] + (a != b)
            table[i, j] = min(swap, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return table[-1, -1]


def evaluated(*arguments):
    status, out, err = call(["evaluate", *arguments, "--device", "cpu", "--json"])
    return status, json.loads(out) if out else None, err


@pytest.mark.parametrize("name", ["ctc", pytest.param("s2s", marks=pytest.mark.exhaustive)])
def test_error_rates_are_those_of_the_texts_that_transcribe_prints(
    name, runs, voices, texts, tmp_path
):
    rows = tmp_path / "rows.csv"
    status, found, _ = evaluated(runs[name], texts, "--output_file", rows)
    assert status == 0 and found["utterances"] == 2 and found["failed"] == 0
    _, out, _ = call(["transcribe", runs[name], *voices, "--device", "cpu", "--json"])
    heard = [json.loads(line)["text"] for line in out.splitlines()]
    said = ["one two three", "Four two"]
    words = sum(edits(a.split(), b.split()) for a, b in zip(said, heard, strict=True))
    letters = sum(
        edits(" ".join(a.split()), " ".join(b.split())) for a, b in zip(said, heard, strict=True)
    )
    figures = found["figures"]
    assert figures["WER"]["value"] == pytest.approx(100 * words / 5)
    assert figures["CER"]["value"] == pytest.approx(100 * letters / 21)
    for one in figures.values():
        assert one["low"] <= one["value"] <= one["high"]
    with open(rows, encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["reference"] for row in written] == said
    assert sum(int(row["errors"]) for row in written) == words
    # an output file that is there is not replaced unasked
    status, _, err = evaluated(runs[name], texts, "--output_file", rows)
    assert status == 2 and "--overwrite" in err
    assert evaluated(runs[name], texts, "--output_file", rows, "--overwrite")[0] == 0


def test_errors_of_case_alone_get_a_hint_that_helps(runs, voices, tmp_path):
    _, out, _ = call(["transcribe", runs["ctc"], voices[0], "--device", "cpu", "--json"])
    text = json.loads(out)["text"]
    (tmp_path / "list.csv").write_text(f"path,text\n{voices[0]},{text.upper()}\n", encoding="utf-8")
    _, found, _ = evaluated(runs["ctc"], tmp_path / "list.csv")
    assert found["figures"]["WER"]["value"] == 100 and "--text_case lower" in found["hint"]
    _, found, _ = evaluated(runs["ctc"], tmp_path / "list.csv", "--text_case", "lower")
    assert found["figures"]["WER"]["value"] == 0 and "hint" not in found


def test_a_bad_item_is_counted_listed_and_left_out(runs, texts):
    _, wanted, _ = evaluated(runs["ctc"], texts)
    with open(texts, "a", encoding="utf-8") as file:
        file.write("nowhere.wav,one\n")
        file.write(f"{texts.parent / 'also nowhere.wav'},\n")
    status, found, err = evaluated(runs["ctc"], texts)
    assert status == 1 and found["failed"] == 2 and found["figures"] == wanted["figures"]
    assert "2 items were not tested" in err and "nowhere.wav: no such file" in err
    assert "line 5: has no text" in err and len(found["errors"]) == 2


def write_clips(folder, spotter):
    """A clip of each class and one of another word, in folders; gives what the model hears in each."""
    heard = {}
    for number, word in enumerate(("no", "yes", "other")):
        path = write_voice(folder / word / f"me{number}_0.wav", number + 1)
        heard[path] = spotter.classify(path).label
    return heard


def test_accuracy_of_folders_and_of_lists_is_that_of_the_classes(runs, tmp_path):
    spotter = KeywordSpotter.load(runs["keywords"], "cpu")
    heard = write_clips(tmp_path / "clips", spotter)
    # no word, as in Speech Commands
    write_voice(tmp_path / "clips" / "_background_noise_" / "noise.wav", 1)
    right = sum(
        label == (path.parent.name if path.parent.name in spotter.labels else "_unknown_")
        for path, label in heard.items()
    )
    status, found, _ = evaluated(runs["keywords"], tmp_path / "clips")
    assert status == 0 and found["clips"] == 3 and found["clips_of_other_words"] == 1
    accuracy = found["figures"]["accuracy"]
    assert accuracy["value"] == pytest.approx(100 * right / 3)
    # never surer than so few clips allow
    assert accuracy["high"] - accuracy["low"] > 40
    rows = "\n".join(f"{path},{path.parent.name}" for path in heard)
    (tmp_path / "list.csv").write_text(f"path,label\n{rows}\n", encoding="utf-8")
    _, other, _ = evaluated(runs["keywords"], tmp_path / "list.csv")
    assert other["figures"] == found["figures"]


@pytest.mark.parametrize("layout", ["folder", "list"])
def test_gains_are_those_of_the_separated_sources(layout, runs, tmp_path):
    rate, generator = 8000, torch.Generator().manual_seed(0)
    sources = 0.1 * torch.randn(4000, 2, generator=generator)
    files = {"s1": sources[:, 0], "s2": sources[:, 1], "mix": sources.sum(1)}
    for name, wave in files.items():
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", wave.numpy(), rate, "FLOAT")
    place = tmp_path
    if layout == "list":
        place = tmp_path / "list.csv"
        place.write_text("ID,mix_wav,s1_wav,s2_wav\na,mix/a.wav,s1/a.wav,s2/a.wav\n")
    status, found, _ = evaluated(runs["windows"], place)
    assert status == 0 and found["mixtures"] == 1
    estimate = Separator.load(runs["windows"], "cpu").separate(tmp_path / "mix" / "a.wav").sources
    wanted = float(pit_si_snr(estimate[None].double(), sources[None].double())[0])
    wanted -= float(
        si_snr(
            sources.sum(1)[None, :, None].expand(1, -1, 2).double(), sources[None].double()
        ).mean()
    )
    assert found["figures"]["si-snr_i"]["value"] == pytest.approx(wanted, abs=1e-2)
    assert {"sdr_i", "si-snr", "sdr"} <= set(found["figures"])


def test_the_equal_error_rate_is_that_of_the_scores_that_verify_prints(runs, tmp_path):
    names = [f"{voice}_{take}.wav" for voice in (1, 2, 3) for take in "ab"]
    for number, name in enumerate(names):
        write_voice(tmp_path / name, int(name[0]), seed=number)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[:i]]
    lines = [f"{int(a[0] == b[0])} {a} {b}" for a, b in pairs]
    (tmp_path / "trials.txt").write_text("\n".join(lines) + "\n")
    rows = tmp_path / "scores.csv"
    status, found, _ = evaluated(runs["speakers"], tmp_path / "trials.txt", "--output_file", rows)
    assert status == 0 and found["trials"] == len(pairs) and found["recordings"] == len(names)
    tabs = "\n".join(f"{tmp_path / a}\t{tmp_path / b}" for a, b in pairs)
    (tmp_path / "pairs.txt").write_text(tabs)
    _, out, _ = call(["verify", runs["speakers"], "--pairs", tmp_path / "pairs.txt", "--json"])
    scores = [json.loads(line)["score"] for line in out.splitlines()]
    same = [a[0] == b[0] for a, b in pairs]
    rate, _ = eer(
        *([s for s, one in zip(scores, same, strict=True) if one == kind] for kind in (True, False))
    )
    assert found["figures"]["EER"]["value"] == pytest.approx(100 * rate)
    assert 0 <= found["figures"]["minDCF"]["value"] <= 1
    with open(rows, encoding="utf-8", newline="") as file:
        written = [float(row["score"]) for row in csv.DictReader(file)]
    assert written == pytest.approx(scores)
    # the same trials with the label last, and recordings in another folder
    lines = [f"{a} {b} {'target' if a[0] == b[0] else 'nontarget'}" for a, b in pairs]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "trials.txt").write_text("\n".join(lines))
    _, other, _ = evaluated(
        runs["speakers"], tmp_path / "lists" / "trials.txt", "--data_folder", tmp_path
    )
    assert other["figures"] == found["figures"]


@pytest.mark.parametrize("name", ["ctc", "keywords", "windows", "speakers"])
def test_a_list_without_references_gets_one_sentence(name, runs, voices, tmp_path):
    (tmp_path / "list.csv").write_text("path\n" + "\n".join(map(str, voices)) + "\n")
    status, found, err = evaluated(runs[name], tmp_path / "list.csv")
    assert status == 2 and found is None and str(tmp_path / "list.csv") in err
    assert err.count("\n") == 1 and "Traceback" not in err


def test_trials_of_one_kind_have_no_error_rate(runs, voices, tmp_path):
    (tmp_path / "trials.txt").write_text(f"1 {voices[0]} {voices[1]}\n")
    status, _, err = evaluated(runs["speakers"], tmp_path / "trials.txt")
    assert status == 2 and "no impostor" in err and "trials.txt" in err


@pytest.mark.parametrize(
    "name, option",
    [
        ("keywords", ["--beam_size", "3"]),
        ("windows", ["--data_folder", "x"]),
        ("speakers", ["--no_lm"]),
    ],
)
def test_an_option_of_another_task_is_refused(name, option, runs, texts):
    status, _, err = evaluated(runs[name], texts, *option)
    assert status == 2 and option[0] in err and "this is a run of" in err


@pytest.mark.parametrize("name", ["ctc", "windows", "speakers", "keywords"])
def test_a_list_that_is_not_there_is_named(name, runs, tmp_path):
    status, _, err = evaluated(runs[name], tmp_path / "nothing.csv")
    assert status == 2 and "nothing.csv" in err and err.count("\n") == 1

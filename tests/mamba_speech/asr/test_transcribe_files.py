"""`mamba-speech transcribe` with files: names, what is there already, bad input, details beside the text."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import srt
import webvtt

from mamba_speech.asr.recognizer import Recognizer
from mamba_speech.asr.transcript_formats import FORMATS
from mamba_speech.cli import main


@pytest.fixture
def transcribe(trained, tmp_path, capsys):
    """Run the command; gives its status, standard output and standard error."""

    def call(*arguments, run=trained):
        status = main(["transcribe", str(run), *map(str, arguments), "--device", "cpu"])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_all_formats_hold_the_printed_text_and_other_parsers_read_them(transcribe, audio, tmp_path):
    out = tmp_path / "new" / "out"
    files = [audio / "6.wav", audio / "7.wav"]
    plain = transcribe(*files)[1]
    status, printed, _ = transcribe(*files, "--output_folder", out, "--word_times", "--confidence")
    assert (status, printed) == (0, plain)
    assert names(out) == sorted(f"{one}.{ending}" for one in "67" for ending in FORMATS)
    for line in plain.splitlines():
        path, text = line.split("\t")
        stem = out / os.path.basename(path).removesuffix(".wav")
        assert stem.with_suffix(".txt").read_text() == f"{text}\n"
        cues = list(srt.parse(stem.with_suffix(".srt").read_text()))
        assert " ".join(one.content.replace("\n", " ") for one in cues) == text
        captions = webvtt.read(stem.with_suffix(".vtt")).captions
        assert " ".join(one.text.replace("\n", " ") for one in captions) == text
        record = json.loads(stem.with_suffix(".json").read_text())
        words = [word for one in record["segments"] for word in one["words"]]
        assert [word["text"] for word in words] == text.split() == record["text"].split()
        times = [word[name] for word in words for name in ("start", "end")]
        assert times == sorted(times) and 0 <= times[0] and times[-1] <= record["seconds"]


def test_inputs_of_one_stem_have_files_of_their_own(transcribe, audio, tmp_path):
    inputs = tmp_path / "in"
    for name in ("a.wav", "b/a.wav", "b/A.wav"):
        (inputs / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(audio / "3.wav", inputs / name)
    shutil.copy(audio / "3.wav", inputs / "a.flac")
    out = tmp_path / "out"
    assert transcribe(inputs, "--output_folder", out, "--format", "txt")[0] == 0
    assert len(names(out)) == 4 and {"a.wav.txt", "a.flac.txt"} < set(names(out))


def test_results_that_are_there_are_never_replaced_unasked(transcribe, audio, tmp_path):
    options = (audio / "2.wav", audio / "3.wav", "--output_folder", tmp_path, "--format", "txt")
    (tmp_path / "2.txt").write_text("mine")
    status, printed, message = transcribe(*options)
    assert (status, printed, names(tmp_path)) == (2, "", ["2.txt"])
    assert message.count("\n") == 1 and "such as 2.txt: give --resume" in message
    status, printed, _ = transcribe(*options, "--resume")
    assert status == 0 and printed.startswith(str(audio / "3.wav")) and printed.count("\n") == 1
    assert (tmp_path / "2.txt").read_text() == "mine" and (tmp_path / "3.txt").is_file()
    assert transcribe(*options, "--overwrite")[0] == 0
    assert (tmp_path / "2.txt").read_text() != "mine"


def test_an_input_is_not_replaced_even_if_replacing_is_allowed(transcribe, audio, tmp_path):
    listed = tmp_path / "2.tsv"
    listed.write_text(f"path\n{audio / '2.wav'}\n")
    content = listed.read_text()
    options = ("--output_folder", tmp_path, "--format", "tsv", "--overwrite")
    status, _, message = transcribe(listed, audio / "2.wav", *options)
    assert status == 2 and "is an input and would be replaced" in message
    assert listed.read_text() == content


def test_a_bad_recording_ends_nothing_and_leaves_no_file(transcribe, audio, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    out = tmp_path / "out"
    options = ("--output_folder", out, "--format", "srt")
    status, printed, message = transcribe(bad, audio / "3.wav", *options)
    assert status == 1 and printed.startswith(str(audio / "3.wav")) and str(bad) in message
    assert [one.rpartition("/")[2] for one in names(out)] == ["3.srt"]


def test_an_unwritable_place_is_the_error_of_its_recording_alone(transcribe, audio, tmp_path):
    for name in ("in/x/a.wav", "in/y/a.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(audio / "3.wav", tmp_path / name)
    out = tmp_path / "out"
    out.mkdir()
    (out / "x").write_text("a file where a folder should be")
    options = ("--output_folder", out, "--format", "txt")
    status, printed, message = transcribe(tmp_path / "in", *options)
    assert status == 1 and "y/a.wav\t" in printed and printed.count("\n") == 1
    assert "could not be written" in message and (out / "y" / "a.txt").is_file()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--output_folder", "FILE"], "is a file, not a folder: give another"),
        (["--output_folder", "FILE/below"], "lies below a file: give another"),
        (["--format", "srt"], "--format is for files: give --output_folder too"),
        (["--word_times"], "--word_times has no place in lines of text"),
        (["--nbest", "2"], "--nbest has no place in lines of text"),
        (["--json", "--nbest", "2"], "2 needs decoding beam with a beam_size of 2 or more"),
        (["--output_folder", "NEW", "--overwrite", "--skip_existing"], "contradict one another"),
    ],
)
def test_options_that_cannot_be_met_give_one_sentence(
    options, sentence, transcribe, audio, tmp_path
):
    (tmp_path / "FILE").write_text("")
    options = [str(tmp_path / one) if one[0] in "FN" else one for one in options]
    status, printed, message = transcribe(audio / "2.wav", *options)
    assert (status, printed, message.count("\n")) == (2, "", 1) and sentence in message


def test_an_unknown_format_is_refused_with_the_known_ones(transcribe, audio, capsys):
    with pytest.raises(SystemExit):
        transcribe(audio / "2.wav", "--format", "doc")
    message = capsys.readouterr().err
    assert "--format" in message and "'doc'" in message and "vtt" in message


def test_details_are_in_json_lines_and_only_where_they_are_asked_for(transcribe, audio):
    plain = json.loads(transcribe(audio / "7.wav", "--json")[1])
    assert plain.keys() == {"path", "text", "seconds"}
    options = ("--json", "--word_times", "--confidence", "--decoding", "beam", "--nbest", "3")
    record = json.loads(transcribe(audio / "7.wav", *options)[1])
    assert [one["text"] for one in record["words"]] == record["text"].split()
    assert 0 <= record["confidence"] <= 1 and 1 < len(record["nbest"]) <= 3
    assert record["nbest"][0]["text"] == record["text"]
    scores = [one["score"] for one in record["nbest"]]
    assert scores == sorted(scores, reverse=True)
    assert len({one["text"] for one in record["nbest"]}) == len(scores)


def test_an_s2s_run_has_word_times_and_the_best_texts(transcribe, s2s, audio):
    options = ("--json", "--word_times", "--confidence", "--nbest", "2", "--beam_size", "3")
    plain = json.loads(transcribe(audio / "7.wav", "--json", "--beam_size", "3", run=s2s)[1])
    record = json.loads(transcribe(audio / "7.wav", *options, run=s2s)[1])
    assert record["text"] == plain["text"] == record["nbest"][0]["text"]
    assert [one["text"] for one in record["words"]] == record["text"].split()
    times = [word[name] for word in record["words"] for name in ("start", "end")]
    assert times == sorted(times) and 0 <= times[0] and times[-1] <= record["seconds"]
    status, _, message = transcribe(
        audio / "7.wav", "--json", "--nbest", "9", "--beam_size", "2", run=s2s
    )
    assert status == 2 and "9 needs a beam_size of 9 or more" in message


def test_a_run_without_a_ctc_loss_has_no_times_and_says_so(transcribe, s2s_run, audio, tmp_path):
    file = s2s_run / "hyperparams.yaml"
    lines = file.read_text().splitlines()
    changed = ["ctc_weight: 0.0" if one.startswith("ctc_weight:") else one for one in lines]
    assert changed != lines
    file.write_text("\n".join(changed) + "\n")
    out = tmp_path / "out"
    status, _, message = transcribe(
        audio / "2.wav", "--output_folder", out, "--format", "srt", run=s2s_run
    )
    assert status == 2 and "trained with ctc_weight 0" in message and names(out) == []
    options = ("--output_folder", out, "--format", "txt", "--beam_size", "2")
    assert transcribe(audio / "2.wav", *options, run=s2s_run)[0] == 0


def test_words_do_not_depend_on_the_batch(trained, audio):
    recognizer = Recognizer.load(trained, device="cpu")
    files = sorted(audio.glob("*.wav"))
    together = [one.words for one in recognizer.transcribe(files, word_times=True)]
    for file, words in zip(files, together, strict=True):
        alone = recognizer.transcribe(str(file), word_times=True).words
        assert [(one.text, one.start, one.end) for one in alone] == [
            (one.text, one.start, one.end) for one in words
        ]


@pytest.mark.exhaustive
def test_ctrl_c_keeps_whole_files_and_a_second_run_goes_on(trained, audio, tmp_path):
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    for number in range(3000):
        os.link(audio / "7.wav", inputs / f"{number:04d}.wav")
    command = [sys.executable, "-m", "mamba_speech.cli", "transcribe", trained, inputs]
    command += ["--output_folder", out, "--batch_seconds", "1", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not (out.is_dir() and len(list(out.iterdir())) > 20):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert "interrupted" in process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130
    kept = {path.name: path.read_text() for path in out.iterdir()}
    assert 20 < len(kept) < 5 * 3000 and not any(name.endswith(".partial") for name in kept)
    for name in (one for one in kept if one.endswith(".json")):
        json.loads(kept[name])
    done = {name.partition(".")[0] for name in kept}
    for path in list(inputs.iterdir()):
        if path.stem not in done and path.stem > max(done)[:2] + "99":
            path.unlink()
    again = subprocess.run([*command, "--skip_existing"], capture_output=True, check=False)
    assert again.returncode == 0
    assert all((out / name).read_text() == text for name, text in kept.items())

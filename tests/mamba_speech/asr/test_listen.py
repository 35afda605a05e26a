"""The command listen: lines and records of files, pipes and the microphone, and every way in which a stream can end."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
import soundfile
import torch

from mamba_speech import LiveRecognizer
from mamba_speech.asr import listen
from mamba_speech.asr.line_printer import LinePrinter, last_columns
from mamba_speech.asr.session import Session
from mamba_speech.cli import main
from tests.support.recipes import ROOT
from tests.support.recognition import RATE, read


@pytest.fixture(scope="module")
def long_file(audio, tmp_path_factory):
    """Twelve seconds of what the runs were made for, in integers so that every way in is exact."""
    samples = np.concatenate([read(audio / f"{number}.wav") for number in range(8)])
    path = tmp_path_factory.mktemp("long") / "long.wav"
    soundfile.write(path, samples, RATE, "PCM_16")
    return path


@pytest.fixture(scope="module")
def raw(long_file):
    return soundfile.read(long_file, dtype="int16")[0].tobytes()


def call(capsys, *words):
    """Run the command; its status, the lines of stdout, and stderr."""
    capsys.readouterr()
    status = main(["listen", *map(str, words), "--device", "cpu"])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out.splitlines(), err


def pipe_in(monkeypatch, content):
    """Give bytes on standard input, as from a pipe."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))


def test_a_file_gives_its_lines_with_times_and_a_summary(streaming_run, long_file, capsys):
    live = LiveRecognizer.load(streaming_run, device="cpu", decoding="greedy")
    context = live.make_context()
    samples = torch.from_numpy(read(long_file))
    updates = live.listen(samples, context) + live.finish(context)
    wanted = [word for update in updates for word in update.final]
    status, lines, err = call(capsys, streaming_run, long_file, "--decoding", "greedy")
    rows = [line.split("\t") for line in lines]
    assert status == 0 and len(rows) == sum(update.endpoint for update in updates) >= 1
    assert " ".join(text for *_, text in rows).split() == [word.text for word in wanted]
    times = [float(time) for *ends, _ in rows for time in ends]
    assert times == sorted(times) and times[0] == round(wanted[0].start, 2)
    assert times[-1] == round(wanted[-1].end, 2)
    (summary,) = err.splitlines()
    seconds = len(samples) / RATE
    assert f"{seconds:.1f} s heard, words: {len(wanted)}, real-time factor" in summary
    assert f"a result waits {1000 * live.latency:.0f} ms for its chunk" in summary


def test_records_for_programs_say_all_that_lines_say(chunked_run, long_file, capsys):
    _, lines, _ = call(capsys, chunked_run, long_file)
    status, out, err = call(capsys, chunked_run, long_file, "--json")
    *records, summary = map(json.loads, out)
    assert status == 0 and err == ""
    kinds = {
        kind: [one for one in records if one["type"] == kind]
        for kind in ("partial", "final", "endpoint")
    }
    assert sum(map(len, kinds.values())) == len(records)
    ends = [f"{one['start']:.2f}\t{one['end']:.2f}\t{one['text']}" for one in kinds["endpoint"]]
    assert ends == lines
    words = [word for one in kinds["final"] for word in one["words"]]
    assert [word["text"] for word in words] == " ".join(
        one["text"] for one in kinds["final"]
    ).split()
    assert " ".join(one["text"] for one in kinds["endpoint"]).split() == [
        one["text"] for one in words
    ]
    assert all(0 <= one["confidence"] <= 1 and one["start"] < one["end"] for one in words)
    times = [one["time"] for one in records]
    assert times == sorted(times)
    # no word is told before it was heard
    assert all(one["end"] <= one["time"] + 0.08 for one in kinds["final"])
    assert kinds["partial"] and all(one["text"] for one in kinds["partial"][:1])
    assert summary["type"] == "summary" and summary["words"] == len(words)
    assert summary["seconds"] == times[-1] and summary["latency"] == 0.32
    assert 0 < summary["real_time_factor"] and summary["work_p50"] <= summary["work_p95"]
    assert summary["final_p50"] <= summary["final_p95"] and "delay_p50" not in summary


@pytest.mark.parametrize("kind", ["raw", "wav", "odd bytes", "redirected"])
def test_standard_input_gives_what_the_file_gives(
    kind, chunked_run, long_file, raw, tmp_path, monkeypatch, capsys
):
    _, wanted, _ = call(capsys, chunked_run, long_file)
    options = ["--raw", RATE] if kind in ("raw", "odd bytes") else []
    if kind == "redirected":
        # of any format that files have
        soundfile.write(tmp_path / "x.flac", read(long_file), RATE, "PCM_16")
        file = open(tmp_path / "x.flac", encoding="latin-1")  # noqa: SIM115 - closed below
        monkeypatch.setattr(sys, "stdin", file)
    else:
        content = {"raw": raw, "odd bytes": raw + b"\1"}.get(kind, long_file.read_bytes())
        pipe_in(monkeypatch, content)
    status, lines, err = call(capsys, chunked_run, "-", *options)
    sys.stdin.close()
    assert status == 0 and lines == wanted and " s heard" in err


def test_a_redirected_file_is_called_standard_input(
    chunked_run, long_file, tmp_path, monkeypatch, capsys
):
    (tmp_path / "text").write_text("no sound at all")
    # cut off, which is worth a warning
    (tmp_path / "cut.wav").write_bytes(long_file.read_bytes()[:99_999])
    samples = read(long_file)
    samples[5 * RATE] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, RATE, "FLOAT")
    for name, wanted in (("text", 2), ("cut.wav", 0), ("nan.wav", 2)):
        with open(tmp_path / name, encoding="latin-1") as file:
            monkeypatch.setattr(sys, "stdin", file)
            status, _, err = call(capsys, chunked_run, "-")
        assert status == wanted and "standard input: " in err and "/dev/fd" not in err


def test_a_pipe_in_tiny_pieces_is_heard_all_the_same(chunked_run, long_file, raw, capsys):
    """Pieces shorter than the front-end's stride, down to single samples."""
    _, wanted, _ = call(capsys, chunked_run, long_file, "--json")
    session = Session(LiveRecognizer.load(chunked_run, device="cpu"))
    samples = torch.from_numpy(np.frombuffer(raw, "<i2").astype("float32") / 32768)
    sizes = [1] * 700 + [3, 100, 159, 161] * 40
    records = []
    for piece in samples.split([*sizes, len(samples) - sum(sizes)]):
        records += session.hear(piece)
    records += session.finish()

    def lines(found):
        return [
            (one["text"], one["start"], one["end"]) for one in found if one["type"] == "endpoint"
        ]

    assert lines(records) == lines(map(json.loads, wanted))
    assert session.summary()["seconds"] == round(len(samples) / RATE, 3)


@pytest.mark.parametrize(
    "name, options",
    [
        ("CTC", {"decoding": "beam", "beam_size": 4}),
        pytest.param("CTC", {"lm": "{lm}", "beam_size": 3}, marks=pytest.mark.exhaustive),
        pytest.param("S2S", {"decoding": "joint", "beam_size": 2}, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_a_search_gives_the_words_of_the_live_recogniser(
    name, options, make_run, lm_run, audio, capsys
):
    run, path = make_run(name), audio / "7.wav"
    options = {key: str(value).format(lm=lm_run) for key, value in options.items()}
    given = options | {"beam_size": int(options["beam_size"])}
    live = LiveRecognizer.load(run, device="cpu", **given)
    context = live.make_context()
    updates = live.listen(read(path), context) + live.finish(context)
    words = (word for key, value in options.items() for word in (f"--{key}", value))
    status, out, _ = call(capsys, run, path, *words, "--json")
    records = [one for one in map(json.loads, out) if one["type"] == "final"]
    assert status == 0 and records
    wanted = [word.text for update in updates for word in update.final]
    assert [word["text"] for one in records for word in one["words"]] == wanted


def test_a_stream_that_stops_in_mid_word_gives_that_word(chunked_run, raw, monkeypatch, capsys):
    session = Session(LiveRecognizer.load(chunked_run, device="cpu"))
    samples = torch.from_numpy(np.frombuffer(raw, "<i2").astype("float32") / 32768)
    for piece in samples.split(5120):
        begun = [one["text"] for one in session.hear(piece) if one["type"] == "partial"]
        if session.samples > 3 * RATE and begun and begun[-1]:
            break
    pipe_in(monkeypatch, raw[: 2 * session.samples])
    status, lines, _ = call(capsys, chunked_run, "-", "--raw", RATE)
    assert status == 0 and lines[-1].split()[-1].startswith(begun[-1].split()[-1])


def test_minutes_of_silence_give_no_words_without_end(chunked_run, monkeypatch, capsys):
    pipe_in(monkeypatch, bytes(2 * RATE * 180))
    options = ["--raw", RATE, "--json", "--chunk_size", 50]
    status, out, _ = call(capsys, chunked_run, "-", *options)
    records = list(map(json.loads, out))
    assert status == 0 and records[-1]["seconds"] == 180.0
    assert len(records) < 30 and records[-1]["words"] < 10


def test_a_rate_that_changes_in_mid_stream_is_followed_with_a_word(
    chunked_run, long_file, monkeypatch, capsys, caplog
):
    other = io.BytesIO()
    soundfile.write(other, read(long_file)[::2], 8000, "PCM_16", format="WAV")
    pipe_in(monkeypatch, long_file.read_bytes() + other.getvalue())
    status, lines, err = call(capsys, chunked_run, "-")
    seconds = 2 * len(read(long_file)) / RATE
    assert status == 0 and f"{seconds:.1f} s heard" in err
    assert "its rate changes from 16000 to 8000 Hz" in caplog.text + err
    assert float(lines[-1].split("\t")[1]) > seconds / 2


@pytest.mark.parametrize(
    "words, said",
    [
        (["{run}", "a.wav", "b.wav"], "hears one stream, and was given 2 inputs"),
        (["{run}", "{folder}"], "names many recordings"),
        (["{run}", "{folder}/list.csv"], "names many recordings"),
        (["{run}", "{folder}/none.wav"], "none.wav: no such file"),
        (["{run}", "{folder}/text.wav"], "text.wav"),
        (["{run}", "x.wav", "--raw", "16000"], "--raw is of standard input"),
        (["{run}", "microphone", "--real_time"], "leave out --real_time"),
        (["{causal}", "x.wav", "--chunk_size", "4"], "has no chunk_size"),
        (
            ["{run}", "x.wav", "--decoding", "joint"],
            "joint needs the decoder of a run of train_S2S",
        ),
        (["{run}", "x.wav", "--decoding", "greedy", "--beam_size", "3"], "leave out beam_size"),
        (["{run}", "x.wav", "--lm", "{folder}/none"], "none"),
        (["{whole}", "x.wav"], "train with a streaming YAML"),
        (["{spotter}", "x.wav"], "this is a keyword run: use `mamba-speech spot`"),
        (["{folder}", "x.wav"], "is not the output folder of a run"),
    ],
    ids=str,
)
def test_what_cannot_be_heard_gets_one_sentence(
    words, said, make_run, chunked_run, trained, spotters, tmp_path, capsys
):
    (tmp_path / "list.csv").write_text("path\na.wav\n")
    (tmp_path / "text.wav").write_text("no audio")
    places = {"run": chunked_run, "whole": trained, "folder": tmp_path}
    places["spotter"] = spotters / "causal"
    if "{causal}" in words:
        places["causal"] = make_run("CTC, causal")
    status, out, err = call(capsys, *(word.format(**places) for word in words))
    assert (status, out) == (2, []) and err.count("\n") == 1 and said in err


@pytest.mark.parametrize(
    "option", ["--chunk_size=0", "--raw=0", "--endpoint_seconds=0", "--beam_size=0"]
)
def test_numbers_out_of_their_range_are_refused(option, chunked_run, capsys):
    with pytest.raises(SystemExit):
        main(["listen", str(chunked_run), "x.wav", option])
    assert "must be" in capsys.readouterr().err


def test_a_standard_input_without_sound_gets_one_sentence(chunked_run, monkeypatch, capsys):
    pipe_in(monkeypatch, b"")
    for options in ([], ["--raw", RATE]):
        status, out, err = call(capsys, chunked_run, "-", *options)
        assert (status, out) == (2, []) and "standard input: ended before the first sample" in err
    sys.stdin.close()
    for stdin in (sys.stdin, None):
        monkeypatch.setattr(sys, "stdin", stdin)
        status, out, err = call(capsys, chunked_run, "-")
        assert (status, out) == (2, []) and "standard input is closed" in err
    main_end, terminal = os.openpty()
    monkeypatch.setattr(sys, "stdin", os.fdopen(terminal))
    status, out, err = call(capsys, chunked_run, "-")
    assert (status, out) == (2, []) and "standard input is a terminal" in err
    os.close(main_end)
    pipe_in(monkeypatch, b"x" * 100)
    status, out, err = call(capsys, chunked_run, "-")
    assert (status, out) == (2, []) and "--raw 16000" in err


def test_a_pipe_that_does_not_wait_is_waited_for(chunked_run, raw, monkeypatch, capsys):
    """Some programs start others with such a pipe, and an empty one would look like the end."""
    pipe_in(monkeypatch, raw[:60_000])
    _, wanted, _ = call(capsys, chunked_run, "-", "--raw", RATE)
    out, into = os.pipe()
    os.set_blocking(out, False)
    monkeypatch.setattr(sys, "stdin", os.fdopen(out))

    def feed():
        # as soon as the command waits
        while not os.get_blocking(out):
            time.sleep(0.01)
        os.write(into, raw[:60_000])
        os.close(into)

    writer = threading.Thread(target=feed, daemon=True)
    writer.start()
    status, lines, _ = call(capsys, chunked_run, "-", "--raw", RATE)
    assert status == 0 and lines == wanted
    writer.join()
    sys.stdin.close()


def test_sound_that_ends_by_an_error_is_printed_as_far_as_it_went(
    chunked_run, long_file, monkeypatch, capsys
):
    samples = read(long_file)
    samples[5 * RATE] = np.nan
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, "FLOAT", format="WAV")
    pipe_in(monkeypatch, file.getvalue())
    status, lines, err = call(capsys, chunked_run, "-")
    assert status == 1 and lines and float(lines[-1].split("\t")[1]) <= 5.1
    assert "mamba-speech: error: standard input: holds samples that are not finite" in err
    assert " s heard" in err
    pipe_in(monkeypatch, file.getvalue())
    status, out, err = call(capsys, chunked_run, "-", "--json")
    *_, error, summary = map(json.loads, out)
    assert status == 1 and error["type"] == "error" and "not finite" in error["error"]
    assert summary["type"] == "summary" and 4 < summary["seconds"] <= 5


def test_samples_that_the_network_refuses_end_the_sound_as_an_unplugged_device_does(
    chunked_run, long_file, monkeypatch, capsys
):
    """A driver may give what no file may hold: what was said until then is printed."""

    def broken(sample_rate, seconds):
        yield from torch.from_numpy(read(long_file)).split(640)
        yield torch.full((640,), torch.nan)

    monkeypatch.setattr(listen, "microphone", broken)
    _, wanted, _ = call(capsys, chunked_run, long_file)
    status, lines, err = call(capsys, chunked_run)
    assert status == 1 and lines == wanted
    assert "error: microphone: a piece must hold finite samples" in err


@pytest.fixture
def unplugged(monkeypatch, long_file):
    """A microphone that hears the file and is then unplugged."""
    samples = read(long_file)

    class InputStream:
        def __init__(self, samplerate, blocksize, callback, finished_callback, **_):
            for block in np.split(samples, range(blocksize, len(samples), blocksize)):
                callback(block[:, None], len(block), None, None)
            finished_callback()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        abort = __enter__

    device = types.ModuleType("sounddevice")
    device.PortAudioError, device.InputStream = ConnectionError, InputStream
    device.check_input_settings = lambda **_: None
    monkeypatch.setitem(sys.modules, "sounddevice", device)


def test_a_microphone_that_is_unplugged_gives_what_it_heard(
    chunked_run, long_file, unplugged, capsys
):
    _, wanted, _ = call(capsys, chunked_run, long_file)
    # the microphone is the default
    for words in ([], ["microphone"]):
        status, lines, err = call(capsys, chunked_run, *words)
        assert status == 1 and lines == wanted
        assert "error: microphone: the microphone gave no more sound after" in err
        assert "behind the chunk's end" in err


def test_without_a_microphone_one_sentence_says_what_to_install(chunked_run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    status, out, err = call(capsys, chunked_run)
    assert (status, out) == (2, []) and "pip install sounddevice" in err


def test_ctrl_c_in_the_middle_of_the_work_ends_with_all_that_was_heard(
    chunked_run, long_file, monkeypatch, capsys
):
    """The piece that is at work is finished first, so that its words are not lost."""
    hear, seen = Session.hear, []

    def interrupted(self, samples):
        seen.append(len(samples))
        if len(seen) == 20:
            signal.raise_signal(signal.SIGINT)
        return hear(self, samples)

    monkeypatch.setattr(Session, "hear", interrupted)
    before = signal.getsignal(signal.SIGINT)
    status, lines, err = call(capsys, chunked_run, long_file)
    assert status == 130 and len(seen) == 20 and lines
    assert f"{sum(seen) / RATE:.1f} s heard" in err and "interrupted" in err
    assert signal.getsignal(signal.SIGINT) is before


def start(run, *words, **pipes):
    command = [sys.executable, "-m", "mamba_speech.cli", "listen", str(run), *map(str, words)]
    return subprocess.Popen(
        [*command, "--device", "cpu"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **pipes,
    )


def test_ctrl_c_while_a_pipe_is_waited_for_ends_with_what_was_heard(chunked_run, raw):
    command = start(chunked_run, "-", "--raw", RATE, "--json", stdin=subprocess.PIPE)
    command.stdin.write(raw)
    command.stdin.flush()
    first = command.stdout.readline()
    # the pipe stays open: more might come
    command.send_signal(signal.SIGINT)
    records = [json.loads(line) for line in (first, *command.stdout)]
    error = command.stderr.read()
    assert command.wait() == 130 and error == b"mamba-speech: interrupted\n"
    assert records[-1]["type"] == "summary" and records[-1]["seconds"] > 0
    command.stdin.close()


def test_a_reader_that_leaves_ends_the_command_in_silence(chunked_run, raw):
    command = start(chunked_run, "-", "--raw", RATE, "--json", stdin=subprocess.PIPE)
    command.stdout.close()
    # the pipe breaks as soon as the command has left, and it may leave before all is written
    feed = threading.Thread(target=lambda: feed_all(command.stdin, raw))
    feed.start()
    assert command.stderr.read() == b"" and command.wait() == 1
    feed.join()


def feed_all(pipe, content):
    try:
        for _ in range(50):
            pipe.write(content)
        pipe.close()
    except BrokenPipeError:
        pass


@pytest.mark.exhaustive
def test_a_slow_reader_loses_nothing(chunked_run, long_file):
    command = start(chunked_run, long_file, "--json")
    found = b"".join(iter(lambda: command.stdout.read(7), b""))
    assert command.wait() == 0
    records = list(map(json.loads, found.splitlines()))
    assert records[-1]["seconds"] == round(len(read(long_file)) / RATE, 3)
    finals = sum(len(one.get("words", ())) for one in records[:-1])
    assert finals == records[-1]["words"] > 5


def test_a_terminal_shows_one_line_that_grows_and_then_stays(
    chunked_run, long_file, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "40")
    session = Session(LiveRecognizer.load(chunked_run, device="cpu"))
    printer = LinePrinter(is_terminal=True)
    for piece in torch.from_numpy(read(long_file)).split(5120):
        printer.show(session.hear(piece), session)
    printer.show(session.finish(), session)
    printer.end(session.summary())
    shown = capsys.readouterr().out
    parts = re.split("\r\x1b\\[K", shown)
    lines = [line for part in parts for line in part.splitlines() if "\t" in line]
    _, wanted, _ = call(capsys, chunked_run, long_file)
    assert lines == wanted
    growing = [part for part in parts if part and "\t" not in part]
    assert len(growing) > 5 and all(len(part) <= 39 and "\n" not in part for part in growing)
    # nothing of the growing line is left behind
    assert shown.endswith("\n") and shown.count("\n") == len(wanted)


def test_a_line_that_is_too_wide_shows_its_end():
    assert last_columns("日本語の文", 10) == "日本語の文"
    assert last_columns("日本語の文", 9) == "...語の文"
    assert last_columns("e\u0301" * 9, 9) == "e\u0301" * 9
    for width in range(1, 12):
        assert len(last_columns("one two three four", width)) <= width
    assert last_columns("one two", 3) == "two"


def test_a_file_in_real_time_is_given_when_its_samples_are_due(monkeypatch):
    now = [100.0]
    clock = types.SimpleNamespace(
        monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    monkeypatch.setattr(listen, "time", clock)
    due = []
    for _ in listen.paced(iter([torch.zeros(1600)] * 3), RATE):
        due.append(now[0])
        # slower than the sound for once: then it catches up
        now[0] += 0.15 if len(due) == 1 else 0.0
    assert due == pytest.approx([100.1, 100.25, 100.3])


def test_in_real_time_the_delay_behind_the_sound_is_told(chunked_run, audio, capsys):
    status, out, _ = call(capsys, chunked_run, audio / "0.wav", "--real_time", "--json")
    summary = json.loads(out[-1])
    assert status == 0 and summary["seconds"] == 0.4
    assert 0 <= summary["delay_p50"] <= summary["delay_p95"]

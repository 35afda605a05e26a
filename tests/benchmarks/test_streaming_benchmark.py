"""The benchmark of streams: what it finds, what it times, and the tables that it writes."""

import json

import pytest
import torch

from data_prep.spoken import generate_librispeech
from tests.support.benchmarks import FOLDER, fill_readme, run
from tests.support.recipes import call_main

RATE = 16000


@pytest.fixture
def runs(load, tmp_path):
    """Parts of debug runs by name, and their folders."""
    folders = load("streaming").random_runs(tmp_path / "runs", None, "debug")
    return {name: load("streaming_models").parts_of(folder) for name, folder in folders.items()}


def test_the_latency_that_is_found_is_the_one_that_is_told_unless_more_is_read(load, runs):
    module = load("streaming_latency")
    found = module.measure_latency(runs["chunked"], 4, seconds=2)
    assert found["found"] == found["told"] == module.told_latency(runs["chunked"], 4) == 0.16
    assert found["front_end"] == 0 and not found["hears_all"]
    assert module.measure_latency(runs["causal"], None, seconds=2)["found"] == 0.04
    assert module.measure_latency(runs["RoPEMHA"], 4, seconds=2)["found"] == 0.16
    whole = module.measure_latency(runs["full"], None, seconds=2)
    assert whole["hears_all"] and whole["found"] is None
    # a front-end that reads ahead is found out
    late = (EarlyFeatures(runs["chunked"][0]), *runs["chunked"][1:])
    assert module.measure_latency(late, 4, seconds=2)["front_end"] == 100 / RATE


class EarlyFeatures:
    """Features that read 100 samples ahead."""

    def __init__(self, features):
        self.features, self.hop = features, features.hop

    def __call__(self, wavs, wav_lens):
        return self.features(torch.roll(wavs, -100, 1), wav_lens)


def test_every_stream_that_is_timed_gives_the_frames_of_its_samples(load, runs):
    module, models = load("streaming_chunks"), load("streaming_models")
    ways = module.streams(runs, 4)
    assert len(ways) == 3 + 2 * len(module.CONTEXTS)
    for hear in ways.values():
        outputs = [hear(0.1 * torch.randn(1, 4 * 640)) for _ in range(3)]
        frames = [getattr(one, "log_probs", one) for one in outputs]
        assert [one.shape[1] for one in frames] == [4, 4, 4]
    # the Conformer that is timed computes what training computed
    wavs = 0.1 * torch.randn(1, 20 * 640)
    stream = models.ConformerStream(*runs["RoPEMHA"], 4, 2)
    context = stream.make_streaming_context()
    pieces = [stream.forward_streaming(piece, context) for piece in wavs.split(900, 1)]
    streamed = torch.cat([one for one in pieces if one is not None], 1)[0]
    whole = models.log_probs_of(runs["RoPEMHA"], wavs, stream.chunks)
    assert len(streamed) == 20
    torch.testing.assert_close(streamed, whole[:20], rtol=0, atol=1e-3)


def test_times_of_chunks_and_their_goals_make_a_table(load, runs):
    times = {4: load("streaming_chunks").time_chunks(runs, 4, rounds=2)}
    assert all(0 < one["p50"] <= one["p95"] for one in times[4].values())
    times[4]["ConMamba over chunks"] |= {"p50": 0.001}
    times[4]["Conformer, RoPEMHA, 4 chunks before"] |= {"p50": 0.0025}
    times[4]["Conformer, RoPEMHA, 32 chunks before"] |= {"p50": 0.0015}
    rows = {row["model"]: row for row in load("streaming").chunks_table({"times": times})}
    assert rows["Conformer, RoPEMHA, 4 chunks before"]["goal"] == "at least 2: met"
    assert rows["Conformer, RoPEMHA, 32 chunks before"]["goal"] == "at least 2: missed"


def test_pieces_of_the_hour_are_its_utterances(load, audio_folder):
    module = load("streaming_hour")
    wavs = list(module.utterances(audio_folder, RATE, 4))
    assert sum(map(len, wavs)) == 4 * RATE and len(wavs) > 4
    pieces = list(module.as_chunks(wavs, 5120))
    assert {len(piece) for piece in pieces[:-1]} == {5120}
    assert torch.equal(torch.cat(pieces), torch.cat(wavs))


@pytest.fixture
def audio_folder(tmp_path):
    from tests.support.recognition import write_noise

    folder = tmp_path / "speech"
    folder.mkdir()
    for number in range(2):
        write_noise(folder / f"{number}.wav", 0.7, number)
    return folder


def wer_row(kind, chunk, past, wer, lm=False):
    return {
        "lm": lm,
        "run": kind,
        "chunk": chunk,
        "past": past,
        "wer": wer,
        "low": wer,
        "high": wer,
        "errors": 1,
        "words": 10,
    }


def test_goals_of_word_errors_compare_what_they_say(load):
    module = load("streaming_wer")
    rows = [wer_row("chunked", 8, None, 9.0), wer_row("chunked", None, None, 8.0)]
    rows += [wer_row("full", None, None, 7.0), wer_row("conformer", 8, None, 8.5)]
    found = module.goals({"rows": rows})
    assert [(one["found"], one["at most"], one["met"]) for one in found] == [
        ("7.0", "10", "yes"),
        ("28.6", "20", "no"),
        ("9.0", "8.5", "no"),
    ]
    assert module.goals({"rows": rows[3:]}) == []
    # with a language model where there is one
    rows += [
        wer_row("chunked", None, None, 2.0, lm=True),
        wer_row("full", None, None, 1.0, lm=True),
    ]
    assert [one["found"] for one in module.goals({"rows": rows})] == ["1.0"]


@pytest.mark.parametrize(
    "words, said",
    [
        (["--stages", "wer"], "needs --data_folder, and --runs or --train"),
        (["--runs", "best=x"], "is not NAME=FOLDER"),
        (["--option", "number_of_epochs"], "is not NAME=VALUE"),
        (["--chunks", "0"], "is not 1 or more"),
        (["--speech", "{tmp}/none"], "no such folder"),
    ],
)
def test_a_wrong_option_is_refused(words, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        call_main(FOLDER, "streaming", *(one.format(tmp=tmp_path) for one in words))
    assert stopped.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.exhaustive
def test_a_short_run_writes_every_table_and_stages_add_up(audio_folder, tmp_path):
    few = ["--size", "debug", "--speech", audio_folder, "--out", tmp_path, "--chunks", 2, 8]
    done = run("streaming.py", *few, "--stages", "latency", "chunks", "--rounds", 2)
    assert done.returncode == 0, done.stderr
    done = run("streaming.py", *few, "--stages", "hour", "--minutes", 2)
    assert done.returncode == 0, done.stderr
    latency, chunks, (hour,), conditions = (
        json.loads((tmp_path / f"streaming_{name}.json").read_text())
        for name in ("latency", "chunks", "hour", "conditions")
    )
    assert len(latency) == 6 and {row["as told"] for row in latency} == {"yes", "-"}
    assert len(chunks) == 14 and [one["stage"] for one in conditions] == [
        "latency",
        "chunks",
        "hour",
    ]
    assert hour["minutes"] == 2 and hour["words"] > 0
    assert hour["words that differ from utterances with carried state"] <= hour["words"] / 100
    assert (tmp_path / "streaming_hour.png").stat().st_size > 1000
    fill_readme(tmp_path, [f"streaming_{name}" for name in ("latency", "chunks", "hour")])


@pytest.mark.exhaustive
def test_runs_are_trained_alike_and_read_with_every_latency(tmp_path):
    generate_librispeech(
        tmp_path / "spoken", hours=20 / 3600, dev_minutes=1 / 12, test_minutes=1 / 12, jobs=1
    )
    few = [
        "number_of_epochs=1",
        "optimizer_step_limit=2",
        "num_workers=0",
        "d_model=16",
        "d_ffn=16",
    ]
    few += ["max_batch_length_train=15"]
    done = run(
        "streaming.py", "--stages", "wer", "--train", tmp_path / "runs", "--size", "debug",
        "--data_folder", tmp_path / "spoken", "--chunks", 2, 8, "--contexts", 4, "--out", tmp_path,
        "--option", *few,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    rows = json.loads((tmp_path / "streaming.json").read_text())["wer"]["rows"]
    assert [(row["run"], row["chunk"], row["past"]) for row in rows] == [
        ("causal", 1, None),
        ("chunked", 2, None),
        ("chunked", 8, None),
        ("chunked", None, None),
        ("full", None, None),
        *(("conformer", size, past) for past in (None, 4) for size in (2, 8)),
        ("conformer", None, None),
    ]
    assert len({row["words"] for row in rows}) == 1 and rows[0]["words"] > 0
    assert (tmp_path / "streaming_wer.png").stat().st_size > 1000
    # what is trained is read again without training
    again = run(
        "streaming.py", "--stages", "wer", "--runs", f"chunked={tmp_path / 'runs' / 'chunked'}",
        "--data_folder", tmp_path / "spoken", "--chunks", 2, 8, "--out", tmp_path / "again",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    same = json.loads((tmp_path / "again" / "streaming.json").read_text())["wer"]["rows"]
    assert same == [row for row in rows if row["run"] == "chunked"]

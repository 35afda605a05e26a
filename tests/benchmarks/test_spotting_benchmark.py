"""The benchmark of listening: what it times, and the table that it writes."""

import json

import pytest

from tests.support.benchmarks import FOLDER, run
from tests.support.recipes import call_main


@pytest.mark.exhaustive
def test_a_short_run_writes_a_row_for_every_way_of_listening(tmp_path):
    done = run("spotting.py", "--rounds", 1, "--hops", 1, 0.5, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "spotting_cost.json").read_text())
    assert len(rows) == 4
    assert list(rows[0])[1:] == ["every 1000 ms", "every 500 ms"]
    work = json.loads((tmp_path / "spotting.json").read_text())["work"]
    assert all(seconds > 0 for row in work.values() for seconds in row.values())


def test_every_way_of_listening_hears_the_stream(load):
    ways = load("spotting").functions(hop=1)
    assert len(ways) == 4
    for listen in ways.values():
        listen()


def test_a_hop_without_a_frame_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        call_main(FOLDER, "spotting", "--hops", "0.001", "--out", tmp_path)
    assert (
        stopped.value.code == 2
        and "--hops: must be from 0.02 to 1; got 0.001" in capsys.readouterr().err
    )


@pytest.mark.parametrize("hop", [0.5, 0.1])
def test_windows_are_as_many_as_the_hop_says_and_blocks_read_each_sample_once(load, hop):
    spotting = load("spotting")
    seen = []

    class Listener:
        hop_length, subsampling = 256, 2

        def initial_state(self, batch, window=None):
            return None

        def forward_chunk(self, wavs, state):
            seen.append(wavs.shape[1])
            return wavs[:, :, None], state

        stream = forward_chunk

        def __call__(self, wavs, *_):
            seen.append(wavs.shape[1])
            return (wavs,)

    listener = Listener()
    spotting.by_windows(listener, lambda wavs: None, hop)()
    assert seen == [16000] * round(spotting.SECONDS / hop)
    seen.clear()
    listener.stream = lambda features, state: (features, state)
    spotting.by_blocks(listener, listener, hop)()
    assert sum(seen) == spotting.SECONDS * 16000

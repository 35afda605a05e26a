"""Sizes, states and environments that no network can have: each is refused by name, at once."""

import numpy as np
import pytest
import torch
from speechbrain.utils.run_opts import RunOptions

from modules.kws.retention import retention_chunkwise, retention_parallel, retention_recurrent
from modules.separation.si_snr import pit_si_snr
from modules.speaker.windows import cut_crops, cut_windows
from modules.ssm import BiMamba, Mamba, depthwise_conv1d, selective_scan
from tests.support.operators import (
    BATCH,
    BLOCK,
    BOTH_WAYS,
    CHANNELS,
    STACK,
    TIME,
    WIDTH,
    WITHOUT_STATE,
    refuse,
    retention_inputs,
    scan_inputs,
)
from training.experiment import check_device


@pytest.mark.parametrize(
    "state",
    [
        torch.ones(2, 5),
        (None, None),
        BLOCK.initial_state(3),
        Mamba(CHANNELS, d_state=5).initial_state(BATCH),
        Mamba(CHANNELS, d_conv=2).initial_state(BATCH),
        BLOCK.initial_state(BATCH, dtype=torch.int64),
        tuple(reversed(BLOCK.initial_state(BATCH))),
        BLOCK.initial_state(BATCH)[:1],
        "state",
    ],
    ids=["tensor", "Nones", "batch", "d_state", "d_conv", "integers", "swapped", "half", "text"],
)
def test_a_state_of_another_block_is_refused(state):
    x = torch.randn(BATCH, TIME, CHANNELS)
    for block in (BLOCK, BOTH_WAYS):
        refuse(lambda block=block: block(x, state=state), "state")
        refuse(lambda block=block: block.final_state(x, state=state), "state")
    refuse(lambda: BLOCK.step(x[:, 0], state), "state")
    refuse(lambda: STACK(x, states=[state, state]), "state")
    refuse(lambda: STACK(x, states=[BLOCK.initial_state(BATCH)]), "states")


@pytest.mark.parametrize("name", ["d_model", "d_state", "d_conv", "dt_rank"])
@pytest.mark.parametrize("value", [0, -1, 1.5, float("nan"), "8", None, True, [8]], ids=repr)
def test_a_size_of_a_block_is_a_whole_number_from_one(name, value):
    for block in (Mamba, BiMamba):
        refuse(lambda block=block: block(**{"d_model": CHANNELS} | {name: value}), name)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"expand": 0}, "expand"),
        ({"expand": -2}, "expand"),
        ({"expand": float("inf")}, "expand"),
        ({"expand": "2"}, "expand"),
        ({"expand": 0.1}, r"expand * d_model"),
        ({"dt_min": 0}, "dt_min"),
        ({"dt_min": float("nan")}, "dt_min"),
        ({"dt_max": -1.0}, "dt_max"),
        ({"dt_min": 1.0, "dt_max": 0.1}, "dt_min"),
        ({"dt_scale": 0}, "dt_scale"),
        ({"dt_init_floor": None}, "dt_init_floor"),
        ({"dt_init": "zeros"}, "dt_init"),
    ],
    ids=repr,
)
def test_a_step_or_an_expansion_that_makes_no_block_is_refused(options, named):
    refuse(lambda: Mamba(CHANNELS, **options), named)


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", None])
def test_a_chunk_of_retention_is_a_frame_or_more(value):
    refuse(lambda: retention_chunkwise(**retention_inputs(), chunk=value), "chunk")


@pytest.mark.parametrize("value", [-1, WIDTH, 1.5, None, "1", 2**70])
def test_frames_ahead_lie_within_the_width(value):
    refuse(lambda: depthwise_conv1d(**WITHOUT_STATE, ahead=value), "ahead")


def test_a_step_of_no_utterances_and_a_state_after_no_frames_are_taken():
    y, state = BLOCK.step(torch.randn(0, CHANNELS), BLOCK.initial_state(0))
    assert y.shape == (0, CHANNELS) and state.conv.shape[0] == 0
    before = BLOCK(torch.randn(BATCH, TIME, CHANNELS), return_state=True)[1]
    after = BLOCK.final_state(torch.randn(BATCH, 0, CHANNELS), state=before)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("function", [retention_parallel, retention_recurrent, retention_chunkwise])
def test_retention_of_no_frames_hands_its_state_on(function):
    given = retention_inputs()
    nothing = given | {name: given[name][:, :0] for name in "qkv"}
    out, state = function(**nothing)
    assert out.shape == (BATCH, 0, 2, CHANNELS) and torch.equal(state, given["state"])


def test_numbers_of_numpy_are_whole_numbers_and_switches_too():
    assert Mamba(np.int64(CHANNELS), d_state=np.int32(3)).d_state == 3
    given = scan_inputs()
    assert torch.equal(selective_scan(**given, reverse=1), selective_scan(**given, reverse=True))


def test_no_size_makes_a_loop_without_end():
    for longest in (0, -1, 0.5, None):
        refuse(lambda n=longest: list(cut_windows([torch.zeros(5)], n)), "longest")
        refuse(lambda n=longest: cut_crops(torch.zeros(5), n), "size")
    refuse(lambda: cut_crops(torch.zeros(0), 5), "waveform")
    refuse(lambda: pit_si_snr(*torch.randn(2, 1, 100, 12)), "targets")


@pytest.mark.parametrize("backend", ["fast", "mamba_ssm", "triton"])
def test_a_training_is_refused_at_once_where_the_environment_s_backend_cannot_run(
    backend, monkeypatch
):
    monkeypatch.setenv("MAMBA_SPEECH_BACKEND", backend)
    with pytest.raises(SystemExit, match=f"{backend}.*MAMBA_SPEECH_BACKEND"):
        check_device(RunOptions(device="cpu"), {})
    monkeypatch.setenv("MAMBA_SPEECH_BACKEND", "torch")
    check_device(RunOptions(device="cpu"), {})

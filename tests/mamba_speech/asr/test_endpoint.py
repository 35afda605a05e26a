"""Where utterances end."""

import pytest

from mamba_speech.asr.endpoint import EndpointOptions, EndpointState, find_endpoint


def ends(silent, options, pieces=None):
    """Frames at which utterances end, with the frames in pieces."""
    found, state, at = [], EndpointState(), 0
    for piece in pieces or [len(silent)]:
        new = silent[at : at + piece]
        while new:
            if not state.begun:
                # a stream waits for a sound
                while new and new[0]:
                    new, at = new[1:], at + 1
                if not new:
                    break
            count, is_end, state = find_endpoint(new, state, options, 0.04)
            new, at = new[count:], at + count
            if is_end:
                found.append(at)
    return found


def test_a_stated_silence_ends_an_utterance_in_pieces_as_in_whole():
    options = EndpointOptions(endpoint_silence=0.2)
    silent = [True] * 9 + [False, True] * 4 + [True] * 12 + [False] + [True] * 20
    # the sound before is frame 15; the next one is frame 29
    assert ends(silent, options) == [21, 35]
    assert ends(silent, options, [1] * len(silent)) == [21, 35]
    assert ends(silent, EndpointOptions(endpoint_silence=None)) == []


def test_a_long_utterance_ends_in_ever_shorter_pauses_and_at_last_in_mid_word():
    options = EndpointOptions(endpoint_silence=0.8, max_utterance=4.0)
    # 100 frames at most, and 20 silent ones; after 74 frames 20 * 2 * (1 - 0.74) suffice
    assert ends(([False] * 63 + [True] * 18) + [False] * 50, options)[0] == 63 + 11
    assert ends([False] * 250, options) == [100, 200]


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint_silence": 0},
        {"endpoint_silence": float("nan")},
        {"max_utterance": None},
        {"max_utterance": -1},
        {"endpoint_level": "loud"},
    ],
)
def test_options_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EndpointOptions(**wrong)

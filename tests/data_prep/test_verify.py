"""Reading recordings before they enter a manifest: what each way to read finds wrong."""

import numpy as np
import pytest
import soundfile

from data_prep.inspection import BLOCK
from data_prep.verify import (
    Candidate,
    check_utterances,
    inspect,
    is_prepared,
    still_bad,
    write_skipped,
)
from mamba_speech.files import write_json
from tests.support.damage import cut_short, overwrite_middle

NOISE = 0.1 * np.random.default_rng(0).standard_normal(40000)


@pytest.mark.parametrize("verify", ["full", "header"])
@pytest.mark.parametrize("form", ["flac", "wav", "ogg"])
def test_a_sound_recording_of_any_form_is_measured(tmp_path, form, verify):
    path = tmp_path / f"a.{form}"
    soundfile.write(path, np.stack([NOISE, NOISE], axis=1), 16000)
    assert inspect(path, verify) == (40000, 16000, None)


def test_a_recording_longer_than_a_block_is_read_to_its_end(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(BLOCK + 7, dtype="int16"), 16000)
    assert inspect(path) == (BLOCK + 7, 16000, None)
    content = path.read_bytes()
    path.write_bytes(content[:-20] + b"damage to its end..."[:20])
    assert inspect(path)[2]


def test_damage_within_a_flac_is_found_by_reading_all_of_it_alone(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, NOISE, 16000)
    overwrite_middle(path)
    assert inspect(path, "header") == (40000, 16000, None)
    assert inspect(path, "full") == (0, 1, "unreadable audio")


@pytest.mark.parametrize("verify", ["full", "header"])
def test_what_no_reading_can_use_has_a_reason(tmp_path, verify):
    soundfile.write(tmp_path / "cut.flac", NOISE, 16000)
    cut_short(tmp_path / "cut.flac")
    assert inspect(tmp_path / "cut.flac", verify)[2] in ("unreadable audio", "truncated audio")
    (tmp_path / "empty.wav").touch()
    assert inspect(tmp_path / "empty.wav", verify)[2] == "empty audio file"
    assert inspect(tmp_path / "absent.wav", verify)[2] == "audio file not found"
    assert inspect(tmp_path, verify)[2] == "audio file not found"
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan, 0.0]), 16000, subtype="FLOAT")
    assert inspect(tmp_path / "nan.wav", verify)[2] == "samples that are not finite numbers"
    soundfile.write(tmp_path / "loud.wav", np.array([0.0, 3e38, 0.0]), 16000, subtype="FLOAT")
    assert inspect(tmp_path / "loud.wav", verify)[2] == "samples that are no sound"


def test_a_line_break_enters_no_manifest(tmp_path):
    path = tmp_path / "two\nlines.wav"
    soundfile.write(path, NOISE, 16000)
    rows, skipped = check_utterances([Candidate("a", path, "s", "HELLO")], "test")
    assert not rows and skipped[0].reason == "a line break, which no manifest can hold"
    # its list can be read again
    write_skipped(tmp_path / "skipped.csv", skipped, 1, "test")
    assert still_bad(tmp_path / "skipped.csv", "full")


def test_an_earlier_run_serves_if_it_read_as_much(tmp_path):
    record, path = {"files": ["a"], "verify": "full", "skipped": 0}, tmp_path / "record.json"
    assert not is_prepared(path, record)
    write_json(path, record)
    assert is_prepared(path, record) and is_prepared(path, record | {"verify": "header"})
    assert not is_prepared(path, record | {"files": []})
    write_json(path, record | {"verify": "header"})
    assert not is_prepared(path, record) and is_prepared(path, record | {"verify": "header"})
    write_json(path, record | {"skipped": 1})
    assert is_prepared(path, record, [tmp_path / "absent.csv"])
    (tmp_path / "damaged.csv").write_text('id,path,reason\n"a,b,c\n')
    assert not is_prepared(path, record, [tmp_path / "damaged.csv"])
    path.write_text("no record")
    assert not is_prepared(path, record)

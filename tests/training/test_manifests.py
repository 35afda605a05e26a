"""Manifests of a training are read strictly, and as SpeechBrain reads a sound one."""

import pytest
from speechbrain.dataio.dataio import load_data_csv

from training.manifests import open_manifest, read_manifest

HEADING = "ID,duration,wav,spk_id,wrd\n"
ROWS = HEADING + 'a,1.5,/a.wav,s,"YES, ""OK"""\nb,2,/b.wav,s,NO\n'


def test_a_sound_manifest_is_what_speechbrain_makes_of_it(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(ROWS, encoding="utf-8")
    whole = {"start": "", "stop": ""}
    plain = {key: whole | row for key, row in load_data_csv(path).items()}
    assert read_manifest(path, ["wrd"]) == plain
    data = open_manifest(path)
    data.set_output_keys(["id", "wrd"])
    assert data[0] == {"id": "a", "wrd": 'YES, "OK"'}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (HEADING + 'a,1,/a.wav,s,"YES\nb,2,/b.wav,s,"NO\n', "train.csv, line 2: a quotation mark"),
        (ROWS + "a,1,/c.wav,s,NO\n", "train.csv, line 4: a stands there twice"),
        (HEADING + "a,soon,/a.wav,s,NO\n", "train.csv, line 2: the duration"),
        (HEADING + "a,nan,/a.wav,s,NO\n", "train.csv, line 2: the duration"),
        (HEADING + "a,0,/a.wav,s,NO\n", "train.csv, line 2: the duration"),
        (HEADING + "a,1,/a.wav,s\n", "train.csv, line 2: 4 cells under 5 columns"),
        ("ID,duration,wav\na,1,/a.wav\n", "train.csv: has no column wrd"),
        ("ID,duration,start,stop,wrd\na,1,5,5,x\n", "line 2: start and stop must be samples"),
        ("ID,duration,start,stop,wrd\na,1,0.5,,x\n", "line 2: start and stop must be samples"),
        (HEADING, "train.csv: lists nothing"),
        ("", "train.csv: has no column"),
    ],
)
def test_another_is_refused_with_its_line(tmp_path, text, fault):
    (tmp_path / "train.csv").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=fault):
        open_manifest(tmp_path / "train.csv", ["wrd"])


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(SystemExit, match="absent.csv: no such file"):
        open_manifest(tmp_path / "absent.csv")

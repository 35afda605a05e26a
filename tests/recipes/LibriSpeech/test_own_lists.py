"""Lists of one's own speech in the recognition recipes: parts of recordings are cut when they are loaded."""

import gzip

import numpy as np
import pytest
import soundfile
import torch

from data_prep.manifest import prepare_manifest
from mamba_speech.audio import load_audio
from tests.support.recipes import read_csv
from tests.support.recognition import weights
from training.manifests import open_manifest


@pytest.mark.parametrize("trained", [True, False])
def test_a_segment_is_the_part_of_its_file_and_nothing_is_copied(
    import_recipe, own_speech, tmp_path, trained
):
    listed = tmp_path / "list.csv"
    rows = ["0.wav,a,0.25,1.0", "1.flac,b,0.5,", "2.ogg,c,,"]
    listed.write_text("path,text,start,end\n" + "".join(f"{own_speech}/{row}\n" for row in rows))
    before = sorted(own_speech.iterdir())
    data = open_manifest(prepare_manifest(listed, tmp_path, "train"))
    module = import_recipe("speech_data")
    sets = ([data], []) if trained else ([], [data])
    module._add_pipelines({"sample_rate": 16000, "speed_perturb": None}, None, *sets)
    data.set_output_keys(["sig", "duration"])
    heard = [data[index] for index in range(3)]
    wanted = [
        load_audio(own_speech / "0.wav", 16000)[4000:16000],
        load_audio(own_speech / "1.flac", 16000)[8000:],
        load_audio(own_speech / "2.ogg", 16000),
    ]
    for item, whole in zip(heard, wanted, strict=True):
        assert len(item["sig"]) == len(whole) == round(item["duration"] * 16000)
        # the filter of a resampler ends at the ends of a part
        torch.testing.assert_close(item["sig"][200:-200], whole[200:-200], atol=1e-4, rtol=0)
    assert sorted(own_speech.iterdir()) == before


@pytest.mark.exhaustive
def test_training_on_parts_is_training_on_files_of_their_own(call_main, tmp_path):
    rng = np.random.default_rng(1)
    pcm = [(3000 * rng.standard_normal(16000)).astype("int16") for _ in range(8)]
    soundfile.write(tmp_path / "all.wav", np.concatenate(pcm), 16000)
    trained = []
    for kind in ("files", "parts"):
        lines = ["path,text,id,start,end"]
        for index, sound in enumerate(pcm):
            name, span = "all.wav", f"{index},{index + 1}"
            if kind == "files":
                name, span = f"{index}.wav", ","
                soundfile.write(tmp_path / name, sound, 16000)
            lines.append(f"{name},text {index % 3},u{index},{span}")
        listed = tmp_path / f"{kind}.csv"
        listed.write_text("\n".join(lines) + "\n")
        run = tmp_path / f"run-{kind}"
        lists = {
            "train_manifest": listed,
            "valid_manifest": listed,
            "test_manifests": f"[{listed}]",
        }
        call_main("CTC", "conmamba_debug", **lists, number_of_epochs=1, output_folder=run)
        starts = [row["start"] for row in read_csv(run / "train.csv")]
        assert starts == [""] * 8 if kind == "files" else starts[1] == "16000"
        trained.append(weights(run))
    for name, value in trained[0].items():
        assert torch.equal(value, trained[1][name]), name


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        ("test.csv.gz", "test"),
        ("cuts.jsonl.gz", "cuts"),
        ("kaldi/wav.scp", "kaldi"),
        ("kaldi/.", "kaldi"),
    ],
)
def test_a_compressed_list_or_a_kaldi_folder_names_its_test_set(
    import_recipe, own_speech, tmp_path, listed, name
):
    path = tmp_path / listed
    if "kaldi" in listed:
        path = f"{tmp_path}/{listed}"
        (tmp_path / "kaldi").mkdir()
        (tmp_path / "kaldi" / "wav.scp").write_text(f"u1 {own_speech}/0.wav\n")
        (tmp_path / "kaldi" / "text").write_text("u1 good morning\n")
    elif "json" in listed:
        path.write_bytes(gzip.compress(f'{{"path": "{own_speech}/0.wav", "text": "a"}}'.encode()))
    else:
        path.write_bytes(gzip.compress(f"path,text\n{own_speech}/0.wav,a\n".encode()))
    options = {
        "train_manifest": None,
        "test_manifests": [str(path)],
        "skip_prep": False,
        "output_folder": str(tmp_path / "run"),
    }
    found = import_recipe("speech_data").prepare_manifests(options, training=False)
    assert found.tests == {name: str(tmp_path / "run" / f"{name}.csv")}

"""The published quick starts of the recognition recipes, on a corpus of a few seconds."""

import re
import shutil

import pytest
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml

from tests.support.recognition import DEBUG, RECIPE, SPLITS, epoch_checkpoints, weights

# downloaded by the published quick start: the YAML names more
DOWNLOADED = {"train": "train-clean-100", "dev": "dev-clean", "test": "test-clean"}
TINY = {"d_model": 16, "d_ffn": 16, "num_encoder_layers": 1, "output_neurons": 40}
TINY |= {"optimizer_step_limit": 1, "num_workers": 0}


@pytest.fixture(scope="module")
def librispeech(spoken, tmp_path_factory):
    """LibriSpeech's folder with three of its splits."""
    folder = tmp_path_factory.mktemp("subset") / "LibriSpeech"
    folder.mkdir()
    for part, split in DOWNLOADED.items():
        (folder / split).symlink_to(next(spoken.rglob(f"{part}-spoken")))
    return folder


@pytest.fixture
def refused(call_main, librispeech, tmp_path):
    """Run the quick start of CTC with further options; gives the sentence that it ends with."""

    def run(**options):
        options = TINY | {"data_folder": librispeech, "output_folder": tmp_path / "run"} | options
        with pytest.raises(SystemExit) as caught:
            call_main("CTC", "conmamba_small", **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


def test_a_run_takes_the_splits_that_are_there_and_says_so_once(call_main, librispeech, tmp_path):
    options = TINY | {"data_folder": librispeech, "output_folder": tmp_path, "precision": "bf16"}
    call_main("CTC", "conmamba_small", **options)
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    absent = (
        "has no train-clean-360, train-other-500, test-other: this run trains on train-clean-100"
    )
    assert log.count(absent) == 1
    values = yaml.safe_load(re.sub("!\\S+", "", (tmp_path / "hyperparams.yaml").read_text()))
    assert values["train_splits"] == ["train-clean-100"]
    assert values["test_splits"] == ["dev-clean", "test-clean"]
    # the published parser of the test's results
    text = (tmp_path / "wer_test-clean.txt").read_text(encoding="utf-8")
    assert all(re.search(rf"{name}: (\d+\.\d+)%", text) for name in ("WER", "CER"))
    # the same command without preparation, and as a test alone
    call_main("CTC", "conmamba_small", **options, skip_prep=True, skip_train=True)


def test_a_split_that_the_command_line_names_must_be_there(refused):
    for name in ("train_splits", "dev_splits", "test_splits"):
        message = refused(**{name: "[test-clean, dev-other]"})
        assert "has no split dev-other; the splits there are dev-clean" in message


def test_a_corpus_without_any_training_or_validation_split_is_refused(
    refused, librispeech, tmp_path
):
    for there, wanted in (("dev-clean", "train-other-500"), ("train-clean-100", "dev-clean")):
        corpus = tmp_path / there
        corpus.mkdir()
        (corpus / there).symlink_to(librispeech / there)
        message = refused(data_folder=corpus)
        assert str(corpus) in message and wanted in message
        assert f"the splits there are {there}" in message
    (tmp_path / "empty").mkdir()
    assert "not laid out like LibriSpeech" in refused(data_folder=tmp_path / "empty")


def test_the_published_functions_are_there_under_their_names(
    import_recipe, librispeech, spoken, tmp_path
):
    prepare = import_recipe("librispeech_prepare").prepare_librispeech
    splits = [[split] for split in DOWNLOADED.values()]
    prepare(librispeech, tmp_path / "lists", *splits, None, splits[0], "train.csv", False, False)
    assert (tmp_path / "lists" / "train.csv").is_file()
    with pytest.raises(ValueError, match="create_lexicon writes lists for grapheme-to-phoneme"):
        prepare(librispeech, tmp_path / "lists", *splits, create_lexicon=True)
    options = {name: yaml.safe_load(value) for name, value in SPLITS.items()}
    options |= {"data_folder": str(spoken)}
    for kind, count in (("S2S", 6), ("CTC", 5)):
        script = import_recipe(f"train_{kind}")
        options["output_folder"] = str(tmp_path / kind)
        with open(RECIPE / "hparams" / kind / "conmamba_debug.yaml", encoding="utf-8") as file:
            hparams = load_hyperpyyaml(file, overrides=options)
        given = () if kind == "S2S" else (None,)
        data = script.dataio_prepare(hparams, *given)
        assert len(data) == count and len(data[0]) > len(data[1]) and "test-spoken" in data[2]
        assert all(len(sampler) for sampler in data[-2:])
        assert script.ASR.has_decoder == (kind == "S2S")


def test_a_run_that_starts_from_a_checkpoint_goes_on_as_its_own_run_does(
    debug_run, call_main, tmp_path
):
    kind, options, folder = debug_run
    shutil.copytree(folder, tmp_path / "own")
    call_main(kind, DEBUG[kind], **options, output_folder=tmp_path / "own", number_of_epochs=2)
    # the published line: a pattern that no shell has expanded, and no corpus
    options = {name: value for name, value in options.items() if name != "data_folder"}
    options |= {"number_of_epochs": 2, "output_folder": tmp_path / "new"}
    before = epoch_checkpoints(folder)
    call_main(kind, DEBUG[kind], **options, resume=folder / "save" / "CKPT+*.ckpt")
    assert epoch_checkpoints(folder) == before
    assert "the run starts from" in (tmp_path / "new" / "log.txt").read_text(encoding="utf-8")
    own, new = weights(tmp_path / "own"), weights(tmp_path / "new")
    assert all(torch.equal(new[name], value) for name, value in own.items())

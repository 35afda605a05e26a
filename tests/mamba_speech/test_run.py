"""Loading a run: from anywhere, without executing or writing anything, with the weights it was tested with."""

import errno
import os
import pickle
import shutil

import pytest
import torch
import yaml

import modules.frontend
from mamba_speech.checkpoints import read_tensors
from mamba_speech.run import load_run
from tests.support.checkpoints import save_again

NETWORKS = ["compute_features", "normalize", "tokenizer_file"]


def checkpoints(run):
    """Model files, oldest first."""
    return sorted(run.glob("save/CKPT*/model.ckpt"))


def contents(folder):
    """What is in a folder and when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def with_options(run, old, new):
    """Change the YAML of a run."""
    file = run / "hyperparams.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_the_weights_are_the_mean_of_the_last_checkpoints(run):
    saved = [torch.load(file, weights_only=True) for file in checkpoints(run)]
    assert len(saved) == 2
    loaded = load_run(run, NETWORKS)["model"].state_dict()
    floating = [name for name in saved[0] if saved[0][name].is_floating_point()]
    assert set(loaded) == set(saved[0])
    for name in floating:
        torch.testing.assert_close(loaded[name], (saved[0][name] + saved[1][name]) / 2)
    assert any(not torch.equal(saved[0][name], saved[1][name]) for name in floating)


def test_the_best_checkpoint_is_chosen_by_its_error_rate_where_the_run_says_so(run):
    with_options(run, "checkpoint_choice: last", "checkpoint_choice: best")
    with_options(run, "avg_checkpoints: 2", "avg_checkpoints: 1")
    for file, wer in zip(checkpoints(run), (12.0, 34.0), strict=True):
        meta_file = file.with_name("CKPT.yaml")
        meta_file.write_text(yaml.dump(yaml.safe_load(meta_file.read_text()) | {"WER": wer}))
    loaded = load_run(run, NETWORKS)["model"].state_dict()
    best = torch.load(checkpoints(run)[0], weights_only=True)
    assert all(torch.equal(loaded[name], best[name]) for name in best)


def test_an_incomplete_checkpoint_is_ignored(run):
    last = checkpoints(run)[-1]
    (last.parent / "normalizer.ckpt").unlink()
    loaded = load_run(run, NETWORKS)["model"].state_dict()
    first = torch.load(checkpoints(run)[0], weights_only=True)
    assert all(torch.equal(loaded[name], first[name]) for name in first)


def test_a_moved_run_uses_its_own_files_and_writes_none(run, trained):
    for path in [run, *run.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = contents(run)
    random = torch.get_rng_state()
    options = load_run(run, NETWORKS)
    assert options["tokenizer_file"] == run / "save" / "tokenizer.model"
    assert contents(run) == before
    assert torch.equal(torch.get_rng_state(), random)
    for path in [run, *run.rglob("*")]:
        path.chmod(0o755)


def test_networks_are_ready_to_use_and_share_what_the_yaml_shares(run):
    options = load_run(run, [*NETWORKS, "CNN"], optional=["no_such_key", "activation"])
    assert not options["model"].training and not options["normalize"].training
    assert options["model"].CNN is options["CNN"]
    assert options["activation"] is torch.nn.GELU
    assert "no_such_key" not in options and "checkpointer" not in options


class Outsider(torch.nn.Module):
    """A network that is defined in none of the allowed packages."""


@pytest.mark.parametrize(
    "tag",
    [
        "!new:subprocess.Popen [[touch, MARK]]",
        "!name:subprocess.Popen {args: [touch, MARK]}",
        "!apply:subprocess.call [[touch, MARK]]",
        "!applyref:subprocess.call [[touch, MARK]]",
        "!module:subprocess",
        "!!python/object/apply:subprocess.call [[touch, MARK]]",
        # a function of an allowed package, reached through one of its modules, or a class no network
        "!name:speechbrain.nnet.losses.torch.os.system {command: touch MARK}",
        "!new:speechbrain.nnet.losses.torch.hub.HTTPError {}",
        "!name:speechbrain.utils.superpowers.run_shell {cmd: touch MARK}",
        "!new:torch.nn.Module.register_module {}",
        "!new:speechbrain.lobes.models.huggingface_transformers.mert.MERT {source: a, save_path: b}",
        # a network of another package, reached through one that is allowed
        "!new:modules.frontend.Outsider {}",
        "!new:modules.no_such_file.Network {}",
    ],
)
def test_no_tag_but_that_of_a_network_is_obeyed(tag, run, tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    monkeypatch.setattr(modules.frontend, "Outsider", Outsider, raising=False)
    with_options(run, "mamba_config: ", "old_config: ")
    file = run / "hyperparams.yaml"
    file.write_text(file.read_text() + f"normalise_by: {tag.replace('MARK', str(mark))}\n")
    assert load_run(run, NETWORKS)["model"] is not None
    with pytest.raises(ValueError, match="hyperparams.yaml: .*(is refused|cannot be imported)"):
        load_run(run, [*NETWORKS, "normalise_by"])
    assert not mark.exists()


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_checkpoint_that_holds_code_is_refused_and_not_executed(run, tmp_path):
    for file in checkpoints(run):
        save_again({"w": Payload(tmp_path / "mark")}, file)
    with pytest.raises(ValueError, match="model.ckpt: cannot be read as weights"):
        load_run(run, NETWORKS)
    assert not (tmp_path / "mark").exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(checkpoints(run)[-1], weights_only=True)


@pytest.mark.parametrize("name", ["model.ckpt", "normalizer.ckpt"])
def test_a_damaged_checkpoint_is_named(name, run):
    for file in checkpoints(run):
        damaged = file.with_name(name)
        damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{name}: cannot be read as weights"):
        load_run(run, NETWORKS)


@pytest.mark.parametrize("text", ["a: [1\n", "x: !!python/name:os.system ''\n", "d: 2024-13-45\n"])
def test_damaged_meta_files_are_named_in_one_sentence(text, run):
    for file in checkpoints(run):
        file.with_name("CKPT.yaml").write_text(text)
    with pytest.raises(ValueError, match="CKPT.yaml cannot be read") as error:
        load_run(run, NETWORKS)
    assert str(checkpoints(run)[0].parent) in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_checkpoint_is_left_out_with_a_warning_and_the_run_stays_as_it_is(run, caplog):
    first, last = checkpoints(run)
    content = last.read_bytes()
    last.write_bytes(content[: len(content) // 2])
    before = contents(run)
    loaded = load_run(run, NETWORKS)["model"].state_dict()
    saved = torch.load(first, weights_only=True)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in saved.items())
    assert f"{last.parent} is damaged, and left out: model.ckpt" in caplog.text
    assert contents(run) == before


def test_a_meta_file_that_lists_no_files_is_of_no_checkpoint(run):
    first, last = checkpoints(run)
    last.with_name("CKPT.yaml").write_text("files: 5\n")
    loaded = load_run(run, NETWORKS)["model"].state_dict()
    saved = torch.load(first, weights_only=True)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in saved.items())


def test_weights_that_are_not_there_are_not_called_damaged(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="none.ckpt"):
        read_tensors(tmp_path / "none.ckpt")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        read_tensors(tmp_path)
    file = tmp_path / "large.ckpt"
    torch.save({"w": torch.zeros(3)}, file)
    # none of these can be had at will
    for raised, number in (
        (OSError(errno.EIO, "Input/output error"), errno.EIO),
        (MemoryError(), errno.ENOMEM),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), errno.ENOMEM),
    ):

        def fail(*args, error=raised, **options):
            raise error

        monkeypatch.setattr(torch, "load", fail)
        with pytest.raises(OSError, match="large.ckpt") as found:
            read_tensors(file)
        assert found.value.errno == number


def test_a_checkpoint_of_another_model_is_named(run):
    with_options(run, "  d_ffn: 16", "  d_ffn: 24")
    with pytest.raises(ValueError, match=r"moved run: its checkpoint CKPT.* is of another model"):
        load_run(run, NETWORKS)


def test_a_folder_that_is_no_run_is_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        load_run(tmp_path / "nowhere", NETWORKS)
    with pytest.raises(FileNotFoundError, match="is not the output folder of a run"):
        load_run(run / "save", NETWORKS)
    shutil.rmtree(run / "save")
    with pytest.raises(FileNotFoundError, match="holds no checkpoint of a whole epoch yet"):
        load_run(run, NETWORKS)
    assert not (run / "save").exists()


def test_a_run_of_another_task_or_a_broken_yaml_is_named(run):
    with pytest.raises(ValueError, match="lacks speakers; it is a run of another task"):
        load_run(run, ["speakers"])
    (run / "hyperparams.yaml").write_text("seed: 1\nmodel: [1, 2\n")
    with pytest.raises(ValueError, match="hyperparams.yaml: line 3"):
        load_run(run, NETWORKS)


def test_a_network_of_more_layers_than_memory_holds_is_refused_at_once(run):
    with_options(run, "\n  num_encoder_layers: ", f"\n  num_encoder_layers: {10**30} # ")
    with pytest.raises(ValueError, match="num_encoder_layers is 1000.* at most"):
        load_run(run, NETWORKS)

"""Checkpoint folders of the published layout: loaded by their names and shapes, refused where they do not fit."""

import logging
import math
import os
import shutil

import numpy as np
import pytest
import soundfile
import torch
import yaml
from speechbrain.inference.separation import SepformerSeparation

from mamba_speech.audio import load_audio
from mamba_speech.export import export_run
from mamba_speech.plain_yaml import read_scalars
from mamba_speech.separation.published import PARTS, describe, load_published, load_strictly
from mamba_speech.separation.separator import Separator
from modules.separation.level import fit_to_mixture
from tests.support.golden import Golden
from tests.support.separation import RATE, write_parts
from tests.support.separation_networks import SIZES, assert_near, tiny

GOLDENS = (
    "sep_mambatasnet",
    "sep_mambatasnet_causal",
    "sep_mambatasnet_bottleneck_softmax",
    "sep_dpmamba_skip",
    "sep_dpmamba_noskip",
    "sep_dpmamba_skipnblock",
    "sep_sepformer",
)
# options of the published YAMLs by the names of the recorded constructor arguments
SCALARS = {
    "K": "chunk_size",
    "skip_around_intra": "skip_around_intra",
    "skip_n_block": "skip_n_block",
    "mask_nonlinear": "mask_nonlinear",
}


def scalars_of(meta):
    scalars = {option: meta[name] for name, option in SCALARS.items() if name in meta}
    return scalars | {k: v for k, v in meta.get("block", {}).items() if k == "nhead"}


def published_run(folder, weights, scalars, losses=(-10.0,)):
    """The layout of a published run: checkpoints under save, each with its loss, and a YAML with tags."""
    for number, loss in enumerate(losses):
        place = write_parts(folder / "save" / f"CKPT+2024-04-0{number + 1}+00-00-00+00", weights)
        (place / "CKPT.yaml").write_text(f"-si-snr: {loss}\nend-of-epoch: true\nunixtime: 1.0\n")
    (folder / "hyperparams.yaml").write_text(
        "__set_seed: !apply:torch.manual_seed [1234]\n"
        "Encoder: &id001 !new:no_such_package.Encoder\n  kernel_size: 16\n"
        "modules:\n  encoder: *id001\n" + "".join(f"{k}: {v}\n" for k, v in scalars.items())
    )
    return folder


def golden_network(name, folder):
    with Golden(name) as golden:
        golden.left.clear()
        run = published_run(folder, golden.state_dict(), scalars_of(golden.meta))
        return golden, *load_published(run)


@pytest.mark.parametrize("name", GOLDENS)
def test_a_folder_of_recorded_weights_loads_strictly_and_gives_the_recorded_sources(name, tmp_path):
    golden, network, sample_rate = golden_network(name, tmp_path)
    assert sample_rate == 8000 and not network.training
    for mix, wanted in (("mix", "est_source"), ("mix_edge", "est_source_edge")):
        assert_near(network(golden[f"input/{mix}"]), golden[f"output/{wanted}"])


def published_shapes(name):
    """Names and shapes of a published model: those recorded for a small one, at the published sizes."""
    sizes = SIZES[name]["hparams"]
    channels, rank = sizes["N_encoder_out"], math.ceil(sizes["out_channels"] / 16)
    # a size of the small model each: channels, inner channels, in_proj, x_proj, rank of the step
    wanted = {24: channels, 48: 2 * channels, 96: 4 * channels, 34: rank + 32, 2: rank}
    if name.startswith("dpmamba"):
        golden, repeated, count = "sep_dpmamba_skip", "dual_mdl", sizes["n_dp"]
    else:
        golden, repeated, count = "sep_mambatasnet", "layers", sizes["n_mamba"]
    shapes = {}
    for key, value in Golden(golden).state_dict().items():
        shape = tuple(wanted.get(size, size) for size in value.shape)
        if f".{repeated}.1." in key:
            continue
        numbers = range(count) if f".{repeated}.0." in key else [0]
        shapes |= {key.replace(f".{repeated}.0.", f".{repeated}.{n}."): shape for n in numbers}
    return shapes


@pytest.mark.parametrize("name", [name for name in SIZES if name != "sepformer"])
def test_names_and_shapes_of_every_published_model_load_strictly(name):
    with torch.device("meta"):
        weights = {key: torch.empty(shape) for key, shape in published_shapes(name).items()}
        # SpeechBrain's channel-wise normalisation is always built on the CPU
        on_cpu = {k: torch.ones(v.shape, device="cpu") for k, v in weights.items() if "gamma" in k}
        on_cpu |= {k: torch.ones(v.shape, device="cpu") for k, v in weights.items() if "beta" in k}
        weights |= on_cpu
        for part, count in SIZES[name]["modules"].items():
            own = (one for key, one in weights.items() if key.startswith(f"{part}."))
            assert sum(one.numel() for one in own) == count
        description = describe(weights, {}, "folder")
        network = load_strictly(description, weights, "folder")
    sizes, arguments = SIZES[name]["hparams"], description.arguments
    assert network.num_spks == sizes["num_spks"] and description.sample_rate == 8000
    if name.startswith("dpmamba"):
        assert arguments["skip_around_intra"] == sizes["skip_around_intra"]
        assert arguments["K"] == sizes["chunk_size"]
        assert arguments["skip_n_block"] == sizes["skip_n_block"]
    else:
        assert set(description.assumed) == {"sample_rate", "mask_nonlinear"}


def test_what_shapes_do_not_tell_is_taken_as_published_and_said_in_one_line(tmp_path, caplog):
    weights = Golden("sep_dpmamba_skip").state_dict()
    with caplog.at_level(logging.WARNING):
        network, _ = load_published(write_parts(tmp_path, weights))
    (line,) = caplog.messages
    for told in ("chunk_size 250", "skip_around_intra False", "skip_n_block 0", "sample_rate 8000"):
        assert told in line
    assert str(tmp_path / "hyperparams.yaml") in line and network.masknet.K == 250


def test_a_softmax_checkpoint_is_named_as_taken_for_relu_and_right_once_a_line_says_so(
    tmp_path, caplog
):
    golden = Golden("sep_mambatasnet_bottleneck_softmax")
    folder, mix = write_parts(tmp_path, golden.state_dict()), golden["input/mix"]
    with caplog.at_level(logging.WARNING):
        network, _ = load_published(folder)
    assert "mask_nonlinear relu" in caplog.messages[0]
    assert not torch.allclose(network(mix), golden["output/est_source"], rtol=0.5)
    caplog.clear()
    # as the warning advises, and as a reference within the mask net's own arguments
    for told in ("mask_nonlinear: softmax", "m: softmax\nN: !new:a.B\n  mask_nonlinear: !ref <m>"):
        (folder / "hyperparams.yaml").write_text(f"sample_rate: 8000\n{told}\n")
        assert_near(load_published(folder)[0](mix), golden["output/est_source"])
    assert not caplog.messages


@pytest.mark.parametrize(
    "text, found",
    [
        # however deep the mask net's own arguments stand, and where a reference leads
        ("modules:\n  masknet: {net}\n    bot_dim: 20\n    mask_nonlinear: softmax", "softmax"),
        (
            "act: {{mask: softmax}}\nM: {net}\n  bot_dim: 20\n  mask_nonlinear: !ref <act[mask]>",
            "softmax",
        ),
        (
            "M: {net}\n  bot_dim: 20\n  mask_nonlinear: !ref <later>\nlater: !ref <m>\nm: softmax",
            "softmax",
        ),
        ("nets:\n  - {net}\n    mask_nonlinear: softmax", "softmax"),
        # what cannot be followed is said, as is a YAML without the mask net's arguments
        ("a: soft\nM: {net}\n  bot_dim: 20\n  mask_nonlinear: !ref <a>max", None),
        ("M: {net}\n  bot_dim: 20\n  mask_nonlinear: !ref <no.where>", None),
        ("a: !ref <b>\nb: !ref <a>\nM: {net}\n  bot_dim: 20\n  mask_nonlinear: !ref <a>", None),
        ("shared: &s {{bot_dim: 20}}\nM: {net}\n  <<: *s\n  bot_dim: 20", None),
        ("modules: {{masknet: other}}", None),
    ],
)
def test_a_softmax_separator_is_never_taken_for_relu_in_silence(text, found, tmp_path, caplog):
    folder = write_parts(tmp_path, Golden("sep_mambatasnet_bottleneck_softmax").state_dict())
    text = text.format(net="!new:modules.mamba_masknet.MaskNet")
    (folder / "hyperparams.yaml").write_text(f"sample_rate: 8000\nbot_dim: 20\n{text}\n")
    with caplog.at_level(logging.WARNING):
        network, _ = load_published(folder)
    assert network.masknet.mask_nonlinear == (found or "relu")
    assert ["mask_nonlinear relu" in line for line in caplog.messages] == [True] * (found is None)


@pytest.mark.parametrize("told", ["&r\nself: *r", "? [a, b]\n: 1", "{a: [1]}: 2\n? {b: 1}\n: 2"])
def test_a_yaml_that_leads_in_circles_or_has_keys_of_any_kind_is_read(told, tmp_path, caplog):
    folder = write_parts(tmp_path, Golden("sep_mambatasnet").state_dict())
    (folder / "hyperparams.yaml").write_text(f"{told}\nsample_rate: 16000\n")
    assert load_published(folder)[1] == 16000


@pytest.mark.parametrize(
    "text",
    [
        "x: !!python/name:os.system ''",
        "day: 2024-13-45",
        "flag: !!bool perhaps",
        "when: !!timestamp never",
        "a: " + "[" * 3000 + "]" * 3000,
        "sample_rate: '" + "8" * 1000 + "'",
    ],
)
def test_a_yaml_that_cannot_be_read_is_one_short_sentence_that_names_it(text, tmp_path):
    folder = write_parts(tmp_path, Golden("sep_mambatasnet").state_dict())
    (folder / "hyperparams.yaml").write_text(f"{text}\n")
    with pytest.raises(ValueError, match="hyperparams.yaml") as error:
        load_published(folder)
    message = str(error.value)
    assert str(folder) in message and "\n" not in message and len(message) < 500


def test_nothing_is_assumed_where_the_published_yaml_leaves_a_default_of_its_class_out(
    tmp_path, caplog
):
    run = published_run(tmp_path, Golden("sep_mambatasnet").state_dict(), {"sample_rate": 8000})
    with open(run / "hyperparams.yaml", "a", encoding="utf-8") as file:
        file.write("MaskNet: !new:modules.mamba_masknet.MaskNet\n  enc_dim: 24\n  bot_dim: 24\n")
    with caplog.at_level(logging.WARNING):
        assert load_published(run)[0].masknet.mask_nonlinear == "relu"
    assert not caplog.messages


@pytest.mark.parametrize(
    "name, option, value",
    [
        ("sep_mambatasnet", "num_spks", 3),
        ("sep_mambatasnet", "bidirectional", False),
        ("sep_mambatasnet", "kernel_stride", 4),
        ("sep_mambatasnet", "mamba_expand", 4),
        ("sep_dpmamba_skip", "norm", "cln"),
        ("sep_dpmamba_skip", "N_encoder_out", 64),
        ("sep_sepformer", "norm_before", False),
    ],
)
def test_a_yaml_that_the_weights_contradict_is_refused_by_the_option_s_name(
    name, option, value, tmp_path
):
    golden = Golden(name)
    run = published_run(tmp_path, golden.state_dict(), scalars_of(golden.meta) | {option: value})
    with pytest.raises(ValueError, match=f"{option} is {value!r} in its hyperparams.yaml"):
        load_published(run)


def test_values_beside_the_checkpoint_come_first_and_nothing_else_of_the_yaml_is_obeyed(tmp_path):
    weights = Golden("sep_dpmamba_skip").state_dict()
    run = published_run(tmp_path / "run", weights, {"chunk_size": 20, "skip_around_intra": True})
    with open(run / "hyperparams.yaml", "a", encoding="utf-8") as file:
        file.write(f"mark: !apply:os.mkdir [{tmp_path / 'mark'}]\nsample_rate: 16000\n")
    for folder in (run, run / "save", next(run.glob("save/CKPT*"))):
        network, sample_rate = load_published(folder)
        assert (network.masknet.K, sample_rate) == (20, 16000)
    assert not (tmp_path / "mark").exists()


def test_values_within_the_mask_net_count_where_the_top_level_has_none(tmp_path):
    file = tmp_path / "hyperparams.yaml"
    file.write_text("MaskNet: !new:any.Model\n  K: 150\n  num_spks: 3\nnum_spks: 2\nx: !ref <y>\n")
    assert read_scalars(file) == {"num_spks": 2, "K": 150, "MaskNet": None, "x": None}


def test_of_several_checkpoints_the_one_of_the_lowest_loss_is_loaded(tmp_path):
    weights = Golden("sep_mambatasnet").state_dict()
    published_run(tmp_path, weights, {}, losses=(-5.0, -22.75, -9.0))
    best = sorted(tmp_path.glob("save/CKPT*"))[1]
    weights = {key: 2 * value for key, value in weights.items()}
    write_parts(best, weights)
    assert_near(load_published(tmp_path)[0].decoder.weight, weights["decoder.weight"])


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def other_weights(folder, tmp_path):
    torch.save({"conv.weight": torch.zeros(3)}, folder / "masknet.ckpt")


def no_dictionary(folder, tmp_path):
    torch.save(torch.zeros(3), folder / "encoder.ckpt")


def another_size(folder, tmp_path):
    torch.save({"weight": torch.zeros(24, 1, 20)}, folder / "decoder.ckpt")


def a_block_short(folder, tmp_path):
    weights = torch.load(folder / "masknet.ckpt", weights_only=True)
    weights.pop("mamba_net.layers.1.norm.weight")
    torch.save(weights, folder / "masknet.ckpt")


def code(folder, tmp_path):
    torch.save({"weight": Payload(tmp_path / "mark")}, folder / "decoder.ckpt")


def cut_off(folder, tmp_path):
    (folder / "masknet.ckpt").write_bytes((folder / "masknet.ckpt").read_bytes()[:200])


def pointer(folder, tmp_path):
    (folder / "masknet.ckpt").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )


def missing(folder, tmp_path):
    (folder / "masknet.ckpt").unlink()


def empty(folder, tmp_path):
    for part in PARTS:
        (folder / f"{part}.ckpt").unlink()


def wrong_value(folder, tmp_path):
    (folder / "hyperparams.yaml").write_text("sample_rate: fast\n")


def no_yaml(folder, tmp_path):
    (folder / "hyperparams.yaml").write_text("a: [1, 2\n")


@pytest.mark.parametrize(
    "damage, message",
    [
        (other_weights, "is of no separator known here"),
        (no_dictionary, "encoder.ckpt: holds no weights by name"),
        (another_size, "its weights are not those of a MaskNet as published .*decoder.weight"),
        (a_block_short, "layers.1.norm.weight"),
        (code, "decoder.ckpt: cannot be read as weights"),
        (cut_off, "masknet.ckpt: cannot be read as weights"),
        (pointer, "masknet.ckpt: is a pointer of Git LFS"),
        (missing, "masknet.ckpt: no such file"),
        (empty, "holds no separator"),
        (wrong_value, "sample_rate is 'fast' in its hyperparams.yaml"),
        (no_yaml, "hyperparams.yaml: cannot be read as YAML"),
    ],
)
def test_a_folder_that_does_not_fit_gives_one_error_that_names_it(damage, message, tmp_path):
    folder = write_parts(tmp_path / "published", Golden("sep_mambatasnet").state_dict())
    damage(folder, tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        load_published(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "mark").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        load_published(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["causal", "softmax", "dpmamba_skip", "sepformer"])
def test_an_exported_separator_is_the_same_in_speechbrain_and_here(kind, tmp_path):
    network = tiny(kind)
    scalars = {"chunk_size": 10, "nhead": 2, "sample_rate": RATE}
    scalars |= {"skip_around_intra": True, "skip_n_block": 1}
    scalars |= {"mask_nonlinear": "softmax" if kind == "softmax" else "relu"}
    run = write_parts(tmp_path / "run", network.state_dict())
    (run / "hyperparams.yaml").write_text(yaml.safe_dump(scalars))
    (tmp_path / "other").mkdir()
    shutil.copy(run / "hyperparams.yaml", tmp_path / "other")
    with pytest.raises(FileExistsError, match="holds files"):
        export_run(run, tmp_path / "other")
    export_run(run, tmp_path / "exported")
    theirs = SepformerSeparation.from_hparams(
        source=str(tmp_path / "exported"), savedir=str(tmp_path / "loaded")
    )
    mix = 0.1 * torch.randn(403)
    given = theirs.separate_batch(mix[None])[0]
    assert_near(given, network(mix[None])[0])
    ours = Separator.load(tmp_path / "exported", "cpu")
    assert_near(ours.separate(mix, ours.sample_rate).sources, fit_to_mixture(given, mix), 1e-3)


def test_speechbrain_separates_an_exported_file_as_the_command_does_at_level_peak(tmp_path):
    run = write_parts(tmp_path / "run", tiny("mambatasnet").state_dict())
    export_run(run, tmp_path / "exported")
    theirs = SepformerSeparation.from_hparams(
        source=str(tmp_path / "exported"), savedir=str(tmp_path / "loaded")
    )
    file = tmp_path / "mix.wav"
    soundfile.write(file, 0.1 * np.random.default_rng(0).standard_normal(4000), RATE)
    given = theirs.separate_file(str(file), savedir=str(tmp_path / "copied"))[0]
    ours = Separator.load(tmp_path / "exported", "cpu")
    outputs = [tmp_path / "s1.wav", tmp_path / "s2.wav"]
    ours.separate_file(file, outputs, level="peak")
    for output, one in zip(outputs, given.T, strict=True):
        found = load_audio(output, RATE)
        # 16 bits, and the sign that the mixture tells
        error = min((found / found.abs().max() - sign * one).abs().max() for sign in (1, -1))
        assert error < 2e-4 and found.abs().max() == pytest.approx(0.99, abs=1e-4)

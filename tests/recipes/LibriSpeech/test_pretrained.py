"""Starting a recogniser from another one's weights: what fits is loaded, and the log tells what did not."""

import pytest
import torch

from tests.support.recognition import DEBUG, call_script, weights

# so small that no weight moves
STILL = {"number_of_epochs": 1, "lr": 1e-60}


def line_of(folder):
    """The line of the log that tells what was loaded."""
    said = (folder / "log.txt").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in said if "numbers loaded" in line]
    return line


def differing(folder, other):
    """First parts of the names of parameters that two runs do not share."""
    first, second = weights(folder), weights(other)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    names = [name for name in first if not name.endswith(statistics)]
    return {name.split(".")[0] for name in names if not torch.equal(first[name], second[name])}


def test_a_recogniser_starts_from_all_weights_of_its_like(debug_run, tmp_path):
    kind, options, folder = debug_run
    new = tmp_path / "new"
    options = options | STILL | {"pretrained_model": folder, "seed": 5}
    call_script(kind, DEBUG[kind], **options, output_folder=new)
    assert differing(new, folder) == set()
    assert f"--pretrained_model: from {folder}, " in line_of(new)
    assert line_of(new).endswith(" 0 left new, 0 not used")


@pytest.mark.exhaustive
def test_with_another_tokenizer_its_layers_stay_new_though_their_shapes_fit(debug_run, tmp_path):
    kind, options, folder = debug_run
    new = tmp_path / "new"
    size = len(weights(folder)["ctc_lin.w.bias"])
    options = options | STILL | {"pretrained_model": folder, "seed": 5}
    options |= {"token_type": "bpe", "output_neurons": size}
    call_script(kind, DEBUG[kind], **options, output_folder=new)
    assert {"ctc_lin"} <= differing(new, folder) <= {"ctc_lin", "seq_lin", "Transformer"}
    line = line_of(new)
    assert "left new (" in line and "ctc_lin" in line and "not used (" in line


@pytest.mark.parametrize("source", ["", "{tmp}", "{tmp}/nowhere"])
def test_what_is_no_recogniser_is_refused_with_one_sentence(source, debug_run, tmp_path):
    kind, options, _ = debug_run
    options = options | STILL | {"pretrained_model": source.format(tmp=tmp_path) or "''"}
    with pytest.raises(SystemExit, match="--pretrained_model: .+(no such folder|no hyperparams)"):
        call_script(kind, DEBUG[kind], **options, output_folder=tmp_path / "new")

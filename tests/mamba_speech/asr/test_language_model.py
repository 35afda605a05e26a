"""Loading language models: runs of train_LM.py, SpeechBrain's pretrained layout, and what is neither."""

import os
import shutil
import warnings

import pytest
import sentencepiece
import torch
from huggingface_hub import constants
from speechbrain.lobes.models.transformer.TransformerLM import TransformerLM

from mamba_speech.asr.language_model import find_tokenizer, load_language_model
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.text import TextPolicy
from modules.asr.lm import MambaLM
from tests.support.recognition import LM_SIZES


def other_tokenizer(file, text="five six"):
    """A tokenizer that is not the fixtures'."""
    return Tokenizer.train([text], file, "char", size=40)


def contents(folder):
    """What is in a folder and when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_pretrained_transformer_scores_without_a_word(pretrained_lm, letters, tmp_path):
    file, count = letters
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lm, _ = load_language_model(
            pretrained_lm, Tokenizer(file), tmp_path, vocab=count, sizes=LM_SIZES
        )
        lm(torch.tensor([[1, 5, 4, 6]]))


def test_a_pretrained_transformer_is_loaded_as_it_was_saved(pretrained_lm, letters, tmp_path):
    before = contents(pretrained_lm)
    random = torch.get_rng_state()
    file, count = letters
    lm, tokenizer = load_language_model(
        pretrained_lm, Tokenizer(file), tmp_path / "save", vocab=count, sizes=LM_SIZES
    )
    assert torch.equal(torch.get_rng_state(), random)
    assert isinstance(lm, TransformerLM) and not lm.training
    assert not any(parameter.requires_grad for parameter in lm.parameters())
    saved = torch.load(pretrained_lm / "lm.ckpt", weights_only=True)
    assert all(torch.equal(saved[name], tensor) for name, tensor in lm.state_dict().items())
    assert tokenizer.labels() == Tokenizer(file).labels()
    # published: post-norm with GELU; the same tokens give what such a network computes
    again = TransformerLM(count, 16, 2, 1, 0, 32, activation=torch.nn.GELU).eval()
    again.load_state_dict(saved)
    tokens = torch.tensor([[1, 5, 4, 6]])
    assert torch.equal(lm(tokens), again(tokens))
    # a local folder is read in place
    assert contents(pretrained_lm) == before and not (tmp_path / "save").exists()


def test_a_moved_run_brings_its_own_network_and_tokenizer(lm_run, letters, tmp_path):
    moved = shutil.copytree(lm_run, tmp_path / "moved")
    file, count = letters
    lm, _ = load_language_model(moved, Tokenizer(file), vocab=count)
    assert isinstance(lm, MambaLM) and not lm.training
    (saved,) = moved.glob("save/CKPT*/model.ckpt")
    saved = torch.load(saved, weights_only=True)
    assert all(torch.equal(saved[name], tensor) for name, tensor in lm.state_dict().items())
    assert find_tokenizer(moved) == moved / "save" / "tokenizer.model"


def test_the_tokenizer_of_a_run_can_be_had_before_it_is_trained(lm_run, tmp_path):
    moved = shutil.copytree(lm_run, tmp_path / "moved")
    for folder in moved.glob("save/CKPT*"):
        shutil.rmtree(folder)
    assert find_tokenizer(moved) == moved / "save" / "tokenizer.model"
    with pytest.raises(FileNotFoundError, match="holds no checkpoint of a whole epoch yet"):
        load_language_model(moved)
    (moved / "save" / "tokenizer.model").unlink()
    with pytest.raises(FileNotFoundError, match="tokenizer.model: no such file"):
        find_tokenizer(moved)


@pytest.mark.parametrize("kind", ["pretrained_lm", "lm_run"])
def test_another_tokenizer_is_refused_though_it_has_the_same_size(kind, request, tmp_path):
    source = request.getfixturevalue(kind)
    same_size = other_tokenizer(tmp_path / "other.model", "eno fgd hrtu vw")
    assert len(same_size) >= len(Tokenizer(find_tokenizer(source)))
    message = f"{source}: the language model has another tokenizer .*--pretrained_lm_tokenizer_path"
    with pytest.raises(ValueError, match=message):
        load_language_model(source, same_size, sizes=LM_SIZES)


@pytest.mark.parametrize("kind", ["char", "unigram", "bpe"])
def test_tokenizers_are_the_same_by_their_tokens_and_not_by_their_files(kind, tmp_path):
    texts = ["the cat sat", "on the mat", "a hat that sat"]
    size = {"char": 40, "unigram": 16, "bpe": 16}[kind]
    own = Tokenizer.train(texts, tmp_path / "a.model", kind, size)
    again = Tokenizer.train(texts + texts, tmp_path / "b.model", kind, size)
    assert own.difference(own) == ""
    assert (own.labels() == again.labels()) == (own.difference(again) == "")
    upper = Tokenizer.train([one.upper() for one in texts], tmp_path / "c.model", kind, size)
    assert len(upper) == len(own)
    first = next(
        i for i, (a, b) in enumerate(zip(own.labels(), upper.labels(), strict=True)) if a != b
    )
    words = f"first token {first}: {own.labels()[first]!r}, not {upper.labels()[first]!r}"
    assert own.difference(upper).endswith(words)


def test_a_tokenizer_that_was_learnt_again_with_the_same_tokens_fits(lm_run, letters, tmp_path):
    file, count = letters
    proto = sentencepiece.SentencePieceProcessor(model_file=str(file)).serialized_model_proto()
    again = tmp_path / "again.model"
    # an unknown field of the format, as another version may write one: other bytes, the same tokens
    again.write_bytes(proto + b"\xd2\x0c\x03odd")
    assert again.read_bytes() != file.read_bytes()
    load_language_model(lm_run, Tokenizer(again), vocab=count)


def test_a_language_model_of_other_texts_is_told(lm_run, letters, tmp_path, caplog):
    run = shutil.copytree(lm_run, tmp_path / "run")
    file, _ = letters
    options = run / "hyperparams.yaml"
    plain = "\n".join(
        line for line in options.read_text().splitlines() if not line.startswith("text_")
    )
    options.write_text(f"{plain}\ntext_case: lower\ntext_punctuation: remove\n")
    load_language_model(run, Tokenizer(file), policy=TextPolicy(case="lower", punctuation="remove"))
    load_language_model(run, Tokenizer(file))
    assert "another way" not in caplog.text
    load_language_model(run, Tokenizer(file), policy=TextPolicy(case="upper"))
    assert (
        f"{run}: its texts were written in another way (--text_case lower --text_punctuation remove; here "
        "--text_case upper --text_punctuation keep)" in caplog.text
    )
    caplog.clear()
    # a run from before the policies tells nothing
    options.write_text(plain)
    load_language_model(run, Tokenizer(file), policy=TextPolicy(case="upper"))
    assert "another way" not in caplog.text


@pytest.mark.parametrize("kind", ["pretrained_lm", "lm_run"])
def test_another_vocabulary_is_refused(kind, request, letters):
    source = request.getfixturevalue(kind)
    file, count = letters
    message = f"{source}: the language model scores {count} tokens, but .*output_neurons is 5000"
    with pytest.raises(ValueError, match=message):
        load_language_model(source, Tokenizer(file), vocab=5000, sizes=LM_SIZES)


def test_a_network_of_other_sizes_is_refused_in_one_sentence(pretrained_lm):
    with pytest.raises(
        ValueError, match="lm.ckpt: is of another network than lm_d_model 32"
    ) as caught:
        load_language_model(pretrained_lm, sizes=LM_SIZES | {"lm_d_model": 32})
    assert len(str(caught.value).splitlines()) == 1


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_weights_that_hold_code_are_refused_and_not_executed(pretrained_lm, tmp_path):
    folder = shutil.copytree(pretrained_lm, tmp_path / "lm")
    torch.save({"w": Payload(tmp_path / "mark")}, folder / "lm.ckpt")
    with pytest.raises(ValueError, match="lm.ckpt: cannot be read as weights"):
        load_language_model(folder, sizes=LM_SIZES)
    assert not (tmp_path / "mark").exists()
    torch.save({"weight": torch.zeros(3)}, folder / "lm.ckpt")
    with pytest.raises(
        ValueError, match="lm.ckpt: holds no weights of SpeechBrain's TransformerLM"
    ):
        load_language_model(folder, sizes=LM_SIZES)


def test_a_source_that_is_none_is_named_in_one_sentence(tmp_path, trained, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        load_language_model(tmp_path / "nowhere")
    with pytest.raises(
        FileNotFoundError, match="holds no tokenizer.ckpt: give the output folder of"
    ):
        load_language_model(tmp_path)
    with pytest.raises(
        ValueError, match="run: is a run of another task, since its checkpoints record no loss"
    ):
        load_language_model(trained)
    # beside other folders it is a folder that was misspelt, and no name on the Hub
    monkeypatch.chdir(trained.parent.parent)
    for source in (f"{trained.parent.name}/rnu", trained.parent.name + "x"):
        with pytest.raises(FileNotFoundError, match=f"{source}: no such folder; give the folder"):
            load_language_model(source)
    # huggingface_hub reads the variable HF_HUB_OFFLINE when it is imported
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="nobody/nothing: is no folder here") as caught:
        load_language_model("nobody/nothing", save_folder=tmp_path / "save")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "ids, tokens",
    # SpeechBrain's default has neither start nor end
    [({"bos_id": -1, "eos_id": -1}, "1 and 2"), ({"bos_id": 1, "eos_id": 0, "unk_id": 2}, "2")],
    ids=str,
)
def test_a_tokenizer_whose_special_tokens_are_text_is_refused(ids, tokens, pretrained_lm, tmp_path):
    folder = shutil.copytree(pretrained_lm, tmp_path / "lm")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["one two three four"]),
        model_prefix=str(tmp_path / "plain"),
        model_type="char",
        vocab_size=20,
        hard_vocab_limit=False,
        minloglevel=2,
        **ids,
    )
    shutil.copy(tmp_path / "plain.model", folder / "tokenizer.ckpt")
    with pytest.raises(
        ValueError, match=f"tokenizer.ckpt: its tokens {tokens} are text.* bos_id 1"
    ):
        load_language_model(folder, sizes=LM_SIZES)


@pytest.mark.parametrize("content", [b"", b"no model at all", None])
def test_a_damaged_tokenizer_is_named(content, pretrained_lm, tmp_path):
    folder = shutil.copytree(pretrained_lm, tmp_path / "lm")
    file = folder / "tokenizer.ckpt"
    file.write_bytes(file.read_bytes()[:100] if content is None else content)
    with pytest.raises(ValueError, match="tokenizer.ckpt: is no SentencePiece model"):
        load_language_model(folder, sizes=LM_SIZES)

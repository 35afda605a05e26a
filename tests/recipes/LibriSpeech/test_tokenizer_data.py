"""A run's tokenizer: learnt once or taken, recorded, and never changed under a trained model."""

import os
from functools import partial

import pytest

from data_prep.verify import write_manifest
from mamba_speech.asr.tokenizer import Tokenizer

SENTENCES = ["THE CAT SEES A BIRD", "A BIRD HEARS THE SEA", "NOBODY LIKES THE WINDOW"] * 4
OTHERS = ["MY FRIEND DRAWS A HOUSE", "PETER FORGETS", "HE DRAWS"] * 4


class Text:
    """Sentences in memory; ``learnt`` counts how often a tokenizer was learnt from them."""

    def __init__(self, sentences=SENTENCES):
        self.given, self.learnt = sentences, 0

    def identity(self):
        return {"sentences": self.given}

    def sentences(self):
        self.learnt += 1
        return self.given


@pytest.fixture
def prepare(import_recipe, tmp_path):
    """prepare_tokenizer with the options of a run; others may be given."""
    recipe = import_recipe("tokenizer_data")

    def call(text=None, given=None, spare_outputs=False, **options):
        hparams = {"output_folder": str(tmp_path / "run"), "token_type": "bpe"}
        hparams |= {"tokenizer_file": model_file(tmp_path), "output_neurons": 30} | options
        find_given = None if given is None else partial(str, given)
        return recipe.prepare_tokenizer(hparams, text, find_given, spare_outputs)

    return call


def model_file(folder):
    return folder / "run" / "save" / "tokenizer.model"


@pytest.fixture
def other(tmp_path):
    """The file of another model's tokenizer of the same size."""
    Tokenizer.train(OTHERS, tmp_path / "other.model", "bpe", 30)
    return tmp_path / "other.model"


def test_a_tokenizer_is_learnt_once_and_found_again_at_every_start(prepare, tmp_path):
    text = Text()
    labels = prepare(text).labels()
    written = os.stat(model_file(tmp_path)).st_mtime_ns
    assert prepare(text).labels() == prepare().labels() == labels and text.learnt == 1
    assert os.stat(model_file(tmp_path)).st_mtime_ns == written
    assert len(labels) == 30


@pytest.mark.parametrize(
    "change",
    [
        {"text": Text(OTHERS)},
        {"token_type": "char", "spare_outputs": True},
        {"output_neurons": 32},
        {"given": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_tokenizer_changes_with_its_options_until_a_model_is_trained(
    change, prepare, other, tmp_path
):
    before = prepare(Text()).labels()
    options = {"text": Text()} | change
    if "given" in change:
        options["given"] = other
    after = prepare(**options).labels()
    assert after != before and prepare(**options).labels() == after
    # what was replaced counts no longer, whichever way back is taken
    assert prepare(Text()).labels() == before
    (tmp_path / "run" / "save" / "CKPT+1").mkdir()
    kept = model_file(tmp_path).read_bytes()
    with pytest.raises(SystemExit, match="a model was trained with|which a model was") as stop:
        prepare(**options)
    assert "--output_folder" in str(stop.value) and "\n" not in str(stop.value)
    assert model_file(tmp_path).read_bytes() == kept and prepare(Text()).labels() == before


def test_a_given_tokenizer_with_the_runs_own_tokens_changes_nothing(prepare, other, tmp_path):
    assert prepare(Text(), given=other).labels() == Tokenizer(other).labels()
    assert model_file(tmp_path).read_bytes() == other.read_bytes()
    (tmp_path / "run" / "save" / "CKPT+1").mkdir()
    prepare(Text(), given=other)
    with pytest.raises(SystemExit, match="was not learnt from this text"):
        prepare(Text())


def test_a_tokenizer_without_its_record_is_learnt_anew(prepare, tmp_path):
    """A killed start leaves a model without a record at most."""
    text = Text()
    prepare(text)
    model_file(tmp_path).with_suffix(".json").unlink()
    model_file(tmp_path).write_bytes(b"torn")
    assert len(prepare(text)) == 30 and text.learnt == 2


def test_a_failed_start_leaves_no_record_of_another_tokenizer(prepare, tmp_path):
    prepare(Text())
    with pytest.raises(SystemExit, match="cannot be learnt"):
        prepare(Text(OTHERS), output_neurons=900)
    assert not list(model_file(tmp_path).parent.glob("*.json"))


@pytest.mark.parametrize("spare_outputs", [False, True])
def test_only_ctc_has_more_outputs_than_tokens(spare_outputs, prepare):
    options = {"token_type": "char", "output_neurons": 60, "spare_outputs": spare_outputs}
    if spare_outputs:
        assert len(prepare(Text(), **options)) < 60
    else:
        with pytest.raises(SystemExit, match=r"holds \d+ tokens, but output_neurons is 60"):
            prepare(Text(), **options)
    prepare(Text())
    with pytest.raises(SystemExit, match="holds 30 tokens, but output_neurons is 20"):
        prepare(output_neurons=20, spare_outputs=spare_outputs)


def test_a_tokenizer_outside_of_the_run_is_never_written_over(prepare, other):
    before = other.read_bytes()
    with pytest.raises(SystemExit, match="--tokenizer_file .*other.model: is where the run keeps"):
        prepare(Text(), tokenizer_file=other)
    assert other.read_bytes() == before and not other.with_suffix(".json").exists()


def test_transcripts_are_the_same_in_another_order_and_place(import_recipe, tmp_path):
    speech_data = import_recipe("speech_data")

    def transcripts(name, texts):
        columns = ("ID", "duration", "wav", "spk_id", "wrd")
        rows = [(f"{text}-{name}", 1.0, f"/{name}/{text}.wav", "a", text) for text in texts]
        write_manifest(tmp_path / name, [dict(zip(columns, row, strict=True)) for row in rows])
        return speech_data.Transcripts(tmp_path / name)

    one = transcripts("one.csv", ["A", "B C"])
    assert one.sentences() == ["A", "B C"]
    assert one.identity() == transcripts("two.csv", ["B C", "A"]).identity()
    assert one.identity() != transcripts("three.csv", ["B C", "B"]).identity()


def test_a_text_is_the_same_where_it_has_moved_to(import_recipe, tmp_path):
    text_data = import_recipe("text_data")

    def sample(path, sentences, size=100):
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(sentences) + "\n")
        return text_data.TextSample([text_data.Text(str(path))], size)

    one = sample(tmp_path / "a" / "own.txt", SENTENCES)
    assert one.sentences() == SENTENCES
    assert one.identity() == sample(tmp_path / "b" / "own.txt", SENTENCES).identity()
    assert one.identity() != sample(tmp_path / "c" / "own.txt", OTHERS).identity()
    few = sample(tmp_path / "d" / "own.txt", [f"LINE {n}" for n in range(200)], size=20)
    drawn = few.sentences()
    assert len(set(drawn)) == 20 and drawn == few.sentences() != drawn[::-1]
    assert any(int(line.split()[1]) > 100 for line in drawn)

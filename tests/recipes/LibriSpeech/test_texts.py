"""Texts of a recogniser: one policy from the lists to the error rates, and characters that the tokenizer lacks."""

import csv
import shutil

import pytest
import sentencepiece

from mamba_speech.asr.tokenizer import Tokenizer

TEXTS = ("the cat sat", "a dog it\u2019s", "it's cafe\u0301", "the caf\u00e9")
SPELT = ["the cat sat", "on the mat", "a hat that sat"]


def write_list(folder, name, texts):
    """A list of the recordings beside it, one a text."""
    paths = sorted(folder.glob("*.wav")) * 2
    rows = [f"{path.name},{text}" for path, text in zip(paths, texts, strict=False)]
    (folder / f"{name}.csv").write_text("\n".join(["path,text", *rows]), encoding="utf-8")
    return folder / f"{name}.csv"


def read_table(path):
    """Rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def speech(own_speech, tmp_path):
    """Recordings, lists of them, and options of a run."""
    folder = shutil.copytree(own_speech, tmp_path / "speech")
    lists = {name: write_list(folder, name, TEXTS) for name in ("train", "valid")}
    options = {f"{name}_manifest": path for name, path in lists.items()}
    return folder, options | {"output_folder": tmp_path / "run", "output_neurons": 25}


@pytest.fixture
def lacking(import_recipe):
    """The module that counts unknown characters."""
    return import_recipe("unknown_characters")


def test_one_policy_holds_from_the_lists_to_the_error_rates(speech, call_main, tmp_path):
    folder, options = speech
    tested = write_list(folder, "some", [f"{text} $5" for text in TEXTS])
    call_main(
        "CTC",
        "conmamba_debug",
        **options,
        test_manifests=tested,
        optimizer_step_limit=1,
        max_unknown=0.5,
    )
    run = tmp_path / "run"
    assert Tokenizer(run / "save" / "tokenizer.model").lacking("caf\u00e9 it's") == []
    assert [row["wrd"] for row in read_table(run / "some.csv")][1:3] == [
        "a dog it's $5",
        "it's caf\u00e9 $5",
    ]
    # the references keep what the tokenizer lacks
    assert "$5" in (run / "wer_some.txt").read_text(encoding="utf-8")
    rows = read_table(run / "unknown_characters_some.csv")
    assert rows == [
        {"character": one, "code_point": code, "count": "4", "texts": "4"}
        for one, code in (("$", "U+0024"), ("5", "U+0035"))
    ]
    log = (run / "log.txt").read_text(encoding="utf-8")
    assert (
        "some: the tokenizer lacks 8 of 40 characters (20 %), in 4 of 4 texts: '$' 4, '5' 4; they count"
        in log
    )
    assert (run / "text_changes_some.csv").is_file()
    # the policy stays with the run
    with pytest.raises(SystemExit, match="trained with --text_case keep, and not upper"):
        call_main("CTC", "conmamba_debug", **options, test_manifests=tested, text_case="upper")
    upper = write_list(folder, "upper", [text.upper() for text in TEXTS])
    with pytest.raises(
        SystemExit, match="upper: the tokenizer lacks .* is it the case. In lower case it lacks 0%"
    ):
        call_main("CTC", "conmamba_debug", "--skip_train", **options, test_manifests=upper)


def test_manifests_that_are_taken_as_they_are_follow_the_policy_too(import_recipe, tmp_path):
    speech_data = import_recipe("speech_data")
    (tmp_path / "old.csv").write_text(
        "ID,duration,wav,spk_id,wrd\na,1,/a.wav,s,It\u2019s\nb,1,/b.wav,s,\u200b\nc,1,/c.wav,s,5\n",
        encoding="utf-8",
    )
    policy = speech_data.TextPolicy(case="lower", digits="skip")
    rows = speech_data.read_speech(tmp_path / "old.csv", policy)
    assert {name: row["wrd"] for name, row in rows.items()} == {"a": "it's"}
    assert speech_data.Transcripts(tmp_path / "old.csv", policy).sentences() == ["it's"]


@pytest.mark.parametrize(("kind", "size"), [("char", 30), ("unigram", 15), ("bpe", 15)])
def test_unknown_characters_are_counted_for_every_kind_of_tokens(kind, size, lacking, tmp_path):
    tokenizer = Tokenizer.train(SPELT, tmp_path / "t.model", kind, size)
    texts = ["the cat", "CAT sat", "\u00e9 c\u00e9 \u4e2d\u6587", ""]
    unknown = lacking.UnknownCharacters(texts, tokenizer)
    assert unknown.total == 17 and unknown.affected == 2
    assert dict(unknown.counts) == {"C": 1, "A": 1, "T": 1, "\u00e9": 2, "\u4e2d": 1, "\u6587": 1}
    assert unknown.texts["\u00e9"] == 1 and unknown.rows()[0] == ("\u00e9", "U+00E9", 2, 1)
    assert unknown.share == pytest.approx(7 / 17) and unknown.shown().startswith("'\u00e9' 2, ")
    assert lacking.UnknownCharacters(["the cat"], tokenizer).share == 0


def test_bytes_spell_every_character(lacking, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat\n" * 5)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"),
        model_prefix=str(tmp_path / "bytes"),
        model_type="bpe",
        vocab_size=280,
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
    )
    tokenizer = Tokenizer(tmp_path / "bytes.model")
    assert tokenizer.spells("\u00c9\u4e2d cat")
    assert not lacking.UnknownCharacters(["\u00c9\u4e2d cat"], tokenizer).counts


@pytest.mark.parametrize(
    ("texts", "advice"),
    [
        (
            ["THE CAT"],
            "In lower case it lacks 0%: write the texts in lower case, or train with --text_case lower",
        ),
        (["\u043a\u043e\u0442"], "No: in neither case they fit"),
    ],
)
def test_a_set_of_unknown_characters_stops_and_asks_for_the_case(texts, advice, lacking, tmp_path):
    tokenizer = Tokenizer.train(["the cat sat"], tmp_path / "t.model", "char", 30)
    hparams = {"output_folder": tmp_path, "max_unknown": 0.2}
    with pytest.raises(SystemExit) as stopped:
        lacking.check_characters("test", texts, tokenizer, hparams)
    assert "lacks 100% of the characters" in str(stopped.value) and advice in str(stopped.value)
    assert len(str(stopped.value).splitlines()) == 1
    lacking.check_characters("test", texts, tokenizer, hparams | {"max_unknown": 1.0})
    assert (tmp_path / "unknown_characters_test.csv").is_file()
    # a set that is spelt whole leaves no list of an earlier one
    lacking.check_characters("test", ["the cat"], tokenizer, hparams)
    assert not (tmp_path / "unknown_characters_test.csv").exists()


def test_the_text_of_a_language_model_follows_the_policy_and_counts_what_it_changes(
    import_recipe, tmp_path
):
    text_data, tokenised_text = map(import_recipe, ("text_data", "tokenised_text"))
    lines = ["It\u2019s  a cat", "\u200b", "room 5", "a caf\u00e9!", "a cafe\u0301!"]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    plain = text_data.Text(str(tmp_path / "a.txt"))
    every = [(1, "It's a cat"), (3, "room 5"), (4, "a caf\u00e9!"), (5, "a caf\u00e9!")]
    assert list(plain.sentences()) == every
    hparams = {"text_files": str(tmp_path / "a.txt"), "valid_text": str(tmp_path / "a.txt")}
    hparams |= dict.fromkeys(
        ("test_texts", "train_manifest", "test_manifests", "data_folder"), None
    )
    hparams |= {"text_case": "lower", "text_digits": "skip", "text_punctuation": "remove"}
    (text,), _, _ = text_data.find_texts(hparams)
    assert list(text.sentences()) == [(1, "it's a cat"), (4, "a caf\u00e9"), (5, "a caf\u00e9")]
    assert text.fingerprint() != plain.fingerprint()
    sample = text_data.TextSample([text], 10)
    assert sample.identity() != text_data.TextSample([plain], 10).identity()
    tokenizer = Tokenizer.train(sample.sentences(), tmp_path / "t.model", "char", 30)
    tokenised_text.tokenise({"output_folder": str(tmp_path)}, tokenizer, "train", [text])
    rows = read_table(tmp_path / "text" / "text_changes_train.csv")
    assert {row["change"]: row["texts"] for row in rows} == {
        "punctuation": "2",
        **dict.fromkeys(("case", "apostrophes", "spaces", "composed"), "1"),
        "left out for digits": "1",
    }
    firsts = {row["change"]: row["first"].rpartition(", ")[2] for row in rows}
    assert (firsts["left out for digits"], firsts["punctuation"]) == ("line 3", "line 4")


@pytest.mark.parametrize(
    ("share", "told"),
    [(1.0, "100"), (0.996, "100"), (0.2, "20"), (0.0123, "1.2"), (1e-8, "less than 0.01")],
)
def test_percentages_of_unknown_characters_have_no_exponent(import_recipe, share, told):
    assert import_recipe("unknown_characters")._percent(share) == told

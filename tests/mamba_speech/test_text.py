"""One policy for texts: spellings of one text become one, whatever the script, and counts say what changed."""

import csv
import logging
import random
import sys
import unicodedata

import pytest

from mamba_speech.text import APOSTROPHES, CHOICES, TEXT_OPTIONS, TextChanges, TextPolicy

SPACES = [chr(one) for one in range(sys.maxunicode) if chr(one).isspace()]
FORMAT = [chr(one) for one in range(sys.maxunicode) if unicodedata.category(chr(one)) == "Cf"]
POLICIES = [
    TextPolicy(apostrophes, case, "keep", punctuation)
    for apostrophes in CHOICES["apostrophes"]
    for case in CHOICES["case"]
    for punctuation in CHOICES["punctuation"]
]
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
SINHALA = "\u0dc1\u0dca\u200d\u0dbb\u0dd3"


def normalise(text, **options):
    return TextPolicy(**options).normalise(text)


@pytest.mark.parametrize("text", ["caf\u00e9", "\u1ec7", "\uac01", "\u0439", "\u00c5ngstr\u00f6m"])
def test_composed_and_decomposed_spellings_are_one(text):
    assert normalise(unicodedata.normalize("NFD", text)) == text
    assert unicodedata.normalize("NFD", text) != text


def test_every_format_character_leaves_a_latin_word():
    for one in FORMAT:
        assert normalise(f"so{one}ft") == "soft", hex(ord(one))
        assert normalise(one) == normalise(f" {one} {one}") == "", hex(ord(one))


def test_control_characters_fillers_and_halves_of_pairs_are_no_text():
    for one in "\0\x07\x7f\x9f\ud800\udfff\u034f\u3164\uffa0\ufe0f":
        assert normalise(one) == "" and normalise(f"a{one}b") == "ab", hex(ord(one))


@pytest.mark.parametrize("text", [PERSIAN, SINHALA, "\u0915\u094d\u200d\u0937", "\u0647\u200d"])
def test_joiners_stay_where_a_script_is_spelt_with_them(text):
    assert normalise(text) == text
    # a second joiner, and one beside a space, spell nothing
    assert normalise(text.replace("\u200c", "\u200c\u200c")) == text
    assert normalise(f"{text}\u200c {text}") == f"{text} {text}"


def test_joiners_leave_other_scripts():
    assert (
        normalise("a\u200cb \u0436\u200d\u0436 \u4e2d\u200c\u6587")
        == "ab \u0436\u0436 \u4e2d\u6587"
    )
    assert normalise(f"{PERSIAN[:2]}\u200c!") == f"{PERSIAN[:2]}!"


def test_white_space_of_every_kind_is_one_space():
    assert len(SPACES) > 20
    for one in SPACES:
        assert normalise(f"{one}a{one}{one}b{one}") == "a b", hex(ord(one))
        assert normalise(one) == ""
    # SentencePiece would take it for a space
    assert normalise("a\u2581b") == "a b"


def test_apostrophes_and_hyphens_have_one_form_each():
    for one in APOSTROPHES:
        assert normalise(f"it{one}s") == "it's"
        assert normalise(f"it{one}s", apostrophes="keep") == f"it{one}s"
    assert normalise("well\u2011known well\u2010known") == "well-known well-known"


def test_case_is_that_of_unicode():
    text = "Stra\u00dfe \u00c9T\u00c9"
    assert normalise(text, case="upper") == "STRASSE \u00c9T\u00c9"
    assert normalise(text, case="lower") == "stra\u00dfe \u00e9t\u00e9"
    # a capital with an apostrophe, which is straightened after it
    assert normalise("\u0149", case="upper") == "'N"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Hello, world!", "Hello world"),
        ("well\u2014said", "well said"),
        ("don't \u2018quote\u2019 rock'n'roll", "don't quote rock'n'roll"),
        ("mother-in-law - no", "mother-in-law no"),
        ("3.5 and 1,000.", "3.5 and 1,000"),
        ("50% of AT&T", "50% of AT&T"),
        ("$5 + 3", "$5 + 3"),
        ("\u00bfQu\u00e9?", "Qu\u00e9"),
        ("\u4f60\u597d\u3002\u4e16\u754c", "\u4f60\u597d \u4e16\u754c"),
        ("col\u00b7lecci\u00f3", "col\u00b7lecci\u00f3"),
        ("\u056b\u055e\u0576\u0579", "\u056b\u0576\u0579"),
        ("?!...", ""),
    ],
)
def test_punctuation_is_removed_but_within_words_and_numbers(text, left):
    assert normalise(text, punctuation="remove") == left


def test_digits_are_a_reason_to_leave_a_text_out():
    assert TextPolicy().fault("room 5") is None
    skip = TextPolicy(digits="skip")
    for text in ("room 5", "\u0665", "x\u00b2", "\u00bd"):
        assert "digits" in skip.fault(text)
    assert skip.fault("five \u4e94") is None


def test_what_librispeech_holds_stays_as_it_is():
    text = "AND IT'S 'TIS O'CLOCK THE DOGS' BONE"
    assert TextPolicy().apply(text) == (text, {})


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_second_time_changes_nothing_and_leaves_no_blank(policy):
    chance = random.Random(0)
    kinds = [
        *(
            "a\u0301\u00c5i\u0130\u00df\u03a3\u0149\u0390\u1fef\u1ffd\u037e",
            "'`\u2019.,:-!?%\u2014\u2011 59",
        ),
        *(
            PERSIAN,
            SINHALA,
            "\u200b\u200c\u200d\u00ad\ufeff\u2581\t\n\u00a0",
            "\u1112\u1161\u11ab\u05f3\u055e",
        ),
    ]
    everything = "".join(kinds)
    for turn in range(1000):
        some = everything if turn % 2 else chance.choice(kinds)
        text = "".join(chance.choices(some, k=chance.randrange(12)))
        if turn % 5 == 0:
            text += "".join(chr(chance.randrange(0x3000)) for _ in range(4))
        once = policy.normalise(text)
        assert policy.apply(once) == (once, {}), ascii(text)
        assert once == " ".join(once.split()) == unicodedata.normalize("NFC", once), ascii(text)
        nfd = unicodedata.normalize("NFD", text)
        assert policy.normalise(nfd) == policy.normalise(unicodedata.normalize("NFC", nfd))


def test_options_of_a_run_make_a_policy_and_wrong_ones_are_named():
    policy = TextPolicy(case="lower", digits="skip")
    assert TextPolicy.of(policy.options() | {"seed": 1}) == policy
    assert TextPolicy.of({}) == TextPolicy() and tuple(policy.options()) == TEXT_OPTIONS
    with pytest.raises(
        ValueError, match="text_case must be one of keep, upper, lower; got 'title'"
    ):
        TextPolicy(case="title")


def test_changes_are_counted_by_kind_and_an_old_list_goes(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path, changes = tmp_path / "text_changes_train.csv", TextChanges(TextPolicy())
    for name, text in {
        "a": "it\u2019s \u2018so\u2019",
        "b": "plain",
        "c": "it\u2019s cafe\u0301",
    }.items():
        changes.add(name, changes.policy.apply(text)[1])
    changes.write(path, "train")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"change": "apostrophes", "texts": "2", "characters": "4", "first": "a"},
        {"change": "composed", "texts": "1", "characters": "2", "first": "c"},
    ]
    assert "train: of 3 texts, these were changed: apostrophes in 2, composed in 1" in caplog.text
    TextChanges().write(path, "train")
    assert not path.exists()

"""Every checkpoint's text is cut as AutoTokenizer cuts it, by the files of its model's type, or it is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dream_checkpoint import write_checkpoint as write_dream
from encoder_checkpoints import BERT_NAMES, ROBERTA_NAMES, build, byte_bpe, wordpiece, write_other
from llada_checkpoint import write_llada
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer
from transformers import AutoTokenizer, Qwen2Tokenizer

from slackdlm.errors import CheckpointError
from slackdlm.models.loading import load_model, save_model

TEXTS = [
    "the old boats",
    " the old boats ",
    "The OLD b\u00f4ats",
    "user: it's 1000 miles.\n\n  Sailed",
    "a <mask> [MASK] </s> [SEP] left",
    "\u6d77 sea \U0001f6a2",
]


def edit(path: Path, **keys: Any) -> None:
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(old | keys))


def write(folder: Path, family: str, **settings: Any) -> Path:
    """A checkpoint with the files of a Python tokenizer, as BERT and RoBERTa were published first."""
    folder.mkdir()
    names = ROBERTA_NAMES if family == "roberta" else BERT_NAMES
    special = list(dict.fromkeys(names.values()))
    backend = (byte_bpe if family == "roberta" else wordpiece)(special)
    backend.model.save(str(folder))
    build(family, backend.get_vocab_size() + 2).save_pretrained(folder)
    if settings:
        edit(folder / "tokenizer_config.json", **settings)
    return folder


def check(folder: Path, expected: Any = None) -> Any:
    """With and without special tokens; also after saving and loading."""
    expected = AutoTokenizer.from_pretrained(folder) if expected is None else expected
    loaded = load_model(folder)
    save_model(loaded, folder / "saved")
    for tokenizer in (loaded.tokenizer, load_model(folder / "saved").tokenizer):
        for text in TEXTS:
            for settings in ({}, {"add_special_tokens": False}, {"split_special_tokens": True}):
                ids = tokenizer(text, **settings)["input_ids"]
                assert ids == expected(text, **settings)["input_ids"], (text, settings)
    return loaded.tokenizer


BERT_SETTINGS = [
    {"tokenizer_class": "BertTokenizer"},
    {"tokenizer_class": "BertTokenizer", "do_lower_case": False},
    {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False},
    {"tokenizer_class": "BertTokenizerFast", "model_max_length": 64},
]
ROBERTA_SETTINGS = [
    {"tokenizer_class": "RobertaTokenizer"},
    {"add_prefix_space": True},
    {"tokenizer_class": "RobertaTokenizerFast", "add_prefix_space": False, "trim_offsets": True},
]


@pytest.mark.parametrize("settings", BERT_SETTINGS)
def test_bert_with_vocab_txt(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = write(tmp_path / "bert", "bert", **settings)
    tokenizer = check(folder)
    # The tokenizers library has BERT's rules too, written on their own.
    lower = settings.get("do_lower_case", True)
    library = BertWordPieceTokenizer(
        str(folder / "vocab.txt"),
        lowercase=lower,
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    for text in TEXTS:
        ids = library.encode(text, add_special_tokens=False).ids
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids


@pytest.mark.parametrize("settings", ROBERTA_SETTINGS)
def test_roberta_with_vocab_json_and_merges_txt(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = write(tmp_path / "roberta", "roberta", **settings)
    tokenizer = check(folder)
    space = settings.get("add_prefix_space", False)
    files = (str(folder / "vocab.json"), str(folder / "merges.txt"))
    library = ByteLevelBPETokenizer(*files, add_prefix_space=space)
    for text in TEXTS[:4]:  # it knows no special tokens
        ids = library.encode(text, add_special_tokens=False).ids
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    start, end = tokenizer.convert_tokens_to_ids(["<s>", "</s>"])
    text = TEXTS[3]
    assert tokenizer(text)["input_ids"] == [
        start,
        *tokenizer(text, add_special_tokens=False)["input_ids"],
        end,
    ]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_added_tokens_and_special_names_in_files_of_their_own(tmp_path: Path, family: str) -> None:
    folder = write(tmp_path / family, family, do_lower_case=True)
    size = len(AutoTokenizer.from_pretrained(folder))
    edit(folder / "added_tokens.json", left=size)
    names = ROBERTA_NAMES if family == "roberta" else BERT_NAMES
    edit(folder / "special_tokens_map.json", **names)
    assert size in check(folder)("left", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_without_tokenizer_config_the_defaults_are_named(
    tmp_path: Path, family: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path / family, family)
    check(folder)
    name = {"bert": "BertTokenizer", "roberta": "RobertaTokenizer"}[family]
    said = f"tokenizer_config.json: missing; text is cut by the defaults of {name}"
    assert said in caplog.text


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bert", {"tokenizer_class": "BertTokenizer", "do_lower_case": False}),
        ("bert", {"tokenizer_class": "BertTokenizer", "do_lower_case": True}),
        ("bert", {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}),
        ("roberta", {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True}),
        ("roberta", {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True}),
        ("roberta", {"tokenizer_class": "RobertaTokenizer"}),
    ],
)
def test_settings_beside_tokenizer_json(
    tmp_path: Path, family: str, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Where the two files disagree it is said which is used: AutoTokenizer's, with these ids."""
    folder = write(tmp_path / family, family)
    names = ROBERTA_NAMES if family == "roberta" else BERT_NAMES
    backend = (byte_bpe if family == "roberta" else wordpiece)(list(dict.fromkeys(names.values())))
    backend.save(str(folder / "tokenizer.json"))
    edit(folder / "tokenizer_config.json", **(names | settings))
    tokenizer = check(folder)
    other = any(
        tokenizer(text, add_special_tokens=False)["input_ids"]
        != backend.encode(text, add_special_tokens=False).ids
        for text in TEXTS[:4]
    )
    assert ("tokenizer.json: not used as it is: text is cut as" in caplog.text) == other


@pytest.mark.parametrize(
    "kind", ["deberta", "distilbert", "electra", "ernie", "megatron-bert", "xlm-roberta"]
)
def test_other_types_read_their_own_files_or_are_refused(tmp_path: Path, kind: str) -> None:
    folder = write_other(tmp_path / kind, kind)
    reads_words = kind in ("distilbert", "electra", "ernie", "megatron-bert")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: missing; the checkpoint folder"):
        load_model(folder)
    wordpiece(list(BERT_NAMES.values())).model.save(str(folder))
    if reads_words:
        check(folder)
    else:
        with pytest.raises(
            CheckpointError, match=r"tokenizer\.json: missing, and none can be made"
        ):
            load_model(folder)


@pytest.mark.parametrize("named", ["DreamTokenizer", "Qwen2Tokenizer"])
def test_dream_is_read_by_qwen2s_rules(tmp_path: Path, named: str) -> None:
    folder = write_dream(tmp_path / "dream")
    edit(folder / "tokenizer_config.json", tokenizer_class=named)
    check(folder, Qwen2Tokenizer.from_pretrained(folder))


def roberta_without(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write(folder, "roberta", tokenizer_class="RobertaTokenizer")
        (folder / name).unlink()
        return folder

    return make


def sentencepiece_alone(folder: Path) -> Path:
    write_other(folder, "albert")
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_bytes(b"no sentencepiece")
    return folder


def llada_with_other_pieces(folder: Path) -> Path:
    write_llada(folder)
    byte_bpe(["<pad>"]).model.save(str(folder))
    check(folder)
    (folder / "tokenizer.json").unlink()
    return folder


def remote_code(folder: Path) -> Path:
    settings = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    write(folder, "bert", **settings)
    (folder / "own.py").write_text("raise SystemExit('remote code was run')")
    return folder


NOT_MADE = r"tokenizer\.json: missing, and none can be made"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (roberta_without("vocab.json"), r"tokenizer\.json: missing"),
        (roberta_without("merges.txt"), r"tokenizer\.json: missing"),
        (sentencepiece_alone, rf"{NOT_MADE} .* make it where sentencepiece is"),
        (llada_with_other_pieces, NOT_MADE),
        (remote_code, NOT_MADE),
        (
            lambda folder: write(folder, "bert", tokenizer_class="EsmTokenizer"),
            "EsmTokenizer, is not one of the tokenizers library",
        ),
    ],
)
def test_files_of_which_no_tokenizer_can_be_made_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_model(make(tmp_path / "model"))

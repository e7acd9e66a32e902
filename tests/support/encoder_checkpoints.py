"""Small BERT, RoBERTa and ModernBERT checkpoints, written by transformers' own classes."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    BertConfig,
    BertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

TEXTS = ["user : assistant : system : the old boats sailed 1000 miles . the sea ?"] * 3
LONGEST = 64
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}


def wordpiece(special: list[str]) -> Tokenizer:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def byte_bpe(special: list[str]) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return backend


BERT_NAMES = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
ROBERTA_NAMES = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}


# Encoders of other types, and what their toys need beside SIZES.
OTHERS: dict[str, dict[str, int]] = {
    "albert": {"embedding_size": 16},
    "big_bird": {},
    "camembert": {},
    "deberta": {},
    "deberta-v2": {},
    "distilbert": {"hidden_dim": 48},
    "electra": {"embedding_size": 16},
    "ernie": {},
    "eurobert": {"mask_token_id": 4},
    "layoutlm": {},
    "longformer": {},
    "megatron-bert": {},
    "rembert": {},
    "roberta-prelayernorm": {},
    "xlm-roberta": {},
}


def write_other(folder: Path, model_type: str) -> Path:
    """A whole checkpoint of one of OTHERS, with BERT's tokenizer."""
    folder.mkdir()
    ids: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    ids |= {"vocab_size": write_tokenizer(folder, "bert"), "max_position_embeddings": LONGEST + 2}
    config = CONFIG_MAPPING[model_type](**(SIZES | ids | OTHERS[model_type]))
    MODEL_FOR_MASKED_LM_MAPPING[type(config)](config).save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path, family: str) -> int:
    """tokenizer.json and tokenizer_config.json; returns the number of ids."""
    names = ROBERTA_NAMES if family == "roberta" else BERT_NAMES
    special = list(dict.fromkeys(names.values()))
    backend = (wordpiece if family == "bert" else byte_bpe)(special)
    if family != "roberta":
        backend.add_tokens([AddedToken("[unused0]", special=False, normalized=False)])
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LONGEST} | names
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return backend.get_vocab_size()


def build(family: str, rows: int, **keys: Any) -> PreTrainedModel:
    """The model of a family, its weights large enough for differences to show."""
    sizes = SIZES | {"vocab_size": rows}
    if family == "bert":
        sizes |= {"max_position_embeddings": LONGEST, "hidden_dropout_prob": 0.0}
        model = BertForMaskedLM(BertConfig(**(sizes | keys)))
    elif family == "roberta":
        sizes |= {"max_position_embeddings": LONGEST + 2, "type_vocab_size": 1}
        ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
        model = RobertaForMaskedLM(RobertaConfig(**(sizes | ids | keys)))
    else:
        sizes |= {"max_position_embeddings": LONGEST, "local_attention": 8}
        ids = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3}
        ids |= {"bos_token_id": 2, "eos_token_id": 3}
        model = ModernBertForMaskedLM(ModernBertConfig(**(sizes | ids | keys)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.2
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def write_encoder(folder: Path, family: str, *, spare_rows: int = 0, **keys: Any) -> Path:
    """A whole checkpoint; keywords override config keys."""
    folder.mkdir()
    rows = write_tokenizer(folder, family) + spare_rows
    build(family, rows, **keys).save_pretrained(folder)
    return folder

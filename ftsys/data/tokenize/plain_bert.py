"""Checks that a model folder's tokenizer.json alone gives the same tokenizer as transformers' AutoTokenizer.

transformers 5 takes only vocabulary and added tokens from tokenizer.json and makes the rest of its own classes from
tokenizer_config.json. So tokenizer.json can be used alone only if both files agree in every part.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftsys.errors import ConfigError
from ftsys.files.untrusted import MOST_GROWN_BYTES, file_bytes, parse_json
from ftsys.model_files.config import model_config

_BERT_TYPES = frozenset({"bert", "distilbert", "electra"})
_BERT_CLASSES = frozenset({"BertTokenizer", "BertTokenizerFast"})
_BERT_PAIR = [("S", "cls_token", 0), ("A", "A", 0), ("S", "sep_token", 0), ("A", "B", 1), ("S", "sep_token", 1)]
_Check = Callable[[dict[str, Any], dict[str, Any]], bool]


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """Read tokenizer_config.json; an empty dictionary if there is none.

    Raises ConfigError for a key with which transformers would read another tokenizer.json than ftsys knows.
    """
    path = folder / "tokenizer_config.json"
    settings = parse_json(file_bytes(path)) if path.is_file() else {}
    if not isinstance(settings, dict):
        return {}
    if "fast_tokenizer_files" in settings:
        raise ConfigError(f"{path}: fast_tokenizer_files names other files, which are not used here. Remove the key.")
    return settings


def special_token(settings: dict[str, Any], key: str) -> str:
    """Return the text of a special token such as "pad_token"; BERT's own if the settings have none."""
    value = settings.get(key, f"[{key.partition('_')[0].upper()}]")
    return str(value["content"] if isinstance(value, dict) else value)


def is_plain_bert(folder: Path) -> bool:
    """Return True if tokenizer.json has in every part what transformers' BertTokenizer would build from these files."""
    path = folder / "tokenizer.json"
    if not path.is_file() or not (folder / "tokenizer_config.json").is_file():
        return False
    try:
        parts, settings = parse_json(file_bytes(path, MOST_GROWN_BYTES)), tokenizer_settings(folder)
        kind = settings.get("tokenizer_class") or "BertTokenizer"
        known = model_config(folder).get("model_type") in _BERT_TYPES and kind in _BERT_CLASSES
        checks: tuple[_Check, ...] = (_same_text, _same_tokens, _same_template)
        right = settings.get("truncation_side", "right") == "right"
        return known and right and all(check(parts, settings) for check in checks)
    except (ValueError, KeyError, TypeError):  # not the layout of a BERT tokenizer
        return False


def _same_text(parts: dict[str, Any], settings: dict[str, Any]) -> bool:
    model = parts["model"]
    wanted = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
        "strip_accents": settings.get("strip_accents"),
        "lowercase": settings.get("do_lower_case", True),
    }
    return (
        parts["normalizer"] == wanted
        and parts["pre_tokenizer"] == {"type": "BertPreTokenizer"}
        and (model.get("type", "WordPiece"), model["continuing_subword_prefix"]) == ("WordPiece", "##")
        and model["max_input_chars_per_word"] == 100
        and model["unk_token"] == special_token(settings, "unk_token")
    )


def _same_tokens(parts: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Check that there are the five special tokens and no other, and that each is matched exactly."""
    names = {special_token(settings, f"{key}_token") for key in ("unk", "sep", "pad", "cls", "mask")}
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    plain = all(token["special"] and not any(token[flag] for flag in flags) for token in parts["added_tokens"])
    declared = {token["content"] for token in settings.get("added_tokens_decoder", {}).values()}
    more = settings.get("additional_special_tokens") or settings.get("extra_special_tokens")
    added = {token["content"] for token in parts["added_tokens"]}
    return plain and added == names and declared <= names and not more and not settings.get("split_special_tokens")


def _same_template(parts: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Check the tokens that are put around texts, and that their ids are those of the vocabulary."""

    def spelled(template: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
        kinds = [(kind[0] if kind != "Sequence" else "A", body) for piece in template for kind, body in piece.items()]
        return [(kind, body["id"], body["type_id"]) for kind, body in kinds]

    def wanted(pieces: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
        return [(kind, special_token(settings, name) if kind == "S" else name, types) for kind, name, types in pieces]

    processor, vocabulary = parts["post_processor"], parts["model"]["vocab"]
    ends = [[token, vocabulary[token]] for token in (special_token(settings, f"{end}_token") for end in ("sep", "cls"))]
    if processor["type"] == "BertProcessing":
        return [processor["sep"], processor["cls"]] == ends
    pair, single = spelled(processor["pair"]), spelled(processor["single"])
    same_ids = all(processor["special_tokens"][token]["ids"] == [number] for token, number in ends)
    same = pair == wanted(_BERT_PAIR) and single == wanted(_BERT_PAIR[:3])
    return processor["type"] == "TemplateProcessing" and same and same_ids

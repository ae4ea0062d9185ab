"""The tokenizer of a GGUF file, as the text of a tokenizer.json: byte-level BPE, as GPT-2 has it. Needs no torch."""

import json
from collections.abc import Mapping
from typing import Any

from isa.errors import ModelError
from isa.shown import shown
from runtime.models.language import SPECIAL, TEMPLATE, TOKENIZER

_CONTROL, _USER_DEFINED = 3, 4  # types of tokens that are never split
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}
# How a text is cut before pairs are merged, by the name that the file gives it.
_CUTS: Mapping[str, list[dict[str, Any]]] = {
    "smollm": [_DIGITS, _BYTES],
    "gpt-2": [_BYTES],
    "gpt2": [_BYTES],
    "default": [_BYTES],
}


def tokenizer_json(metadata: Mapping[str, Any], where: str) -> str:
    """The text of a tokenizer.json. Raises ModelError for a tokenizer of another kind, or one that is incomplete."""
    model, cut = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if model != "gpt2" or cut not in _CUTS:
        raise ModelError(
            f"its tokenizer is {shown(f'{model}, {cut}')[:80]}",
            where,
            f"llmchip reads byte-level BPE (gpt2) cut like {', '.join(_CUTS)}",
        )
    tokens, merges = (_strings(metadata, f"tokenizer.ggml.{name}", where) for name in ("tokens", "merges"))
    types = _types(metadata, len(tokens), where)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ModelError("its tokenizer has a token twice", where)
    pairs = [merge.split(" ") for merge in merges]
    for pair in pairs:
        if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys():
            raise ModelError(f"its tokenizer merges what are no tokens: {shown(' '.join(pair))[:80]}", where)
    added = [
        {
            "id": number,
            "content": tokens[number],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == _CONTROL,
        }
        for number, kind in enumerate(types)
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": _CUTS[cut]},
            "post_processor": None,
            "decoder": _BYTES,
            "model": {"type": "BPE", "vocab": vocabulary, "merges": pairs, "ignore_merges": False},
        },
        ensure_ascii=False,
    )


def language(metadata: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What an image records of a file's texts (see runtime.models.language). Raises ModelError as `tokenizer_json`
    does."""
    template, tokens = metadata.get("tokenizer.chat_template"), metadata.get("tokenizer.ggml.tokens")
    special = {}
    for name in ("bos", "eos"):
        number = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(tokens, list) and isinstance(number, int) and 0 <= number < len(tokens):
            special[f"{name}_token"] = tokens[number]
    return {
        TOKENIZER: tokenizer_json(metadata, where),
        TEMPLATE: template if isinstance(template, str) else "",
        SPECIAL: special,
    }


def _types(metadata: Mapping[str, Any], count: int, where: str) -> list[int]:
    found = metadata.get("tokenizer.ggml.token_type", [])
    if isinstance(found, str) or not hasattr(found, "__len__") or len(found) not in (0, count):
        raise ModelError("its tokenizer has no types of its tokens", where)
    return [int(kind) for kind in found]


def _strings(metadata: Mapping[str, Any], key: str, where: str) -> list[str]:
    found = metadata.get(key)
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ModelError(f"the file has no {key}", where)
    return found

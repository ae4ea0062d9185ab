"""Texts in, answers out: tokenizing without torch, similarity of embeddings, labels of a classification head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isa.errors import InputError
from isa.files import read_text

_TOKENIZER_BYTES = 256 << 20
MOST_TOKENS = 1 << 22  # of a batch
Ids = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Tokens:
    """Tokenized texts of one padded batch, by the names that models use."""

    input_ids: Ids
    attention_mask: Ids
    token_type_ids: Ids

    def inputs(self, names: Sequence[str] | None = None) -> dict[str, Ids]:
        """As keyword arguments; those that the model takes, if `names` says which."""
        every = {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "token_type_ids": self.token_type_ids,
        }
        return {name: array for name, array in every.items() if names is None or name in names}


def tokenize(
    tokenizer_json: str, texts: Sequence[str], seq: int | None = None, limit: int = 0, batch: int | None = None
) -> Tokens:
    """Tokenize by the text of a tokenizer.json and pad on the right to `seq` (default: the longest text).

    With a `batch` larger than the number of texts, the first text fills up the rest. Nothing is ever cut off: a text
    that does not fit raises InputError.
    """
    tokenizer = open_tokenizer(tokenizer_json)
    encoded = tokenizer.encode_batch(list(texts))
    longest = max((len(item.ids) for item in encoded), default=1)
    length = seq or longest
    room = min(length, limit) if limit else length
    for text, item in zip(texts, encoded, strict=True):
        if len(item.ids) > room:
            longer = f"shorten it, or compile for a longer --seq (up to {limit})" if limit > length else "shorten it"
            raise InputError(
                f"the text has {len(item.ids)} tokens, more than the {room} that fit", _short(text), longer
            )
    check_tokens(max(len(encoded), batch or 0), length)
    encoded += [encoded[0]] * ((batch or 0) - len(encoded))
    pad = _pad_id(tokenizer)
    rows = [(item.ids, item.attention_mask, item.type_ids, pad) for item in encoded]
    ids = np.array([ids + [fill] * (length - len(ids)) for ids, _, _, fill in rows], np.int64)
    mask = np.array([mask + [0] * (length - len(mask)) for _, mask, _, _ in rows], np.int64)
    kinds = np.array([kind + [0] * (length - len(kind)) for _, _, kind, _ in rows], np.int64)
    return Tokens(ids, mask, kinds)


def check_tokens(batch: int, seq: int) -> None:
    """Raise InputError for a batch that no chip has room for, before it is made."""
    if batch * seq > MOST_TOKENS:
        raise InputError(
            f"{batch} texts of {seq} tokens are more than {MOST_TOKENS} tokens", hint="a smaller --batch or --seq"
        )


def read_tokenizer(folder: Path) -> str:
    """The text of a folder's tokenizer.json: images hold it, so that they run anywhere. Raises InputError when there is
    none, or it cannot be read."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(
            "the folder has no tokenizer.json", str(folder), "give token ids with --input input_ids=FILE.npy"
        )
    try:
        return read_text(path, _TOKENIZER_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the tokenizer: {error}", str(path)) from error


def open_tokenizer(text: str) -> Any:
    """The `tokenizers.Tokenizer` of a tokenizer.json's text. Raises InputError for what is none."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise InputError(f"cannot import tokenizers: {error}", hint="pip install tokenizers") from error
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exceptions
        raise InputError(
            f"cannot read the tokenizer: {' '.join(str(error).split())[:200]}", "tokenizer.json"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _pad_id(tokenizer: Any) -> int:
    found = (tokenizer.token_to_id(name) for name in ("[PAD]", "<pad>", "<|endoftext|>"))
    return next((number for number in found if number is not None), 0)


def similarity(embeddings: Floats) -> NDArray[np.float64]:
    """Cosine of every pair."""
    wide = embeddings.astype(np.float64)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return wide @ wide.T


def probabilities(logits: Floats) -> NDArray[np.float64]:
    """Softmax over the last axis, for reading."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def classification(texts: Sequence[str], logits: Floats, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Each text's most probable label, and the probabilities of all."""
    names = [labels[i] if i < len(labels) else f"LABEL_{i}" for i in range(logits.shape[-1])]
    return [
        {
            "text": text,
            "label": names[int(row.argmax())],
            "probabilities": dict(zip(names, map(float, row), strict=True)),
        }
        for text, row in zip(texts, probabilities(logits), strict=True)
    ]


def answer(texts: Sequence[str], outputs: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> dict[str, Any]:
    """What the outputs say about the texts: a similarity table, labels, or nothing known."""
    if "sentence_embedding" in outputs:
        embeddings = _floats(outputs["sentence_embedding"])
        return {"texts": list(texts), "similarity": similarity(embeddings).tolist(), "embeddings": embeddings.tolist()}
    if labels and "logits" in outputs and outputs["logits"].ndim == 2:
        return {"texts": list(texts), "classification": classification(texts, _floats(outputs["logits"]), labels)}
    return {"texts": list(texts)}


def _floats(array: NDArray[Any]) -> Floats:
    """Values as float32; bfloat16 comes as uint16 bit patterns, the upper halves of float32."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")

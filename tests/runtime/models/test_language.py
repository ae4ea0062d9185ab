"""Texts and conversations as tokens, and back. Chat templates come from strangers."""

import time
from collections.abc import Iterator

import pytest
from language_files import MERGES, TEMPLATE, TOKENS, TYPES

from isa.errors import InputError, ModelError
from isa.image.image import Image
from runtime.models.gguf_tokenizer import tokenizer_json
from runtime.models.language import TEMPLATE as TEMPLATE_KEY
from runtime.models.language import TOKENIZER, Language, render

KEYS = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.merges": MERGES,
    "tokenizer.ggml.token_type": TYPES,
}


@pytest.fixture(scope="module")
def language() -> Language:
    return Language.of(Image(b"", metadata={TOKENIZER: tokenizer_json(KEYS, ""), TEMPLATE_KEY: TEMPLATE}), "")


def test_a_text_comes_in_whole_characters(language: Language) -> None:
    """Breaks when half a character is written, or one is written twice or lost."""
    text = "the 雨 cat 🙂!"
    tokens = language.tokens(text)

    def coming() -> Iterator[int]:
        yield from tokens

    pieces = list(language.pieces(coming()))
    assert "".join(pieces) == text
    assert len(pieces) > 3
    assert all("\ufffd" not in piece for piece in pieces)
    cut = "".join(language.pieces(iter(language.tokens("🙂")[:2])))
    assert cut == "\ufffd"  # what is not whole at the end is shown as such


def test_a_conversation_is_written_as_the_template_says(language: Language) -> None:
    """Breaks when messages, or the place of the answer, are lost; and tokens that end a turn are single tokens."""
    said = [{"role": "user", "content": "the cat"}]
    assert language.conversation(said) == "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n"
    tokens = language.tokens(language.conversation(said))
    assert [token for token in tokens if token < 6] == [1, 5, 1]
    assert language.text(tokens) == "user\nthe cat\nassistant\n"


def test_templates_are_rendered_as_transformers_does() -> None:
    """Breaks when an extension or function that templates use is missing, or blanks are kept that they drop."""
    text = "{% for m in messages %}\n  {% if loop.index > 2 %}{% break %}{% endif %}\n{{ m | tojson }}\n{% endfor %}"
    assert render(text, {"messages": ["ä", {"a": 1}, "c"]}) == '"ä"\n{"a": 1}\n'


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "does not end"),
        ("{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}", "more than 4194304 characters"),
        ("{{ 'x' * 10**12 }}", "too much memory"),
        ("{{ '%1000000000000d' % 1 }}", "too much memory|fails"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "fails"),
        ("{{ raise_exception('roles must\nalternate') }}", "TemplateError: roles must alternate"),
        ("{% for %}", "TemplateSyntaxError"),
    ],
)
def test_a_template_that_goes_wrong_is_one_clear_line(template: str, words: str) -> None:
    """Breaks when a template can keep us waiting, take the machine's memory, or look around."""
    start = time.monotonic()
    with pytest.raises(ModelError, match=words) as raised:
        render(template, {"messages": []})
    assert "\n" not in str(raised.value)
    assert time.monotonic() - start < 30


def test_an_image_without_a_tokenizer_is_refused() -> None:
    """Breaks when what an image does not say is made up."""
    with pytest.raises(InputError, match="holds no tokenizer"):
        Language.of(Image(b""), "x.llmchip")
    with pytest.raises(InputError, match="cannot read the tokenizer"):
        Language.of(Image(b"", metadata={TOKENIZER: "{}"}), "x.llmchip")

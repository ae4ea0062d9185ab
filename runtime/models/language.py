"""Texts and conversations as tokens, and back: what an image of a language model records beside its program."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isa.errors import InputError, ModelError
from isa.image.image import Image
from runtime.models.tokenize import open_tokenizer

TOKENIZER, TEMPLATE, SPECIAL = "tokenizer", "chat_template", "special_tokens"  # in an image's metadata
PATIENCE = 20.0  # seconds for a template at most; its own process has less of its processor
_HALF = "�"  # what a decoder makes of a character whose bytes are not all there


@dataclass(frozen=True)
class Language:
    """A tokenizer, the template of conversations (empty if there is none), and the names of special tokens in it."""

    tokenizer: Any
    template: str
    special: Mapping[str, str]

    @staticmethod
    def of(image: Image, where: str) -> "Language":
        """What an image records. Raises InputError for one that has no tokenizer, or none that can be read."""
        text, template = (image.metadata.get(name) for name in (TOKENIZER, TEMPLATE))
        if not isinstance(text, str) or not text:
            raise InputError("the image holds no tokenizer", where, "compile it from a model that has one")
        special = image.metadata.get(SPECIAL)
        names = special.items() if isinstance(special, dict) else ()
        return Language(
            open_tokenizer(text),
            template if isinstance(template, str) else "",
            {name: token for name, token in names if isinstance(token, str)},
        )

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text; those that end a turn and the like are found in it by their names."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without those that end a turn and the like."""
        found: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return found

    def pieces(self, tokens: Iterator[int]) -> Iterator[str]:
        """The text of tokens as they come: each character once, as soon as all its bytes are there."""
        known: list[int] = []
        done = ""
        for token in tokens:
            known.append(token)
            text = self.text(known)
            if not text.endswith(_HALF) and text.startswith(done):
                yield text[len(done) :]
                done = text
        yield self.text(known)[len(done) :]

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text of a conversation, up to where the model's next answer begins. Raises ModelError for a template that
        fails, or does not end."""
        return render(self.template, {**self.special, "messages": list(messages), "add_generation_prompt": True})


def render(template: str, values: Mapping[str, Any]) -> str:
    """A chat template with these values, rendered in a process of its own. Raises ModelError for one that fails, writes
    without end, or takes more time or memory than such a text needs."""
    script = Path(__file__).with_name("render_chat.py")
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(script)],
            input=json.dumps({"template": template, "values": values}),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        found = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        raise ModelError("its chat template does not end", hint="--raw gives the prompt as it is") from error
    if "error" in found:
        raise ModelError(f"its chat template fails: {found['error']}", hint="--raw gives the prompt as it is")
    text: str = found["text"]
    return text

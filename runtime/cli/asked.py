"""What a user asks of a language model: the options of `llmcc run` for texts that are written on."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import click

from runtime.cli.common import group

NEW_TOKENS = 64


@dataclass(frozen=True)
class Asked:
    """The values of `language_options`."""

    prompt: str | None = None
    chat: bool = False
    raw: bool = False
    max_new_tokens: int = NEW_TOKENS
    context: int | None = None
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    @property
    def wanted(self) -> bool:
        """Whether the user wants a text to be written on."""
        return self.prompt is not None or self.chat


ASKED = tuple(field.name for field in fields(Asked))


def asked_of(given: Mapping[str, Any]) -> Asked:
    """Those of a verb's options that are these."""
    return Asked(**{name: given[name] for name in ASKED})


context_option = click.option(
    "--context", metavar="N", type=click.IntRange(1, 1 << 24),
    help="Tokens that a language model's text may have, for which it is compiled. [default: 1024, or what it has]",
)  # fmt: skip
language_options = group(
    click.option("--prompt", metavar="TEXT", help="What a language model answers; its answer is written as it is made."),
    click.option("--chat", is_flag=True, help="Talk with a language model: a line from you, an answer from it."),
    click.option("--raw", is_flag=True, help="Write on from the prompt as it is, without the model's chat template."),
    click.option(
        "--max-new-tokens", metavar="N", type=click.IntRange(1), default=NEW_TOKENS, show_default=True,
        help="Tokens of an answer at most.",
    ),
    click.option(
        "--temperature", metavar="T", type=click.FloatRange(0), default=0.0, show_default=True,
        help="Draw tokens (from --seed), the less likely ones the more often the higher; 0 takes the most likely one.",
    ),
    click.option("--top-k", metavar="K", type=click.IntRange(1), help="Draw from the K most likely tokens only."),
    click.option(
        "--top-p", metavar="P", type=click.FloatRange(0, 1, min_open=True),
        help="Draw from the most likely tokens only, so many that they have P of the probability.",
    ),
    context_option,
)  # fmt: skip

"""`llmcc run MODEL --prompt`, `--chat`: a language model's answers, written as they are made."""

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import click
import numpy as np

from emulator.timing.simulate import simulate
from isa.errors import InputError
from isa.image.steps import scalar
from isa.shown import shown_lines
from runtime.cli.asked import Asked
from runtime.cli.common import Given, note, reply, stages
from runtime.cli.language import language_image
from runtime.device.arrays import Array
from runtime.device.decoder import Decoder
from runtime.device.executable import Executable
from runtime.device.session import Sample, Session, greedy
from runtime.models.language import Language
from runtime.models.models import import_transformers


@dataclass
class Conversation:
    """A session with its language, and what was said. Only tokens that the caches do not have yet go to the chip."""

    session: Session[Array]
    decoder: Decoder
    language: Language
    raw: bool
    messages: list[dict[str, str]] = field(default_factory=list)
    prompt_tokens: int = 0
    seconds: list[float] = field(default_factory=list)  # of each new token of the last answer

    def answer(self, said: str, most: int) -> Iterator[str]:
        """The answer to what is said, piece by piece. Raises InputError where the cache has no room for it."""
        self.messages.append({"role": "user", "content": said})
        try:
            tokens = self.language.tokens(said if self.raw else self.language.conversation(self.messages))
            known = self.session.tokens[0].tolist()
            same = next((n for n, (a, b) in enumerate(zip(known, tokens, strict=False)) if a != b), len(known))
            same = max(min(same, len(tokens) - 1), 0)  # the last one gives the logits
            if not tokens or not said.strip():
                raise InputError("the prompt is empty", hint="say something")
            if len(tokens) + most > self.decoder.capacity:
                raise InputError(
                    f"{len(tokens)} tokens and {most} new ones are more than the {self.decoder.capacity} of the context",
                    hint="a larger --context, or fewer --max-new-tokens",
                )
            self.session.rollback(same)
            self.prompt_tokens, self.seconds = len(tokens), []
            stream = self.session.stream(np.array([tokens[same:]]), most)
        except BaseException:
            self.messages.pop()
            raise
        parts = []
        for part in self.language.pieces(self._timed(stream)):
            parts.append(part)
            yield part
        self.messages.append({"role": "assistant", "content": "".join(parts)})

    def _timed(self, stream: Iterator[Array]) -> Iterator[int]:
        start = time.perf_counter()
        for token in stream:
            self.seconds.append(time.perf_counter() - start)
            if int(token[0]) not in self.decoder.ends:
                yield int(token[0])
            start = time.perf_counter()

    def report(self) -> dict[str, Any]:
        """What the last answer cost, on this machine and on the chip."""
        later = self.seconds[1:]
        length = self.session.length - 1
        return {
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": len(self.seconds),
            "seconds_to_first_token": self.seconds[0] if self.seconds else None,
            "tokens_per_second": {
                "emulated": len(later) / sum(later) if later else None,
                "chip": chip_speed(self.decoder, length),
            },
            "context": self.session.length,
        }


def chip_speed(decoder: Decoder, length: int) -> float:
    """Tokens per second of the chip, for the token behind so many, in every sequence of the batch."""
    image, lengths = decoder.image, (min(length, decoder.capacity - 1),) * decoder.batch
    ((step, _),) = decoder.plan(lengths, (1,) * decoder.batch)
    values = {scalar(number): position for number, position in enumerate(lengths)}
    cycles = simulate(image, entry=step.entry, values=values).cycles
    return image.chip.clock_hz / max(cycles, 1)


def talk(model: str, given: Given, asked: Asked, mode: Mapping[str, Any], as_json: bool) -> int:
    """Run the verb. Raises InputError for options that do not go together."""
    if not asked.wanted:
        raise InputError("a language model needs something to go on from", model, "give --prompt TEXT, or --chat")
    if asked.chat and (as_json or asked.raw):
        raise InputError("--chat is a conversation in text", hint="leave --json and --raw out")
    for flag, kept in {"--top-k": asked.top_k, "--top-p": asked.top_p}.items():
        if kept is not None and not asked.temperature:
            raise InputError(f"{flag} says from what tokens are drawn; none is", hint="give --temperature, too")
    for flag, value in {"--text": given.texts, "--input": given.inputs, "--seq": given.seq}.items():
        if value:
            raise InputError(f"{flag} does not go with --prompt or --chat", hint="leave it out")
    with stages("run") as stage:
        image = language_image(model, given, asked.context, stage)
        stage("load the tokenizer")
        language = Language.of(image, model)
    decoder = Decoder(Executable(image, **mode))
    if decoder.batch != 1:
        raise InputError(f"the image is for {decoder.batch} texts at once", model, "compile it for one")
    session = Session(decoder, lambda array: array, _sample(decoder, asked, given.seed))
    talking = Conversation(session, decoder, language, asked.raw or not language.template)
    if asked.chat:
        return _chat(talking, asked)
    parts = []
    for part in talking.answer(asked.prompt or "", asked.max_new_tokens):
        parts.append(part)
        if not as_json:
            _write(part)
    report = {"model": model, "chip": image.chip.name, "text": "".join(parts), **talking.report()}
    reply(report, as_json, lambda: _close(talking))
    return 0


def _sample(decoder: Decoder, asked: Asked, seed: int) -> Sample:
    """How tokens are chosen. Only who draws them needs PyTorch."""
    if not asked.temperature:
        return greedy(decoder)
    import_transformers()
    from runtime.pytorch.sampling import drawing

    return drawing(decoder, asked.temperature, asked.top_k, asked.top_p, seed)


def _write(text: str) -> None:
    click.echo(shown_lines(text), nl=False)
    sys.stdout.flush()


def _close(talking: Conversation) -> None:
    """End the answer's line, and say what it cost."""
    click.echo()
    report = talking.report()
    speeds = report["tokens_per_second"]
    emulated = f"{speeds['emulated']:.1f}" if speeds["emulated"] else "–"
    note(
        f"{report['prompt_tokens']} + {report['new_tokens']} tokens; emulated {emulated} tokens/s, on chip "
        f"{talking.decoder.image.chip.name} {speeds['chip']:.1f} tokens/s at {report['context']} tokens"
    )


def _chat(talking: Conversation, asked: Asked) -> int:
    said = asked.prompt
    while True:
        if said is None:
            if sys.stdin.isatty():
                click.echo("> ", nl=False, err=True)
            line = sys.stdin.readline()
            if not line:
                return 0
            said = line.rstrip("\r\n")
        if said.strip():
            try:
                for part in talking.answer(said, asked.max_new_tokens):
                    _write(part)
                _close(talking)
            except InputError as error:  # the conversation goes on without this
                note(f"error: {error}")
        said = None

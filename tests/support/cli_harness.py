"""Small models on disk, and ways to call the command line: in this process (fast) or in another (real)."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "sits", "runs", "good", "bad", "film"]
CONFIG = {
    "vocab_size": len(WORDS),
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
}


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one document on stdout; fails if there is anything else."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        document = self.document
        assert list(document) == ["error"]
        assert set(document["error"]) == {"kind", "what", "where", "hint"}
        return dict(document["error"])


def call(*args: object) -> Result:
    """`llmcc` in this process."""
    from runtime.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(arg) for arg in args])
    return Result(code, out.getvalue(), err.getvalue())


def script(*arguments: object, patience: float = 2.0) -> str:
    """Python code that is `llmcc` with these arguments; progress is shown after `patience` seconds."""
    return (
        "import sys, runtime.cli.common as common\n"
        f"common.PATIENCE = {patience}\n"
        "from runtime.cli.main import main\n"
        f"sys.exit(main({[str(argument) for argument in arguments]!r}))"
    )


def spawn(*args: object, cwd: Path | None = None, patience: float | None = None) -> Result:
    """`llmcc` as a user runs it, or with less patience."""
    command = ["-m", "runtime.cli", *map(str, args)] if patience is None else ["-c", script(*args, patience=patience)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=cwd, timeout=120)
    return Result(done.returncode, done.stdout, done.stderr)


def make_bert(folder: Path, name: str = "BertModel", weights: bool = True, **changes: Any) -> Path:
    """A Hugging Face folder with a random model and a word-level tokenizer."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    config = transformers.BertConfig(**{**CONFIG, **changes}, architectures=[name])
    config.save_pretrained(folder)
    if weights:
        torch.manual_seed(1)
        model = getattr(transformers, name)(config).eval()
        with torch.no_grad():  # wide enough for labels and similarities to differ
            for parameter in model.parameters():
                parameter.mul_(4)
        model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder

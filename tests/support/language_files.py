"""A GGUF file of a small language model with a tokenizer: all bytes, some merges, tokens that end a turn."""

from gguf_models import metadata, small, tensors
from tokenizers import pre_tokenizers

from fuzz.gguf import gguf, pair

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<unk>", "<pad>", "<one>", "<|im_end|>"]
MERGES = ["t h", "th e", "Ġ the", "c a", "ca t", "Ġ cat"]
TOKENS = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
TYPES = [3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL))
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def language_file(template: str | None = TEMPLATE, kind: str | None = None) -> bytes:
    """The bytes of a file."""
    model = small("llama", vocab_size=len(TOKENS))
    pairs = [
        *metadata("llama", model),
        pair("tokenizer.ggml.model", "text", "gpt2"),
        pair("tokenizer.ggml.pre", "text", "smollm"),
        pair("tokenizer.ggml.tokens", "[text]", TOKENS),
        pair("tokenizer.ggml.merges", "[text]", MERGES),
        pair("tokenizer.ggml.token_type", "[i32]", TYPES),
        pair("tokenizer.ggml.bos_token_id", "u32", 1),
    ]
    if template is not None:
        pairs.append(pair("tokenizer.chat_template", "text", template))
    return gguf(pairs, tensors("llama", model, kind))

"""Models of GGUF files: each architecture's tensors find their places, and products of blocks stay as they are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from decoders import Steps, random_ids
from gguf_models import FAMILIES, Tensors, file_of, metadata, small, tensors
from grouped_models import random_rows

from compiler.frontend.gguf.blocks import WEIGHT_TYPES, WeightType
from compiler.frontend.gguf.embedding import GroupedEmbedding
from compiler.frontend.gguf.file import read_gguf
from compiler.frontend.gguf.linear import GroupedLinear
from compiler.frontend.gguf.model import causal_lm
from fuzz.gguf import gguf, pair
from isa.errors import ModelError


def read(data: bytes) -> Any:
    return causal_lm(read_gguf(np.frombuffer(data, np.uint8), "x.gguf"))


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_file_of_floats_is_the_model_it_was_made_of(architecture: str) -> None:
    """Breaks when a tensor lands in another place, rows of queries or keys stay turned, or a number is read as
    another."""
    original = small(architecture)
    with torch.no_grad():
        for value in original.parameters():
            if value.ndim == 1:  # norms would be all ones, biases zero
                value.add_(torch.rand(value.shape) / 4)
    model = causal_lm(read_gguf(file_of(architecture, original)))
    ids = random_ids(20).long()
    with torch.no_grad():
        found, wanted = (m(input_ids=ids, use_cache=False).logits for m in (model, original))
    assert not model.training and type(model) is type(original)
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-5)
    assert model.generation_config.eos_token_id == [5]


@pytest.mark.wide
@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("llama", "Q4_1"), pytest.param("llama", "Q8_0", marks=pytest.mark.slow), ("gpt2", "Q5_1")],
)
def test_products_of_blocks_run_bit_for_bit(architecture: str, kind: str) -> None:
    """Breaks when grouped products of a decoder differ from their reference in a bit, or layers are not one loop."""
    original = small(architecture, **({"num_hidden_layers": 4} if architecture == "llama" else {}))
    model = causal_lm(read_gguf(file_of(architecture, original, kind)))
    assert isinstance(model.lm_head, GroupedLinear)
    steps = Steps.of(model, [7, 1], 24)
    steps.run(random_ids(9), [7, 1, 1])
    assert steps.finish() == 0
    if architecture == "llama":
        assert all(program.tiled.program.loop is not None for program in steps.compiled.programs.values())


@pytest.mark.parametrize("kind", WEIGHT_TYPES.values(), ids=lambda kind: kind.name)
def test_modules_know_their_weights(kind: WeightType) -> None:
    """Breaks when codes are unpacked in another order than packed, a minimum is left out, or a row that is looked up is
    dequantized in other steps than ggml's."""
    rows = random_rows(kind, 3, 512, 7)
    wanted = kind.decode(rows).values()
    linear, table = GroupedLinear(kind, rows), GroupedEmbedding(kind, rows)
    assert np.array_equal(linear.values().numpy(), wanted) and np.array_equal(table.values().numpy(), wanted)
    shared = GroupedEmbedding(kind, rows, linear)
    ids = torch.tensor([[2, 0, 2]])
    assert np.array_equal(shared(ids).numpy()[0], wanted[[2, 0, 2]])
    assert (shared.codes is linear.codes) == (kind.product.storage == "i8")


def test_factors_of_frequencies_divide() -> None:
    """Breaks when Llama 3.1's rope_freqs.weight is left out, or multiplied."""
    original, factors = small("llama"), np.linspace(1, 8, 8, dtype=np.float32)
    given = tensors("llama", original) | {"rope_freqs.weight": ((8,), 0, factors.tobytes())}
    model = read(gguf(metadata("llama", original), given))
    assert torch.equal(model.model.rotary_emb.inv_freq, original.model.rotary_emb.inv_freq / torch.from_numpy(factors))


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda given: {key: value for key, value in given.items() if key != name}


BAD = [
    (without("blk.1.ffn_up.weight"), "no tensor blk.1.ffn_up.weight"),
    (without("token_embd.weight"), "no tensor token_embd.weight"),
    (lambda given: given | {"blk.0.odd.weight": ((2,), 0, bytes(8))}, "blk.0.odd.weight has no place"),
    (lambda given: given | {"blk.0.attn_q.weight": ((2, 2), 0, bytes(16))}, r"attn_q.weight is \[2, 2\], .* mean"),
    (lambda given: given | {"blk.0.attn_q.bias": ((64,), 0, bytes(256))}, "no tensor blk.0.attn_k.bias"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_tensors_that_do_not_fit_are_named(change: Callable[[Tensors], Tensors], message: str) -> None:
    """Breaks when a model is made of a part of its weights, or a file's size is believed."""
    original = small("llama")
    data = gguf(metadata("llama", original), change(tensors("llama", original)))
    with pytest.raises(ModelError, match=message) as caught:
        read(data)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("x.gguf: ")


ODD = [
    (pair("general.architecture", "text", "mamba\x1b"), r"architecture is mamba\\x1b"),
    (pair("llama.block_count", "u32", 1 << 30), "block_count is 1073741824, not a number from 1 to 21"),
    (pair("llama.attention.head_count", "u32", 0), "head_count is 0"),
    (pair("llama.attention.head_count", "[u32]", [4, 4]), "head_count is"),
    (pair("llama.attention.key_length", "u32", 15), "sizes of its heads"),
    (pair("llama.rope.scaling.type", "text", "yarn"), r"scaled in a way that is not read \(yarn\)"),
    (pair("llama.rope.dimension_count", "u32", 8), "a part of a head only"),
    (pair("llama.expert_count", "u32", 8), "mixture of experts"),
    (pair("llama.rope.freq_base", "f32", float("nan")), "freq_base is nan"),
]


@pytest.mark.parametrize(("odd", "message"), ODD)
def test_metadata_that_lie_are_refused(odd: bytes, message: str) -> None:
    """Breaks when a number of the file decides how much memory is taken, or a model computes something else."""
    original = small("llama")
    key = odd[: 8 + int.from_bytes(odd[:8], "little")]
    pairs = [known for known in metadata("llama", original) if not known.startswith(key)]
    with pytest.raises(ModelError, match=message):
        read(gguf([*pairs, odd], tensors("llama", original)))

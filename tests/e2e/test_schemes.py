"""Every scheme of quantization on small models: the chip's bits are those of PyTorch, and they mean what they say."""

from collections import Counter
from typing import Any

import pytest
import torch
from decoders import decoder
from torch import Tensor, nn
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

import llmchip
from compiler.frontend.calibration import Calibration, Range, marked, smoothing
from compiler.frontend.capture import capture
from compiler.lower import lower
from compiler.options import Options
from compiler.quantization import SCHEMES, QuantConfig
from emulator.timing.simulate import simulate
from isa.errors import CompileError, InputError
from lint.analyse import lint
from runtime.profile.roofline import speed_of_light
from runtime.pytorch import cache


def close(a: Tensor, b: Tensor) -> float:
    a, b = (x.detach().flatten().double() for x in (a, b))
    return float(torch.nn.functional.cosine_similarity(a, b, 0))


def mlp() -> tuple[nn.Module, Tensor]:
    """Columns of its inputs are of very different sizes, as those of a trained transformer are."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 24)).eval()
    return model, torch.randn(7, 64) * torch.logspace(-2, 1, 64)


def bert(layers: int = 2) -> tuple[BertModel, dict[str, Tensor]]:
    torch.manual_seed(1)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=64, vocab_size=50,
        max_position_embeddings=16,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).eval(), {"input_ids": torch.randint(0, 50, (2, 8))}


class Block(nn.Module):
    """One of many identical layers: a linear layer, and a product of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"mix": Mix(), "up": nn.Linear(4, 16)})

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + torch.tanh(self.inner["up"](self.inner["mix"](x)))
        return y


class Mix(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x @ x.T) * 0.1


def operators(program: llmchip.Program) -> Counter[str]:
    """How often the frozen graph has each operation."""
    graph = program.compiled.lowered.main.graph
    return Counter(str(node.target).rpartition("llmchip.")[2] for node in graph.nodes if node.op == "call_function")


@pytest.mark.parametrize(
    "scheme", [*SCHEMES, "float", "bf16", "w8a8-dynamic,smoothing=0.5", "w8a8-static,smoothing=0.7"]
)
def test_bits_are_pytorchs_and_the_model_stays_itself(scheme: str) -> None:
    """Breaks when a scheme is computed otherwise on the chip, far from the float model, faster than can be, or racily."""
    model, x = mlp()
    program = llmchip.compile(model, (x,), quantization=scheme, calibration=[x])
    found = program.verify(x)
    assert found.bit_exact and found.mismatched_elements == 0, found.first_divergence or found.findings
    least = {"float": 1 - 1e-9, "bf16": 0.9999, "w8a16": 0.9999, "w4a8-g32": 0.98, "w8a8-static": 0.99}
    assert close(program(x), model(x)) > least.get(scheme, 0.999)
    bound = speed_of_light(program.compiled.lowered.main.graph, program.chip)
    assert 0 < bound.cycles <= simulate(program.image).cycles
    assert not [finding for finding in lint(program.image) if finding.severity == "error"]


def test_static_rows_have_the_scale_of_the_calibration() -> None:
    """Breaks when the range is measured at run time, is not that of the calibration, or does not saturate."""
    torch.manual_seed(0)
    model, x = nn.Linear(40, 12).eval(), torch.randn(5, 40)
    program = llmchip.compile(model, (x,), quantization="w8a8-static", calibration=[x, x / 2])
    s = x.abs().amax() / torch.tensor(127.5)
    weight = model.weight.detach()
    sw = weight.abs().amax(1) / torch.full((12,), 127.5)
    codes = [torch.clamp(torch.round(v * (1 / scale)), -128, 127) for v, scale in ((weight, sw[:, None]), (4 * x, s))]
    want = ((codes[1] @ codes[0].T) * s) * sw + model.bias.detach()
    found = program(4 * x)
    assert torch.equal(found.view(torch.int32), want.view(torch.int32))
    assert float((codes[1] == 127).sum()) > 5  # out of range


def test_smoothing_makes_large_columns_harmless() -> None:
    """Breaks when columns are not multiplied, or weights not divided, by the same numbers."""
    torch.manual_seed(0)
    model, x = nn.Linear(64, 24).eval(), torch.randn(9, 64)
    x[:, 5] *= 50  # an outlier: without smoothing the other columns have two bits
    model.weight.data[:, 5] /= 50
    errors = []
    for alpha in (None, 0.5):
        config = QuantConfig(smoothing=alpha)
        program = llmchip.compile(model, (x,), quantization=config, calibration=[x])
        errors.append(float((program(x) - model(x)).norm()))
    assert errors[1] < 0.2 * errors[0]


def test_multipliers_of_columns() -> None:
    """max|w|^(1 - a) / max|x|^a; a column without values is left alone. Breaks when the exponents change places."""
    found = Range("layer", torch.tensor([16.0, 4.0, 0.0, 1.0]), torch.tensor([1.0, 16.0, 3.0, 0.0]))
    assert smoothing(found, 0.5).tolist() == [0.25, 2.0, 1.0, 1.0]
    assert smoothing(found, 1.0).tolist() == [0.0625, 0.25, 1.0, 1.0]


def test_layers_of_one_input_share_its_quantization() -> None:
    """Breaks when q, k and v get multipliers of their own, and so quantize their input three times."""
    model, given = bert()
    plain = operators(llmchip.compile(model, given))
    smooth = operators(llmchip.compile(model, given, quantization="w8a8,smoothing=0.5", calibration=[given]))
    assert smooth["quantize_rows.default"] == plain["quantize_rows.default"]
    assert "calibrated.default" not in smooth


def test_calibration_does_not_depend_on_order_or_grouping() -> None:
    """Breaks when a call of the model makes the next one's ranges others."""
    model, _ = bert()
    ids = torch.randint(0, 50, (4, 8))
    whole = llmchip.calibrate(model, [{"input_ids": ids}])
    parts = llmchip.calibrate(model, [(ids[3:],), (ids[:3],)])
    assert (whole.calls, parts.calls) == (1, 2) and list(whole.ranges) == list(parts.ranges)
    for name, found in whole.ranges.items():
        torch.testing.assert_close(found.inputs, parts.ranges[name].inputs, rtol=1e-4, atol=1e-5)
    attention = "encoder.layer.1.attention.self"
    assert {whole.ranges[f"{attention}.{name}"].group for name in ("query", "key", "value")} == {f"{attention}.query"}
    assert whole.digest == llmchip.calibrate(model, [{"input_ids": ids}]).digest
    assert whole.digest != llmchip.calibrate(model, [{"input_ids": ids[:1]}]).digest


def test_overrides_hold_for_their_modules_alone() -> None:
    """Breaks when one of many identical layers is lowered like its neighbours, attention included."""
    torch.manual_seed(0)
    model, x = nn.Sequential(*(Block() for _ in range(9))).eval(), torch.randn(4, 16)
    config = QuantConfig(overrides={"5.*": "float"})
    program = llmchip.compile(model, (x,), quantization=config)
    assert operators(program)["matmul_float.default"] == 2 and operators(program)["matmul_i8.default"] == 8 * 2
    assert program.verify(x).bit_exact
    keys = {cache.program_key(program.captured, Options(quantization=text)) for text in ("w8a8", str(config))}
    assert len(keys) == 2


def test_islands_in_bert() -> None:
    """Breaks when an island's neighbours, or the border between both, lose a bit."""
    model, given = bert()
    overrides = {"layer.0.attention.*": "bf16", "layer.0.output.dense": "w8a16", "intermediate.dense": "float"}
    config = QuantConfig("w8a8-static", smoothing=0.5, overrides=overrides)
    program = llmchip.compile(model, given, quantization=config, calibration=[given])
    assert program.verify(**given).bit_exact


@pytest.mark.slow
def test_islands_in_a_decoder() -> None:
    """Breaks when steps of one image differ in what they know of the calibration."""
    model, ids = decoder("Llama"), torch.randint(0, 97, (1, 6))
    overrides = {"lm_head": "float", "layers.0.mlp.*": "w8a16", "layers.1.self_attn.o_proj": "bf16"}
    config = QuantConfig("w8a8-static", smoothing=0.5, overrides=overrides)
    program = llmchip.compile(
        model, {"input_ids": ids}, max_length=16, quantization=config, calibration=[{"input_ids": ids}]
    )
    assert program.verify(ids, 3).bit_exact


def test_islands_in_a_model_of_images() -> None:
    """Breaks when a convolution's product does not know its module."""
    torch.manual_seed(2)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48, image_size=16, patch_size=8
    )
    model, x = ViTModel(config, add_pooling_layer=False).eval(), torch.randn(1, 3, 16, 16)
    overrides = {"patch_embeddings.projection": "float", "*attention": "bf16"}
    program = llmchip.compile(model, (x,), quantization=QuantConfig(overrides=overrides))
    assert program.verify(x).bit_exact and operators(program)["matmul_float.default"] == 3


def test_torch_compile_has_the_same_bits() -> None:
    """Breaks when a module's path, as Dynamo has it, finds no override or no range."""
    model, x = mlp()
    config = QuantConfig("w8a8-static", smoothing=0.5, overrides={"2": "float"})
    found = llmchip.calibrate(model, [x])
    options: dict[str, Any] = {"quantization": config, "calibration": found, "fallback": False}
    ahead = llmchip.compile(model, (x,), quantization=config, calibration=found)
    assert operators(ahead)["matmul_float.default"] == operators(ahead)["matmul_i8.default"] == 1
    with torch.no_grad():
        now = torch.compile(model, backend="llmchip", fullgraph=True, options=options)(x)
    assert torch.equal(now.view(torch.int32), ahead(x).view(torch.int32))


def test_bfloat16_models_take_every_scheme() -> None:
    """Breaks when a product of bfloat16 rounds at another place."""
    model, x = mlp()
    model, x = model.to(torch.bfloat16), x.to(torch.bfloat16)
    for scheme in ("w8a16", "float", "w8a8-static,smoothing=0.5"):
        program = llmchip.compile(model, (x,), quantization=scheme, calibration=[x])
        assert program.verify(x).bit_exact, scheme


def test_weights_of_eight_bits_stay_eight_bits() -> None:
    """Breaks when w8a16 keeps floats in memory."""
    model, x = mlp()
    eight, weights, wide = (
        len(llmchip.compile(model, (x,), quantization=scheme).image.weights) for scheme in ("w8a8", "w8a16", "float")
    )
    assert weights == eight and wide < weights  # floats are no int8 section at all


def test_what_cannot_be_is_one_clear_line() -> None:
    """Breaks when a scheme that needs a calibration goes on without one, or with one of another model."""
    model, x = mlp()
    with pytest.raises(CompileError, match="takes a calibration"):
        llmchip.compile(model, (x,), quantization="w8a8-static")
    with pytest.raises(CompileError, match="seen nothing of the layer '0'"):
        marked(capture(model, (x,)), QuantConfig("w8a8-static"), Calibration({}, 1))
    with pytest.raises(InputError, match="refuses an input"):
        llmchip.calibrate(model, [torch.randn(2, 3)])
    with pytest.raises(InputError, match="has no inputs"):
        llmchip.calibrate(model, [])
    options: Any = {"calibration": [x]}
    program = torch.compile(model, backend="llmchip", options=options)
    with pytest.raises(CompileError, match="calibrate"):
        program(x)


def test_the_plain_scheme_is_what_it_was() -> None:
    """Breaks when naming the default scheme, or a calibration that nothing takes, changes a graph."""
    model, x = mlp()
    captured = capture(model, (x,))
    assert marked(captured, QuantConfig(), None) is captured
    texts = {str(lower(captured, Options(quantization=name)).main.graph) for name in ("w8a8", "w8a8-dynamic")}
    assert texts == {str(lower(captured).main.graph)}

"""The speed of light and the profile of compiled models."""

import json
from collections.abc import Callable
from math import ceil

import msgspec
import pytest
import torch
from models import Function, lowered_of
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

import llmchip
from emulator.timing.waterfall import CAUSES
from isa.architecture import Engine
from isa.chip import Acc, Chip, Dram, Lanes, Mxu, Sram, load_chip
from isa.image.image import image_bytes, read_image
from runtime.profile.profile import Profile, profile
from runtime.profile.roofline import Gemm, Operation, Stream, limit, operations
from runtime.program import Program

EDGE, SERVER = load_chip("edge"), load_chip("server")
CHIPS = {
    "edge": EDGE,
    "server": SERVER,
    "small": msgspec.structs.replace(
        EDGE, name="small", mxu=Mxu(16, 8, 1), vec=Lanes(4), act=Lanes(4), sram=Sram(48 << 10), acc=Acc(12 << 10)
    ),
    "split": msgspec.structs.replace(EDGE, name="split", mxu=Mxu(64, 64, 64, True), dram=Dram(10**12, 1, 1)),
}


def bert() -> nn.Module:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 50,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 96,
    }
    config = BertConfig(**sizes, max_position_embeddings=40)
    model: nn.Module = BertModel._from_config(config).eval()
    return model


def compiled_bert(chip: Chip) -> Program:
    inputs = {"input_ids": torch.arange(66).reshape(2, 33) % 50, "attention_mask": torch.ones(2, 33, dtype=torch.long)}
    return llmchip.compile(bert(), inputs, chip=chip)


@pytest.fixture(scope="module")
def program() -> Program:
    return compiled_bert(EDGE)


@pytest.fixture(scope="module")
def report(program: Program) -> Profile:
    return profile(program.image, program.compiled)


def encoder(layers: int, hidden: int, heads: int, inner: int, seq: int) -> list[Operation]:
    """The GEMMs of a BERT encoder, and its linear weights."""
    shapes = [(hidden, hidden)] * 4 + [(inner, hidden), (hidden, inner)]
    one = [Operation("linear", Gemm(1, seq, n, k), dram_bytes=n * k) for n, k in shapes]
    size = hidden // heads
    return [
        *one,
        Operation("scores", Gemm(heads, seq, seq, size)),
        Operation("values", Gemm(heads, seq, size, seq)),
    ] * layers


@pytest.mark.parametrize(("seq", "geometry", "ideal"), [(128, 700, 682), (384, 2322, 2157), (512, 3244, 2949)])
def test_bert_base_as_published(seq: int, geometry: int, ideal: int) -> None:
    """The table of microseconds in the design: array geometry, the same with the split, and weights at 100 GB/s and 1
    TB/s."""
    ops = encoder(12, 768, 12, 3072, seq)
    split = msgspec.structs.replace(EDGE, mxu=Mxu(split=True))
    assert limit(ops, EDGE).by_resource["mxu"] // 1000 == geometry
    assert round(limit(ops, split).by_resource["mxu"] / 1000) == ideal
    assert limit(ops, EDGE).by_resource["dram"] // 1000 == 849
    assert ceil(limit(ops, SERVER).by_resource["dram"] / 1000) == 85


def test_streams_round_up_by_row() -> None:
    ops = [Operation("a", vec=Stream(10, 129)), Operation("b", act=Stream(1, 256)), Operation("c", dram_bytes=101)]
    assert limit(ops, EDGE).by_resource == {"mxu": 0, "vec": 20, "act": 2, "dram": 2}


def test_operations_of_a_lowered_graph(program: Program) -> None:
    """Multiply-accumulates of the model by hand. Breaks if a product is missed or its shape misread."""
    gemms = [op.gemm for op in operations(program.compiled.lowered.main.graph) if op.gemm is not None]
    linear = 4 * 64 * 64 + 2 * 64 * 96
    attention = 2 * 2 * 2 * 33 * 33 * 32  # batch, heads, scores and values
    assert (
        sum(g.macs for g in gemms) == 2 * (66 * linear + attention) + 2 * 64 * 64
    )  # two layers, and the pooler on two rows


PASSES: dict[str, tuple[Callable[..., Tensor], str]] = {  # over the elements, by hand: vaff has sub, rs, cs, bi, res
    "a lone product": (lambda m, x, y: x * y, "mul 1"),
    "no step of vaff": (lambda m, x, y: x / y, "div 1"),
    "a chain": (lambda m, x, y: x * y + x, "mul 1/5, add 1/5"),  # in one word with up to five steps
    "a chain, then none": (lambda m, x, y: (x * y + x) / y, "mul 1/5, add 1/5, div 1"),
    "quantized": (lambda m, x, y: m.lin(x), "quantize_rows 2, dequantize 1"),  # largest magnitude, then the values
    # vqd scales its columns, and the maximum rides on the product where that is made by itself
    "a product, quantized": (lambda m, x, y: m.lin(x * y), "mul 0, quantize_rows 1, dequantize 1"),
    "a chain, quantized": (lambda m, x, y: m.lin(x * 2 + y), "mul 1/5, add 0, quantize_rows 1, dequantize 1"),
    "a sum behind vaff": (lambda m, x, y: m.lin(x) + y, "quantize_rows 2, dequantize 1, add 0"),  # its step res
    "a product before ACT": (lambda m, x, y: torch.sigmoid(x * y), "mul 0"),  # act scales what it reads
    "softmax": (lambda m, x, y: torch.softmax(x, -1), "softmax 2"),  # maximum, division
    "softmax of a product": (lambda m, x, y: torch.softmax(x * y, -1), "mul 1, softmax 1"),  # maximum rides along
    "softmax, scaled": (lambda m, x, y: torch.softmax(x, -1) * y, "softmax 1, mul 1"),  # the division is a step rs
    "softmax, quantized": (  # vqd divides; the largest exp is exp(0)
        lambda m, x, y: m.lin(torch.softmax(x, -1)),
        "softmax 1, quantize_rows 1, dequantize 1",
    ),
    "layer norm": (lambda m, x, y: functional.layer_norm(x, (8,)), "layer_norm 3"),  # sum, squares, values
    "layer norm of a sum": (lambda m, x, y: functional.layer_norm(x + y, (8,)), "add 1, layer_norm 2"),
    "layer norm, scaled": (lambda m, x, y: functional.layer_norm(x, (8,)) * y, "layer_norm 3, mul 0"),
    "layer norm, quantized": (
        lambda m, x, y: m.lin(functional.layer_norm(x, (8,))),
        "layer_norm 3, quantize_rows 1, dequantize 1",
    ),
}


@pytest.mark.parametrize("name", PASSES)
def test_passes_of_the_vector_engine(name: str) -> None:
    """Breaks when an operation's record forgets or invents where the steps of a vaff make it, or a neighbour, cheaper:
    the limit would be above what a program can do, or far below."""
    function, want = PASSES[name]
    graph = lowered_of(Function(function), torch.ones(3, 8), torch.ones(3, 8)).main.graph
    found = [f"{op.name} {op.vec.passes}" for op in operations(graph) if op.vec is not None]
    assert ", ".join(found) == want


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "small" else []) for name in CHIPS]
)
def test_no_program_beats_the_limit(name: str) -> None:
    """Not in total, and no engine with less work than its share."""
    found = compiled_bert(CHIPS[name])
    report = profile(found.image, found.compiled)
    least = report.limit.by_resource
    assert report.cycles >= report.limit.cycles == max(least.values())
    t = report.timeline
    assert all(t.busy(Engine(engine)) >= least[engine] for engine in ("mxu", "vec", "act"))
    assert t.bus_busy() >= least["dram"] > 0
    assert min(report.as_dict()["limits"].values()) > 0


class Inverted(nn.Module):
    """A convolution, and one by channel between bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.apart = nn.Conv2d(5, 40, 3, padding=1), nn.Conv2d(40, 40, 5, 2, padding=2, groups=40)
        self.last = nn.Conv2d(40, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(functional.relu6(self.apart(functional.relu6(self.first(x)))))
        return y


def test_passes_of_convolutions() -> None:
    """Breaks when taps outside of the map count, a bound of zero does although ACT can do it, or columns are thought to
    be looked at twice."""
    graph = lowered_of(Inverted(), torch.randn(2, 5, 9, 6)).main.graph
    found = [(op.name.rstrip("_0123456789"), op.vec) for op in operations(graph) if op.vec]
    taps = (5 * 5 - 2 - 2) * (3 * 5 - 2 - 1)  # of 5 rows of places and 3 columns, those at the ends have fewer
    streams = {(name, vec.rows * vec.cols, int(vec.passes)) for name, vec in found}
    assert ("depthwise", 2 * taps * 40, 1) in streams
    assert ("clamp", 2 * 9 * 6 * 40, 1) in streams
    assert ("quantize_rows", 2 * 9 * 6 * 45, 1) in streams


@pytest.mark.parametrize("name", ["edge", "small"])
def test_no_convolution_beats_the_limit(name: str) -> None:
    """Breaks when a program of convolutions, its rows cut for the lanes, needs less of an engine than the limit says."""
    found = llmchip.compile(Inverted().eval(), (torch.randn(1, 5, 30, 30),), chip=CHIPS[name])
    report = profile(found.image, found.compiled)
    least = report.limit.by_resource
    assert report.cycles >= report.limit.cycles
    assert all(report.timeline.busy(Engine(engine)) >= least[engine] > -1 for engine in ("mxu", "vec", "act"))


def test_waterfall_adds_up(report: Profile) -> None:
    """Breaks if a cycle is lost or counted twice, in total or in any of the tables."""
    assert sum(report.waterfall.values()) == report.cycles and set(report.waterfall) == set(CAUSES)
    for table in (report.nodes, report.lines, report.layers):
        assert sum(row.cycles for row in table) == report.cycles
        assert all(sum(row.waterfall.values()) == row.cycles for row in table)
        assert sum(row.macs for row in table) == report.macs
        assert sum(row.dram_bytes for row in table) == report.dram_bytes


def test_stalls_are_explained(report: Profile) -> None:
    """Breaks if a chain does not cover its gap, or gaps and work do not cover the run."""
    stalls = report.stalls(10**6)
    assert all(sum(link.cycles for link in stall.chain) == stall.cycles for stall in stalls)
    assert sum(stall.cycles for stall in stalls) + report.waterfall["compute"] == report.cycles
    assert [stall.cycles for stall in stalls] == sorted((stall.cycles for stall in stalls), reverse=True)


def test_layers_are_found(report: Profile) -> None:
    names = {row.name for row in report.layers}
    assert {"encoder_layer_0", "encoder_layer_1", "pooler"} <= names
    one, two = (next(row for row in report.layers if row.name == f"encoder_layer_{i}") for i in range(2))
    assert one.macs == two.macs > 0


def test_lines_are_the_users(report: Profile) -> None:
    """Breaks if the debug map does not lead back to the model's source."""
    codes = [row.code for row in report.lines if row.macs]
    assert any("self.query" in code for code in codes)


def test_json_has_what_it_promises(report: Profile) -> None:
    data = json.loads(json.dumps(report.as_dict()))
    keys = "cycles seconds limit_cycles limits utilisation waterfall energy_joules instructions macs dram_bytes"
    assert set(keys.split()) <= set(data)
    assert all(0 <= share <= 1 for share in data["utilisation"].values())
    assert data["total_joules"] == pytest.approx(sum(data["energy_joules"].values()))


def test_image_alone_can_be_profiled(program: Program, report: Profile) -> None:
    """Without the model the limit is that of the program's own words, and the timing is the same."""
    alone = profile(read_image(image_bytes(program.image)))
    assert alone.cycles == report.cycles and alone.limit_source == "program"
    assert alone.limit.cycles <= alone.cycles
    assert sum(alone.waterfall.values()) == alone.cycles


def test_profile_is_deterministic(program: Program, report: Profile) -> None:
    assert profile(program.image, program.compiled).as_dict() == report.as_dict()

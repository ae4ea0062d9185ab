"""The trace for Perfetto: what every slice says, and that the file is what Perfetto reads."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from checkout import ROOT
from read_harness import bert_image

from isa.architecture import QUEUES
from isa.asm.assemble import assemble_file
from runtime import schemas
from runtime.profile.perfetto import trace_events, write_trace
from runtime.profile.profile import Profile, profile
from runtime.profile.trace import Slice, Trace

GEMM = ROOT / "examples" / "asm" / "gemm.s"


@pytest.fixture(scope="module")
def report() -> Profile:
    return profile(bert_image())


@pytest.fixture(scope="module")
def trace(report: Profile, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    write_trace(report, path)
    return dict(json.loads(path.read_text()))


def of_kind(trace: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event["ph"] == kind]


def test_the_file_is_what_its_schema_says(trace: dict[str, Any], report: Profile) -> None:
    """Breaks when an event has a field that Perfetto does not know, or lacks one that it needs."""
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads((ROOT / "docs" / "schemas" / "trace.json").read_text()))
    assert next(validator.iter_errors(trace), None) is None
    assert (ROOT / "docs" / "schemas" / "trace.json").read_text() == schemas.text("trace")
    nameless = {key: value for key, value in of_kind(trace, "X")[0].items() if key != "dur"}
    assert next(validator.iter_errors({**trace, "traceEvents": [nameless]}), None) is not None
    assert msgspec.convert(trace, Trace, strict=False).events == tuple(trace_events(report))


def test_every_slice_says_what_it_works_for(trace: dict[str, Any], report: Profile) -> None:
    """Breaks when a slice lacks layer, node, operator or source line, or has those of another instruction."""
    nodes = {node.name: node for node in report.image.debug.nodes}
    slices = of_kind(trace, "X")
    for event in slices:
        about = event["args"]
        if about["node"] in nodes:
            node = nodes[about["node"]]
            assert (about["op"], about["layer"]) == (node.op, node.layer) and event["name"].startswith(node.name)
            assert about["source"].startswith(f"{node.file}:{node.line}: " if node.line else "")
    layers = {event["args"]["layer"] for event in slices}
    assert {"encoder_layer_0", "encoder_layer_1"} <= layers
    assert any("self.query" in event["args"]["source"] for event in slices)


def test_slices_of_a_track_do_not_overlap(trace: dict[str, Any], report: Profile) -> None:
    """Breaks when two slices of a track overlap, work is lost, or an arrow has only one end."""
    free: dict[int, float] = {}
    for event in sorted(of_kind(trace, "X"), key=lambda event: float(event["ts"])):
        assert event["ts"] >= free.get(event["tid"], 0.0) - 1e-9
        free[event["tid"]] = event["ts"] + event["dur"]
    named = {event["tid"] for event in of_kind(trace, "M") if event["name"] == "thread_name"}
    assert free.keys() <= named
    cycle = 1e6 / report.timeline.chip.clock_hz
    worked = sum(event["dur"] for event in of_kind(trace, "X") if event["cat"] == "work")
    assert worked == pytest.approx(sum(report.timeline.busy(engine) for engine in QUEUES) * cycle)
    starts, ends = ({event["id"]: event["ts"] for event in of_kind(trace, kind)} for kind in "sf")
    assert starts and starts.keys() == ends.keys() and all(ends[number] >= at for number, at in starts.items())


def test_a_hand_written_program_has_its_own_lines(tmp_path: Path) -> None:
    """Breaks when the slices of a program without a graph do not lead to its text."""
    found = [event for event in trace_events(profile(assemble_file(GEMM))) if isinstance(event, Slice)]
    assert any(event.args.op == "mm" and event.args.source.startswith(f"{GEMM}:50: mm c=S") for event in found)

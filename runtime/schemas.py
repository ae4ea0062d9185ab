"""The JSON schemas of what the command line and the API say, made from the types; docs/schemas/ has them as files."""

from typing import Any

import msgspec

from isa.image.records import DebugNode
from runtime.compare.document import ComparisonDocument
from runtime.doctor.document import DoctorDocument
from runtime.explain.document import ExplainDocument
from runtime.inspected import Buffer
from runtime.profile.document import ProfileDocument
from runtime.profile.trace import Trace
from runtime.quantize.document import QuantizeDocument
from runtime.report.document import ReportDocument
from runtime.sweep.document import SweepDocument
from runtime.verify.steps import StepsDocument
from runtime.verify.verify import Verification

TYPES: dict[str, Any] = {
    "profile": ProfileDocument,
    "comparison": ComparisonDocument,
    "report": ReportDocument,
    "quantize": QuantizeDocument,
    "verification": Verification,
    "steps-verification": StepsDocument,
    "sweep": SweepDocument,
    "graph": tuple[DebugNode, ...],
    "memory-map": tuple[Buffer, ...],
    "trace": Trace,
    "explain": ExplainDocument,
    "doctor": DoctorDocument,
}
_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema(name: str) -> dict[str, Any]:
    """The schema of one of TYPES."""
    return {"$schema": _DRAFT, **msgspec.json.schema(TYPES[name])}


def text(name: str) -> str:
    """The same as a file."""
    return msgspec.json.format(msgspec.json.encode(schema(name)), indent=1).decode() + "\n"

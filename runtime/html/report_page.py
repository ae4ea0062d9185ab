"""The page of `llmcc report`: what a colleague wants to know of a model on a chip, and the whole profile below."""

from collections.abc import Iterator, Sequence

from isa.technology import ASSUMED
from runtime.html.profile_data import encoded, page_data
from runtime.html.profile_page import facts, plots
from runtime.html.templates import rendered
from runtime.profile.document import ProfileDocument, Row
from runtime.profile.run import Run
from runtime.profile.words import size
from runtime.report.document import OutputAccuracy, ReportDocument

_SLOWEST = 8


def page(run: Run, d: ReportDocument) -> str:
    """The whole file. Raises InputError without plotly."""
    p = d.profile
    return rendered(
        "model_report.html",
        encoded(page_data(run, p, plots(run, p, d.context), context=d.context)),
        title=d.title,
        d=d,
        glance=list(_glance(d)),
        model=list(_model(d)),
        facts=list(facts(p)),
        accuracy=_accuracy(d.accuracy.outputs),
        skipped=_skipped(d),
        area=sorted(d.area_mm2.items(), key=lambda part: -part[1]),
        total_area=sum(d.area_mm2.values()),
        memory=[(m.name, size(m.used), f"of {size(m.capacity)}" if m.capacity else "") for m in d.memory],
        slowest={"layer": _slowest(p.layers, p), "node": _slowest(p.nodes, p)},
        assumed=ASSUMED,
        context=d.context,
        listing="",
    )


def _glance(d: ReportDocument) -> Iterator[tuple[str, str, bool]]:
    """Name, value, and whether it is well."""
    p = d.profile
    yield "bits, chip against PyTorch's frozen graph", "bit-exact" if d.bit_exact else "not bit-exact", d.bit_exact
    cosines = [output.cosine for output in d.accuracy.outputs if output.cosine is not None]
    if cosines:
        yield "cosine to the float model, worst output", f"{min(cosines):.5f}", True
    for output in d.accuracy.outputs:
        if output.argmax is not None and output.choices:
            yield f"same choice in {output.name}", f"{output.argmax:.1%}", True
        if output.nearest is not None:
            yield "same nearest text", f"{output.nearest:.1%}", True
    if d.accuracy.perplexity is not None:
        yield "perplexity, chip (float)", "{:.2f} ({:.2f})".format(*d.accuracy.perplexity), True
    if d.context:
        slowest, fastest = (pick(point["tokens_per_second"] for point in d.context) for pick in (min, max))
        yield "tokens/s, long to short context", f"{slowest:,.0f} to {fastest:,.0f}", True
    yield "latency", f"{p.seconds * 1e6:,.1f} µs", True
    yield f"of the speed of light ({p.limit_resource})", f"{p.of_limit:.1%}", True
    yield "energy a launch", f"{p.total_joules * 1e3:,.3f} mJ", True
    yield "area", f"{sum(d.area_mm2.values()):,.1f} mm²", True


def _model(d: ReportDocument) -> Iterator[tuple[str, str]]:
    m = d.model
    yield "model", m.argument
    yield "architecture", m.architecture + (", with mean pooling" if m.task == "embed" else "")
    yield "parameters", f"{m.parameters:,}"
    yield "weights and constants on the chip", size(m.weight_bytes)
    for name, value in m.config.items():
        yield name.replace("_", " "), f"{value:,}" if isinstance(value, int) else value
    for way, tensors in (("input", m.inputs), ("output", m.outputs)):
        for tensor in tensors:
            yield way, f"{tensor.name} {tensor.dtype} [{', '.join(map(str, tensor.shape))}]"
    options = [f"{name}={value}" for name, value in m.options.items() if value not in (None, "", [], ())]
    if options:
        yield "compiler options", ", ".join(options)


def _accuracy(outputs: Sequence[OutputAccuracy]) -> list[tuple[str, ...]]:
    """A table with its titles; columns that no output has are left out."""
    columns = {
        "output": [output.name for output in outputs],
        "cosine": _cells(".5f", [output.cosine for output in outputs]),
        "worst": _cells(".5f", [output.least_cosine for output in outputs]),
        "largest": _cells(".4g", [output.largest if output.cosine is not None else None for output in outputs]),
        "error": _cells(".2%", [output.error for output in outputs]),
        "argmax": _cells(".2%", [output.argmax for output in outputs]),
        "nearest": _cells(".2%", [output.nearest for output in outputs]),
        "values": [f"{output.values:,}" for output in outputs],
    }
    some = {title: cells for title, cells in columns.items() if any(cells)}
    return [tuple(some), *zip(*some.values(), strict=True)]


def _cells(form: str, values: Sequence[float | None]) -> list[str]:
    return [format(value, form) if value is not None else "" for value in values]


def _skipped(d: ReportDocument) -> str:
    """How many nodes are not compared, by reason."""
    kinds: dict[str, int] = {}
    for entry in d.verification.skipped if d.verification is not None else ():
        kind = entry["reason"].partition(": ")[0]
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1]))


def _slowest(rows: tuple[Row, ...], p: ProfileDocument) -> list[tuple[str, str, str, str, str]]:
    found = sorted(rows, key=lambda row: -row.cycles)[:_SLOWEST]
    return [
        (
            row.name or "(no layer)", f"{row.cycles:,}", f"{row.cycles / p.cycles:.1%}",
            f"{row.energy_joules * 1e6:,.1f}", row.op or "",
        )
        for row in found
    ]  # fmt: skip

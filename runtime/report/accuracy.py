"""How far the chip's results are from the float model's, over many samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from isa.image.records import TensorSpec
from runtime.device.arrays import Array
from runtime.models.tokenize import similarity
from runtime.pytorch.tensors import to_tensor
from runtime.report.document import Accuracy, OutputAccuracy, SampleAccuracy

WORST = 5  # samples that are shown
_CHOOSES = "logits"  # in the name of an output of whose rows the largest element counts


@dataclass
class _Output:
    """Sums over the samples of an output."""

    values: int = 0
    largest: float = 0.0
    error: float = 0.0
    norm: float = 0.0
    same: int = 0
    choices: int = 0
    cosines: list[float] = field(default_factory=list)
    rows: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # of embeddings: ours and theirs


class Meter:
    """Takes one launch after the other; `result` is the accuracy of all."""

    def __init__(self, specs: Sequence[TensorSpec], batch: int) -> None:
        self._specs, self._batch = specs, batch
        self._outputs = {spec.name: _Output() for spec in specs}
        self._samples: list[SampleAccuracy] = []

    def add(
        self, results: Mapping[str, Array], expected: Sequence[Tensor], mask: Tensor | None, texts: Sequence[str]
    ) -> None:
        """The outputs of a launch and what the float model gives. `mask` [batch, length] says which positions count;
        `texts` are those of its samples, further samples of the batch only fill it up; none: all were drawn."""
        count = len(texts) or self._batch
        for sample in range(count):
            cosines = []
            for spec, wanted in zip(self._specs, expected, strict=False):
                ours, theirs = to_tensor(results[spec.name], spec.dtype), wanted.detach()
                if ours.dim() and ours.shape[0] == self._batch:
                    ours, theirs = ours[sample], theirs[sample]
                elif sample:
                    continue  # it belongs to no sample alone
                if mask is not None and ours.dim() > 1 and ours.shape[0] == mask.shape[1]:
                    ours, theirs = ours[mask[sample].bool()], theirs[mask[sample].bool()]
                cosines += _add(self._outputs[spec.name], spec, ours, theirs)
            number = len(self._samples)
            self._samples.append(SampleAccuracy(number, texts[sample] if texts else "", min(cosines, default=1.0)))

    def result(self, source: str, left_out: int, perplexity: tuple[float, float] | None = None) -> Accuracy:
        """The accuracy of all samples, of which `left_out` were not taken; `perplexity`: of chip and float model."""
        outputs = tuple(_summed_up(name, output) for name, output in self._outputs.items())
        worst = tuple(sorted(self._samples, key=lambda sample: sample.cosine)[:WORST])
        return Accuracy(
            source=source, samples=len(self._samples), left_out=left_out, outputs=outputs, worst=worst,
            perplexity=perplexity,
        )  # fmt: skip


class Perplexity:
    """exp of the mean loss over all tokens that follow another one, of two models."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []

    def add(self, ours: Tensor, theirs: Tensor) -> None:
        """The losses of a text's tokens."""
        self._losses.append(torch.stack([ours, theirs]))

    def result(self) -> tuple[float, float] | None:
        """Of ours and theirs; None if no text had two tokens."""
        losses = torch.cat(self._losses, 1) if self._losses else torch.zeros(2, 0)
        if not losses.shape[1]:
            return None
        ours, theirs = losses.mean(1).exp().tolist()
        return ours, theirs


def _add(output: _Output, spec: TensorSpec, ours: Tensor, theirs: Tensor) -> list[float]:
    """Adds a sample of an output; gives its cosine, if it has one."""
    output.values += ours.numel()
    if not spec.storage.is_float:
        output.same += int((ours == theirs).sum())
        output.choices += ours.numel()
        return []
    a, b = ours.to(torch.float64), theirs.to(torch.float64)
    output.largest = max(output.largest, float((a - b).abs().max()) if a.numel() else 0.0)
    output.error += float((a - b).square().sum())
    output.norm += float(b.square().sum())
    if _CHOOSES in spec.name and a.dim() and a.shape[-1] > 1:
        output.same += int((a.argmax(-1) == b.argmax(-1)).sum())
        output.choices += a.shape[:-1].numel()
    if spec.name == "sentence_embedding":
        output.rows.append((a, b))
    norms = float(a.norm() * b.norm())
    output.cosines.append(float((a * b).sum()) / norms if norms else float(torch.equal(a, b)))
    return output.cosines[-1:]


def _summed_up(name: str, output: _Output) -> OutputAccuracy:
    cosines = output.cosines
    return OutputAccuracy(
        name=name,
        values=output.values,
        cosine=sum(cosines) / len(cosines) if cosines else None,
        least_cosine=min(cosines, default=None),
        largest=output.largest,
        error=(output.error / output.norm) ** 0.5 if output.norm else None,
        argmax=output.same / output.choices if output.choices else None,
        choices=output.choices,
        nearest=_nearest(output.rows) if len(output.rows) > 2 else None,
    )


def _nearest(rows: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Share of embeddings whose nearest other one is the same on both sides."""
    found = []
    for side in zip(*rows, strict=True):
        table = torch.from_numpy(similarity(torch.stack(side).to(torch.float32).numpy()))
        found.append(table.fill_diagonal_(-2.0).argmax(1))
    return float((found[0] == found[1]).to(torch.float64).mean())

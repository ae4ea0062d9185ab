"""Distances to the float model: what counts, and what does not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from isa.architecture import Dtype, Region
from isa.errors import InputError
from isa.image.records import TensorSpec
from runtime.models.texts import read_texts
from runtime.report.accuracy import Meter

LOGITS = TensorSpec("logits", (2, 3), "float32", Dtype.F32, Region.OUT)
STATES = TensorSpec("states", (2, 4, 5), "float32", Dtype.F32, Region.OUT)
EMBEDDING = TensorSpec("sentence_embedding", (1, 2), "float32", Dtype.F32, Region.OUT)
IDS = TensorSpec("ids", (2, 4), "int64", Dtype.I32, Region.OUT)


def test_equal_results_have_no_distance() -> None:
    meter, values = Meter((LOGITS,), 2), torch.tensor([[1.0, 2, 3], [3, 2, 1]])
    meter.add({"logits": values.numpy()}, [values], None, ("a", "b"))
    found = meter.result("f", 3)
    (output,) = found.outputs
    assert output.cosine == pytest.approx(1) and output.least_cosine == pytest.approx(1) and output.argmax == 1
    assert (output.largest, output.error, output.choices, found.samples, found.left_out) == (0, 0, 2, 2, 3)


def test_the_worst_sample_is_named() -> None:
    """Breaks when samples are mixed up, or a choice that differs is counted as the same."""
    meter, theirs = Meter((LOGITS,), 2), torch.tensor([[1.0, 2, 3], [3, 2, 1]])
    ours = torch.tensor([[1.0, 2, 3], [1, 2, 3]])
    meter.add({"logits": ours.numpy()}, [theirs], None, ("good", "bad"))
    found = meter.result("f", 0)
    assert [sample.text for sample in found.worst] == ["bad", "good"]
    assert found.worst[0].cosine == pytest.approx(10 / 14) == found.outputs[0].least_cosine
    assert found.outputs[0].argmax == 0.5 and found.outputs[0].largest == 2


def test_padding_does_not_count() -> None:
    """Breaks when positions that the mask leaves out are compared."""
    meter, theirs = Meter((STATES,), 2), torch.randn(2, 4, 5)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    ours = theirs.clone()
    ours[0, 2:] = 99
    meter.add({"states": ours.numpy()}, [theirs], mask, ("a", "b"))
    (output,) = meter.result("f", 0).outputs
    assert (output.largest, output.values) == (0, 30)


def test_what_fills_up_a_batch_does_not_count() -> None:
    meter = Meter((IDS,), 2)
    ours, theirs = np.array([[1, 2, 3, 4], [0, 0, 0, 0]]), torch.tensor([[1, 2, 3, 5], [9, 9, 9, 9]])
    meter.add({"ids": ours}, [theirs], None, ("only",))
    found = meter.result("f", 0)
    assert (found.samples, found.outputs[0].argmax, found.outputs[0].cosine) == (1, 0.75, None)


def test_neighbours_of_embeddings() -> None:
    """Breaks when an embedding is its own nearest, or one that has another neighbour is counted as the same."""
    meter = Meter((EMBEDDING,), 1)
    theirs = torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]])
    ours = theirs.clone()
    ours[3] = torch.tensor([1.0, 0.05])
    for number in range(4):
        one, other = ours[number : number + 1], theirs[number : number + 1]
        meter.add({"sentence_embedding": one.numpy()}, [other], None, (str(number),))
    assert meter.result("f", 0).outputs[0].nearest == 0.0
    same = Meter((EMBEDDING,), 1)
    for row in theirs.split(1):
        same.add({"sentence_embedding": row.numpy()}, [row], None, ("x",))
    assert same.result("f", 0).outputs[0].nearest == 1.0


def test_texts_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("one\n\n  two \nthree\n")
    assert read_texts(str(path), 2) == (("one", "two"), 1)
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(InputError, match="cannot read"):
        read_texts(str(path), 2)
    path.write_text("\n \n")
    with pytest.raises(InputError, match="no texts"):
        read_texts(str(path), 2)

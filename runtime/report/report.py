"""Collects a report: the facts of a model, of its program and of a run."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from compiler.frontend.capture import Captured
from isa.architecture import Region, Space
from isa.chip import Chip, chip_hash
from isa.image.image import Image
from isa.image.records import TensorSpec
from runtime.models.models import Built
from runtime.models.recorded import record_of
from runtime.report.document import Memory, ModelFacts, Tensor

_CONFIG = (  # keys of config.json that say what a transformer is
    "model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size",
    "hidden_act", "vocab_size", "max_position_embeddings",
)  # fmt: skip


def model_facts(built: Built, captured: Captured, image: Image, config: Mapping[str, Any]) -> ModelFacts:
    """What the model is; `config` is its config.json, empty if it has none."""
    record, entry = record_of(image, built.recipe.argument), image.entry()
    names = config.get("architectures")
    architecture = built.recipe.class_name or (str(names[0]) if isinstance(names, list) and names else "")
    known = {name: config[name] for name in _CONFIG if isinstance(config.get(name), (int, str))}
    return ModelFacts(
        argument=built.recipe.argument,
        architecture=architecture or type(built.model).__name__,
        task=built.recipe.task,
        parameters=_parameters(built, captured),
        weight_bytes=image.size(Region.WEIGHTS) + image.size(Region.CONST),
        config=known,
        options=record.options or {},
        inputs=_tensors(entry.inputs),
        outputs=_tensors(entry.outputs),
    )


def language_facts(
    model: torch.nn.Module, plain: torch.nn.Module, image: Image, entry: str, argument: str
) -> ModelFacts:
    """What a language model is, of which `plain` has the weights as they count."""
    config, at = getattr(model, "config", None), image.entry(entry)
    values = config.to_dict() if config is not None else {}
    return ModelFacts(
        argument=argument,
        architecture=type(model).__name__,
        task="language model",
        parameters=sum(parameter.numel() for parameter in plain.parameters()),
        weight_bytes=image.size(Region.WEIGHTS) + image.size(Region.CONST),
        config={name: values[name] for name in _CONFIG if isinstance(values.get(name), (int, str))},
        options=record_of(image, argument).options or {},
        inputs=_tensors(at.inputs),
        outputs=_tensors(at.outputs),
    )


def _parameters(built: Built, captured: Captured) -> int:
    """Trained numbers, each once; of an exported program all that it holds."""
    if isinstance(built.model, torch.nn.Module):
        return sum(parameter.numel() for parameter in built.model.parameters())
    return sum(tensor.numel() for tensor in captured.tensors.values())


def _tensors(specs: Sequence[TensorSpec]) -> tuple[Tensor, ...]:
    return tuple(Tensor(spec.name, spec.shape, spec.dtype) for spec in specs)


def memory(image: Image) -> tuple[Memory, ...]:
    """What the program uses of each memory: of SRAM and ACC the highest address, of DRAM its regions."""
    chip = image.chip
    capacities = {Space.SRAM: chip.sram.bytes, Space.ACC: chip.acc.bytes}
    found = [
        Memory(space.name, max((b.offset + b.bytes for b in image.plan if b.space is space), default=0), capacity)
        for space, capacity in capacities.items()
    ]
    regions = [Memory(f"DRAM {region.name.lower()}", image.size(region), 0) for region in Region if image.size(region)]
    return (*found, *regions)


def versions(image: Image) -> dict[str, str]:
    """Of everything that has to do with the figures."""
    return {**(record_of(image, "").versions or {}), "python": platform.python_version(), "machine": platform.machine()}


def hashes(image: Image, chip: Chip) -> dict[str, str]:
    weights = record_of(image, "").weights_sha256
    return {"image": image.hash.hex(), "chip": chip_hash(chip).hex(), **({"weights": weights} if weights else {})}

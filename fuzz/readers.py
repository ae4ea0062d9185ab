"""Fuzzers of the readers of files that are not programs: arrays, config.json, exported programs.

Besides ending in a result or an Error, nothing of a case may run: cases carry calls that set a mark, which must never
be seen.
"""

import io
import json
import os
import random
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.harness import Broken, Fuzzer
from fuzz.mutate import INTERESTING, damage
from isa.files import open_regular
from runtime.cli.tensors import read_inputs

_MARK = "LLMCHIP_FUZZ_RAN"
_CALL = f"__import__('os').environ.__setitem__('{_MARK}', '1')"
_MEMORY = 1 << 28
_ODD: tuple[Any, ...] = (
    None,
    True,
    "",
    "x",
    [],
    {},
    [[]],
    -1.5,
    1e300,
    float("nan"),
    "\ud800",
    "\u202e[/x]\x1b[2J",
    "__import__",
    _CALL,
    "torch.os.system",
    "torch.ops.load_library",
    "os:system",
    "builtins.defaultdict",
    "../../../etc/passwd",
    "a, b=" + _CALL,
    "9**9**9",
    *INTERESTING,
    10**400,
)


def _on_file(case: bytes, name: str, use: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(case)
        use(path)
    if os.environ.pop(_MARK, None):
        raise Broken("code of the file ran")


def _damaged(rng: random.Random, value: Any) -> Any:
    """A JSON value of which one place is another, missing, doubled, or as deep as there is room for."""
    where, key = value, None
    while isinstance(where, dict | list) and where and (key is None or rng.random() < 0.85):
        key = rng.choice(list(where)) if isinstance(where, dict) else rng.randrange(len(where))
        if not isinstance(where[key], dict | list) or not where[key]:
            break
        if rng.random() < 0.9:
            where, key = where[key], None
    if not isinstance(where, dict | list) or not where:
        return rng.choice(_ODD)
    if key is None:
        key = rng.choice(list(where)) if isinstance(where, dict) else rng.randrange(len(where))
    kind = rng.randrange(5)
    if kind == 0:
        del where[key]
    elif kind == 1 and isinstance(where, dict):
        where[str(rng.choice(_ODD))] = where[key]
    else:
        where[key] = rng.choice(_ODD)
    return value


# ---- arrays


def make_array(rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return _headed(rng)
    dtype = rng.choice(
        ("i1", "<i4", ">i4", "<i8", "u2", "u8", "?", "f2", "f4", "f8", "c8", "S3", "U2", "M8[s]", "g", "i4,f4")
    )
    file, shape = io.BytesIO(), tuple(rng.randrange(4) for _ in range(rng.choice((0, 1, 2, 3, 32))))
    np.lib.format.write_array(file, np.zeros(shape, dtype), version=rng.choice(((1, 0), (2, 0), (3, 0))))
    return damage(rng, file.getvalue()) if rng.random() < 0.7 else file.getvalue()


def _headed(rng: random.Random) -> bytes:
    """A header of our own making."""
    numbers = [rng.choice((0, 1, 3, -1, *INTERESTING, 10**400)) for _ in range(rng.randrange(4))]
    shape = rng.choice(
        (f"({', '.join(map(str, numbers))},)", "(" * 500, "()", "'x'", _CALL, "(1, 'a')", "(1.5,)", "[2]", "(True,)")
    )
    dtype = rng.choice(("'<i4'", "'|O'", "'|V0'", "[('a', '<f4')]", "'<f4'", "3", "'" + "x" * 99 + "'", _CALL))
    text = (
        f"{{'descr': {dtype}, 'fortran_order': {rng.choice(('False', 'True', '0'))}, 'shape': {shape}, }}".encode(
            "latin1", "replace"
        )
        + b"\n"
    )
    return b"\x93NUMPY\x01\x00" + min(len(text), 65535).to_bytes(2, "little") + text + b"\0" * rng.choice((0, 4, 12))


def run_array(case: bytes) -> None:
    def use(path: Path) -> None:
        found = read_inputs({"x": str(path)})["x"]
        assert found.dtype.isnative, "an array of another byte order"

    _on_file(case, "x.npy", use)


# ---- config.json

_CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "id2label": {"0": "a", "1": "b"},
    "dtype": "float32",
    "initializer_range": 0.02,
}
_MORE: tuple[dict[str, Any], ...] = (
    {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}},
    {"attn_implementation": "someone/kernel"},
    {"quantization_config": {}},
    {"num_hidden_layers": 10**9},
    {"vocab_size": 10**12},
    {"model_type": "gpt2"},
    {"architectures": "BertModel"},
    {"architectures": ["AutoModel"]},
    {"architectures": ["pipeline"]},
    {"transformers_weights": "../x.safetensors"},
    {"dtype": "os"},
    {"is_decoder": True},
)


def make_config(rng: random.Random) -> bytes:
    config = json.loads(json.dumps(_CONFIG))
    if rng.random() < 0.4:
        config |= rng.choice(_MORE)
    for _ in range(rng.randrange(3)):
        config = _damaged(rng, config)
    text = json.dumps(config).encode()
    kind = rng.random()
    return damage(rng, text) if kind < 0.1 else b"[" * 100_000 if kind < 0.12 else text


def run_config(case: bytes) -> None:
    from runtime.models.models import Means, Recipe, build

    def use(path: Path) -> None:
        (path.parent / "evil.py").write_text(f"{_CALL}\n")
        build(Recipe(str(path.parent), random_weights=1), means=Means(memory=_MEMORY))

    _on_file(case, "config.json", use)


def prepare_config() -> None:
    run_config(json.dumps(_CONFIG).encode())


# ---- exported programs


@cache
def _exported() -> bytes:
    import torch

    file = io.BytesIO()
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GELU(), torch.nn.Linear(4, 2)).eval()
    size = torch.export.Dim("n", min=2, max=9)
    torch.export.save(torch.export.export(model, (torch.ones(3, 3),), dynamic_shapes=({0: size},)), file)
    return file.getvalue()


def make_exported(rng: random.Random) -> bytes:
    if rng.random() < 0.2:
        return damage(rng, _exported())
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_exported())) as whole, zipfile.ZipFile(file, "w") as changed:
        names = whole.namelist()
        chosen = rng.choice([name for name in names if name.endswith(".json")] * 4 + names)
        for name in names:
            data = whole.read(name)
            if name == chosen:
                data = _changed(rng, name, data)
            changed.writestr(
                rng.choice((name, f"{name}x", name.replace("/", "//")))
                if name == chosen and rng.random() < 0.05
                else name,
                data,
            )
        if rng.random() < 0.1:
            changed.writestr(f"{names[0].partition('/')[0]}/data/aotinductor/model/x.so", b"\x7fELF")
    return file.getvalue()


def _changed(rng: random.Random, name: str, data: bytes) -> bytes:
    if not name.endswith(".json"):
        return damage(rng, data)
    value = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        value = _damaged(rng, value)
    return json.dumps(value).encode()


def run_exported(case: bytes) -> None:
    from runtime.cli.session import capture_model
    from runtime.models.models import Means, Recipe, build

    def use(path: Path) -> None:
        with open_regular(path):
            capture_model(build(Recipe(str(path)), means=Means(memory=_MEMORY)))

    _on_file(case, "x.pt2", use)


def prepare_exported() -> None:
    run_exported(_exported())


READERS = (
    Fuzzer("arrays", make_array, run_array),
    Fuzzer("configs", make_config, run_config, prepare=prepare_config),
    Fuzzer("exported", make_exported, run_exported, prepare=prepare_exported),
)

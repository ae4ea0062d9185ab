"""Exported programs (.pt2) read without running anything of theirs.

`torch.export.load` is made for files that are trusted: it unpickles weights, constants and sample inputs, loads
compiled libraries, gives size expressions to sympy (which evaluates them), writes names into Python source, and
resolves operators by any dotted path (`torch.os.system`). `load_exported` looks first, with PyTorch's own reader, so
that both see the same archive: what is not in the lists below is refused unless the user says `--trust`.
"""

import ast
import io
import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from isa.errors import Error, ModelError
from isa.files import read_regular

if TYPE_CHECKING:
    from torch.export import ExportedProgram

TRUST = "--trust loads it as it is, if you trust whoever made it with your machine"
_MODEL = "models/model.json"
_FILES = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+|models/model\.json|data/sample_inputs/model\.pt|extra/.*"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
)  # of an archive with nothing compiled and nothing pickled but the sample inputs
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|torchao|llmchip)\.(?!from_file\b)[a-zA-Z_]\w*\.[a-zA-Z_]\w*"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond|scan|while_loop|map_impl)"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|ge|gt|le|lt|eq|ne|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.sym_(int|float|max|min|not|ite|sqrt)"
)
_NAME = re.compile(r"[\w.@]*")
_SYMBOL = re.compile(r"[a-z_]{1,4}\d+")
_TREES = frozenset({"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict", None})
_FUNCTIONS = frozenset(
    {
        "Symbol",
        "Integer",
        "Float",
        "Rational",
        "Add",
        "Mul",
        "Max",
        "Min",
        "FloorDiv",
        "ModularIndexing",
        "Where",
        "PythonMod",
        "Mod",
        "CleanDiv",
        "CeilToInt",
        "FloorToInt",
        "CeilDiv",
        "TruncToInt",
        "TruncToFloat",
        "RoundToInt",
        "IntTrueDiv",
        "FloatTrueDiv",
        "ToFloat",
        "Eq",
        "Ne",
        "Ge",
        "Gt",
        "Le",
        "Lt",
        "And",
        "Or",
        "Not",
        "true",
        "false",
    }
)
_ARITHMETIC = (
    ast.Expression,
    ast.Load,
    ast.keyword,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.FloorDiv,
    ast.Mod,
    ast.USub,
    ast.UAdd,
    ast.Eq,
    ast.NotEq,
    ast.Lt,
    ast.LtE,
    ast.Gt,
    ast.GtE,
)  # no power: 9**9**9 has no end
_EXPRESSION_CHARACTERS = 1000
_DEPTH = 100


def load_exported(path: str, trust: bool = False, memory: int | None = None) -> "ExportedProgram":
    """The program of a .pt2 file. Without `trust` nothing of it is run, and its tensors take at most `memory` bytes.
    Raises ModelError."""
    import torch

    try:
        data = read_regular(path)
    except OSError as error:
        raise ModelError(f"cannot read the exported program: {error.strerror or error}", path) from error
    quiet = logging.root.manager.disable
    logging.disable(logging.WARNING)  # what PyTorch logs is said by the error, if it is one, and quotes the file
    try:
        if not trust:
            _check(data, path, memory)
            return _load(data)
        return torch.export.load(io.BytesIO(data))
    except Error:
        raise
    except Exception as error:  # whatever a foreign file makes the loader raise
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"cannot load the exported program: {text}", path, "write it with torch.export.save"
        ) from error
    finally:
        logging.disable(quiet)


def check_exported(path: str) -> None:
    """Raise ModelError unless a .pt2 file is data alone, which can be loaded without running anything of it."""
    try:
        _check(read_regular(path), path, None)
    except OSError as error:
        raise ModelError(f"cannot read the exported program: {error.strerror or error}", path) from error
    except Error:
        raise
    except Exception as error:  # whatever a foreign file makes a reader raise
        raise ModelError(f"cannot read the exported program: {type(error).__name__}", path) from error


def _load(data: bytes) -> "ExportedProgram":
    """`torch.export.load` without its second try, as the format of old versions, which is all pickle."""
    from torch.export.pt2_archive._package import load_pt2

    program = load_pt2(io.BytesIO(data)).exported_programs["model"]
    program._guards_code = []  # text that would be executed
    return program


def _refuse(what: str, path: str) -> ModelError:
    return ModelError(f"the exported program {what}, which could run code", path, TRUST)


def _check(data: bytes, path: str, memory: int | None) -> None:
    from torch.export.pt2_archive._package import PT2ArchiveReader

    try:
        reader: Any = PT2ArchiveReader(io.BytesIO(data))
        names = reader.get_file_names()
    except RuntimeError as error:
        raise ModelError(
            "this is not an archive of torch.export.save", path, "write it with torch.export.save"
        ) from error
    with reader:
        sizes = (reader.archive_file.get_record_size(name) for name in names)
        if sum(sizes) > len(data):
            raise ModelError(
                "the archive is compressed, which torch.export.save does not do",
                path,
                "write it with torch.export.save",
            )
        other = next((name for name in names if not _FILES.fullmatch(name)), None)
        if other is not None:
            raise _refuse(f"holds '{other}'", path)
        if _MODEL not in names or "data/sample_inputs/model.pt" not in names:
            raise ModelError(
                f"the archive has no {_MODEL}, or no sample inputs",
                path,
                "write it with torch.export.save of this PyTorch",
            )
        for kind in ("weights", "constants"):
            _check_payloads(_json(reader, f"data/{kind}/model_{kind}_config.json", path), path, memory)
        for key, value in _walk(_json(reader, _MODEL, path)):
            _check_value(key, value, path)
        _check_samples(reader.read_bytes("data/sample_inputs/model.pt"), path, memory)


def _json(reader: Any, name: str, path: str) -> Any:
    try:
        return json.loads(reader.read_bytes(name))
    except (ValueError, RecursionError, RuntimeError) as error:
        raise ModelError(f"{name} is not JSON", path, "write it with torch.export.save") from error


def _check_payloads(config: Any, path: str, memory: int | None) -> None:
    total = 0
    for payload in config["config"].values():
        if payload["use_pickle"] is not False:
            raise _refuse("has pickled tensors", path)
        total += 8 * math.prod(int(size["as_int"]) for size in payload["tensor_meta"]["sizes"])
    _bound(total // 8, path, memory)


def _bound(count: int, path: str, memory: int | None) -> None:
    if memory is not None and count > memory:
        raise ModelError(
            f"its tensors have {count} elements, more than the {memory} bytes of --max-memory",
            path,
            "raise --max-memory",
        )


def _check_samples(data: bytes, path: str, memory: int | None) -> None:
    """`torch.export.load` falls back to unpickling where this fails."""
    import torch
    from torch.utils import _pytree as pytree

    if not data:
        return
    try:
        found = torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:
        raise _refuse("has sample inputs that are not only tensors and numbers", path) from error
    _bound(sum(leaf.numel() for leaf in pytree.tree_leaves(found) if isinstance(leaf, torch.Tensor)), path, memory)


def _walk(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every value of a JSON tree with the key that it stands under."""
    if depth > _DEPTH:
        raise ValueError("nested too deep")
    yield key, value
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _walk(inner, name, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, key, depth + 1)


def _check_value(key: str, value: Any, path: str) -> None:
    check = _CHECKS.get(key)
    if check is not None and value is not None and not check(value):
        raise _refuse(f"has the {key} {json.dumps(value)[:80]}", path)


def _is_name(value: Any) -> bool:
    """A name may become a word of Python source. What is no text has a type that PyTorch checks."""
    return not isinstance(value, str) or _NAME.fullmatch(value) is not None


def _is_operator(value: Any) -> bool:
    return isinstance(value, str) and _OPERATORS.fullmatch(value) is not None


def _is_tree(value: Any) -> bool:
    """A tree of tuples, lists and dicts: others import what they name."""
    try:
        _, root = json.loads(value)
        return _plain_tree(root)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _plain_tree(node: Any) -> bool:
    context = json.loads(node["context"]) if node["context"] is not None else None
    keys = context is None or (
        isinstance(context, list) and all(isinstance(key, str | int) and _is_name(key) for key in context)
    )
    return node["type"] in _TREES and keys and all(map(_plain_tree, node["children_spec"]))


def _is_expression(value: Any) -> bool:
    """Arithmetic of symbols: sympy evaluates whatever Python it is given."""
    if not isinstance(value, str) or len(value) > _EXPRESSION_CHARACTERS:
        return False
    try:
        return all(map(_plain_expression, ast.walk(ast.parse(value, mode="eval"))))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _plain_expression(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS or _SYMBOL.fullmatch(node.id) is not None
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) or (
            isinstance(node.value, str) and _SYMBOL.fullmatch(node.value) is not None
        )
    return isinstance(node, _ARITHMETIC)


def _is_nothing(value: Any) -> bool:
    return not value


# What may stand under these keys of the model's JSON, wherever they are.
_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "target": _is_operator,
    "as_operator": _is_operator,
    "in_spec": _is_tree,
    "out_spec": _is_tree,
    "expr_str": _is_expression,
    "as_custom_obj": _is_nothing,
    "custom_obj_values": _is_nothing,
    "treespec_namedtuple_fields": _is_nothing,
    **dict.fromkeys(
        ("name", "as_name", "parameter_name", "buffer_name", "tensor_constant_name", "fqn", "forward_arg_names"),
        _is_name,
    ),
}

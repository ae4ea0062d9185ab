"""llmchip: run PyTorch models, bit for bit, on an invented accelerator.

    torch.compile(model, backend="llmchip")             no import needed
    program = llmchip.compile(model, {"input_ids": ids})  ahead of time
    llmchip.load("model.llmchip")                       a saved program; needs no PyTorch
    llmchip.chip("edge").replace(mxu={"rows": 64})      a chip, and another one made of it

This is the public interface and nothing else. Names are imported when first used, so that
`import llmchip` is fast and loading an image does not import PyTorch.
"""

from importlib import import_module, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compiler.frontend.calibration import Calibration
    from compiler.quantization import QuantConfig
    from isa.chip import Chip, load_chip
    from isa.errors import (
        AssemblyError,
        ChipError,
        CompileError,
        Error,
        ImageError,
        InputError,
        InternalError,
        Trap,
        UnsupportedError,
    )
    from isa.extension import Extension
    from runtime.api import chip, compile, load
    from runtime.calibration import calibrate
    from runtime.compare.comparison import Comparison
    from runtime.compare.sides import compare, profile
    from runtime.decoder_program import DecoderProgram
    from runtime.device.loaded import Loaded, LoadedDecoder
    from runtime.device.session import Session
    from runtime.explain.explain import explain
    from runtime.explain.explanation import Explanation
    from runtime.extension import extend
    from runtime.profile.profile import Profile
    from runtime.program import Program
    from runtime.pytorch.backend import backend, refresh
    from runtime.pytorch.constants import PackedWeights, packed_weights
    from runtime.pytorch.fallback import Fallback, fallbacks
    from runtime.sweep.api import sweep
    from runtime.sweep.result import Sweep
    from runtime.verify.steps import StepsVerification
    from runtime.verify.verify import Verification

    __version__: str

__all__ = [
    "AssemblyError",
    "Calibration",
    "Chip",
    "ChipError",
    "Comparison",
    "CompileError",
    "DecoderProgram",
    "Error",
    "Explanation",
    "Extension",
    "Fallback",
    "ImageError",
    "InputError",
    "InternalError",
    "Loaded",
    "LoadedDecoder",
    "PackedWeights",
    "Profile",
    "Program",
    "QuantConfig",
    "Session",
    "StepsVerification",
    "Sweep",
    "Trap",
    "UnsupportedError",
    "Verification",
    "__version__",
    "backend",
    "calibrate",
    "chip",
    "compare",
    "compile",
    "explain",
    "extend",
    "fallbacks",
    "load",
    "load_chip",
    "packed_weights",
    "profile",
    "refresh",
    "sweep",
]

_ERRORS = (
    "AssemblyError",
    "ChipError",
    "CompileError",
    "Error",
    "ImageError",
    "InputError",
    "InternalError",
    "Trap",
    "UnsupportedError",
)
_HOME = {
    **dict.fromkeys(_ERRORS, "isa.errors"),
    **dict.fromkeys(("Chip", "load_chip"), "isa.chip"),
    "Calibration": "compiler.frontend.calibration",
    "QuantConfig": "compiler.quantization",
    "calibrate": "runtime.calibration",
    "Extension": "isa.extension",
    "explain": "runtime.explain.explain",
    "Explanation": "runtime.explain.explanation",
    "extend": "runtime.extension",
    **dict.fromkeys(("chip", "compile", "load"), "runtime.api"),
    **dict.fromkeys(("backend", "refresh"), "runtime.pytorch.backend"),
    **dict.fromkeys(("Fallback", "fallbacks"), "runtime.pytorch.fallback"),
    **dict.fromkeys(("PackedWeights", "packed_weights"), "runtime.pytorch.constants"),
    "Comparison": "runtime.compare.comparison",
    **dict.fromkeys(("compare", "profile"), "runtime.compare.sides"),
    "Profile": "runtime.profile.profile",
    "DecoderProgram": "runtime.decoder_program",
    **dict.fromkeys(("Loaded", "LoadedDecoder"), "runtime.device.loaded"),
    "Session": "runtime.device.session",
    "Sweep": "runtime.sweep.result",
    "sweep": "runtime.sweep.api",
    "Program": "runtime.program",
    "StepsVerification": "runtime.verify.steps",
    "Verification": "runtime.verify.verify",
    "__version__": "runtime.version",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'llmchip' has no attribute '{name}'")
    _check_siblings()
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _check_siblings() -> None:
    """Our packages have plain names. A folder of the user's with one of them must not be taken for ours."""
    root = Path(__file__).resolve().parent.parent
    for name in ("isa", "lint", "compiler", "emulator", "runtime"):
        try:
            spec = util.find_spec(name)
            places = [spec.origin] if spec and spec.origin else list((spec and spec.submodule_search_locations) or [])
        except ValueError:  # a module without a spec, such as a script that was run as __main__
            places = ["a module that is already imported"]
        if not any(Path(place).resolve().is_relative_to(root / name) for place in places):
            raise _hidden(name, root, places)


def _hidden(name: str, root: Path, places: list[str]) -> Exception:
    """The error class is read from our own file, since `isa` itself may be what is hidden."""
    spec = util.spec_from_file_location("llmchip.errors", root / "isa" / "errors.py")
    assert spec is not None
    assert spec.loader is not None
    errors = util.module_from_spec(spec)
    spec.loader.exec_module(errors)
    if not places:
        return errors.Error(f"llmchip's package '{name}' is missing from {root}", hint="install llmchip again")  # type: ignore[no-any-return]
    place = Path(places[0])
    place = place.parent if place.name == "__init__.py" else place
    return errors.Error(  # type: ignore[no-any-return]
        f"{place} hides llmchip's own package '{name}' in {root / name}",
        hint="rename it, or start Python from another folder; Python looks beside the script and in PYTHONPATH first",
    )


_check_siblings()

"""`make support-models`: a tiny model of every model type of transformers, ahead of time and through torch.compile.

Ahead of time nothing falls back: a type is *exact* if its model compiles, no finding is made in its program, and every
node that the program names has PyTorch's bits. Through torch.compile, fallback on, nothing may raise; what falls back
is told. Each type runs in a process of its own, which is ended at its limits of time and memory. Lines go into a file as
they are found, so that the run can be gone on with.

    python -m tools.support_models --json found.jsonl --resume                every type of which it has nothing (hours)
    python -m tools.support_models --json found.jsonl --only '^(bert|gpt2)$'  these again
    python -m tools.support_models --json found.jsonl --again refused         those that came out so
    python -m tools.support_models --json found.jsonl --resume --ways ahead   one way now; the other is added later
"""

import argparse
import json
import os
import re
import resource
import select
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tools.support.lines import Row, keep, latest

SECONDS, WAIT, MEMORY = 120, 3600, 6 << 30  # CPU seconds of each way, seconds in all (the machine may be busy), bytes
WAYS = ("ahead", "compile")
OUTCOMES = {
    "exact": "0 differing bits",
    "differs": "bits differ, or the checker finds a fault",
    "fault": "a fault of llmchip",
    "refused": "refused, with a reason",
    "limit": f"not done in {SECONDS} CPU seconds and {MEMORY >> 30} GiB",
    "untried": "PyTorch itself does not run the tiny model that is made here, or a package is missing",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.support_models", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="where a line for each type is added")
    parser.add_argument("--only", default="", help="types that match this regular expression")
    parser.add_argument("--resume", action="store_true", help="only types of which --json has nothing yet")
    parser.add_argument("--again", default="", metavar="OUTCOME", help="only types that --json has with this outcome")
    parser.add_argument("--ways", default="ahead,compile", help="ahead of time, by torch.compile, or both (default)")
    given = parser.parse_args()
    ways = tuple(given.ways.split(","))
    known = {row["name"]: row for row in latest(given.json, lambda row: row["name"])}
    rows = []
    _warm()
    for name in model_types():
        row = known.get(name, {})
        if not re.search(given.only, name) or (given.resume and _has(row, ways)):
            continue
        if given.again and row.get("ahead") != given.again:
            continue
        rows.append(keep({**row, **examine(name, ways)}, given.json))
        print(line(rows[-1]), flush=True)
    print(summary(rows))
    return int(any(row.get("ahead") in ("differs", "fault") or row.get("compile") == "raise" for row in rows))


def _has(row: Row, ways: Sequence[str]) -> bool:
    """Whether a row has what is asked for. What PyTorch does not run has no more to tell."""
    return row.get("ahead") == "untried" or all(way in row for way in ways)


def model_types() -> list[str]:
    """Every model type that transformers has a configuration of."""
    from transformers import CONFIG_MAPPING

    return sorted(CONFIG_MAPPING.keys())


def line(row: Row) -> str:
    """A row for people."""
    ahead, inputs, why, compiled, back = (row.get(key, "") for key in ("ahead", "inputs", "why", "compile", "back"))
    return f"{ahead:7} {row['name']} ({inputs}) {why[:200]} | {compiled} {back} {row.get('seconds', '')} s"


def summary(rows: Sequence[Row]) -> str:
    count = Counter(row.get("ahead", "") for row in rows)
    back = Counter(row["compile"] for row in rows if row.get("compile"))
    return (
        f"{len(rows)} model types ahead of time: {', '.join(f'{count[kind]} {kind}' for kind in OUTCOMES)}; "
        f"through torch.compile: {', '.join(f'{n} {kind}' for kind, n in sorted(back.items()))}"
    )


# ---- a process for each type


def _warm() -> None:
    """Import, and compile once: children begin where this process is. What libraries say on stderr is left out."""
    import torch
    import transformers

    from tools.support.tiny import tiny_config

    os.environ["LLMCHIP_CACHE"] = "off"
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    tiny_config("bert")
    _examine("bert", WAYS, lambda part: None)
    torch._dynamo.reset()


def examine(name: str, ways: Sequence[str]) -> Row:
    """What a process of its own finds of a model type."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        _limit()
        with os.fdopen(write, "w", buffering=1) as out:
            try:
                _examine(name, ways, lambda part: print(json.dumps(part), file=out))
            except MemoryError:
                print(json.dumps({"stopped": "memory"}), file=out)
            except BaseException as error:  # of this tool: it must not look like an answer
                print(json.dumps({"stopped": f"{type(error).__name__}: {error}"[:300]}), file=out)
        os._exit(0)
    os.close(write)
    row: Row = {"name": name}
    text = _read(read, child)
    for part in text.splitlines():
        row.update(json.loads(part))
    _, status = os.waitpid(child, 0)
    return _judged(row, ways, status)


def _read(pipe: int, child: int) -> str:
    """All that the child says until it ends, or is ended."""
    end, text = time.monotonic() + WAIT, b""
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0, end - time.monotonic()))
        if not ready:
            os.kill(child, signal.SIGKILL)
            end += WAIT
            continue
        part = os.read(pipe, 1 << 16)
        if not part:
            os.close(pipe)
            return text.decode()
        text += part


def _judged(row: Row, ways: Sequence[str], status: int) -> Row:
    """The row, with what the process's end means."""
    stopped = row.pop("stopped", "")
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    why = stopped or (f"ended by signal {killed}" if killed else "")
    limit = killed in (signal.SIGXCPU, signal.SIGKILL) or stopped == "memory"
    if "ahead" not in row and ("ahead" in ways or "model" not in row):
        row.update(ahead=("limit" if limit else "fault") if "model" in row else "untried", why=why)
    if "compile" in ways and "compile" not in row and row.get("ahead") != "untried":
        row.update(compile="limit" if limit or not why else "raise", compile_why=why)
    return row


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    _more_time()


def _more_time() -> None:
    """So many seconds from now on."""
    spent = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + SECONDS, resource.RLIM_INFINITY))


# ---- in it


def _examine(name: str, ways: Sequence[str], tell: Callable[[Row], None]) -> None:
    """Tell parts of the row as they are known."""
    import torch

    from tools.support.tiny import tiny_config, tiny_model
    from tools.support.tiny_inputs import input_sets

    start = time.process_time()
    try:
        model = tiny_model(name, tiny_config(name))
    except Exception as error:
        tell({"ahead": "untried", "why": _said(error)})
        return
    tried = []
    for modality, inputs in input_sets(model):
        try:
            with torch.no_grad():
                model(**inputs)
            break
        except Exception as error:
            tried.append(f"{modality}: {_said(error)}")
    else:
        why = tried[0] if tried else "no inputs are known for it"
        tell({"ahead": "untried", "model": type(model).__name__, "why": why})
        return
    tell({"model": type(model).__name__, "inputs": modality, "parameters": sum(p.numel() for p in model.parameters())})
    if "ahead" in ways:
        tell(_ahead(model, inputs))
        tell({"seconds": round(time.process_time() - start, 1)})
        _more_time()
    if "compile" in ways:
        tell(_compiled(model, inputs))


def _ahead(model: Any, inputs: Row) -> Row:
    import llmchip
    from isa.errors import InternalError, Trap

    os.environ["LLMCHIP_STRICT"] = "1"
    try:
        found = llmchip.compile(model, inputs).verify(**inputs)
    except (InternalError, Trap) as error:
        return {"ahead": "fault", "why": _said(error)}
    except llmchip.Error as error:
        return {"ahead": "refused", "why": _said(error)}
    except MemoryError:
        return {"ahead": "limit", "why": "memory"}
    except Exception as error:
        return {"ahead": "fault", "why": _said(error)}
    row: Row = {
        "ahead": "exact" if found.bit_exact else "differs",
        "why": "",
        "nodes": found.nodes,
        "of": found.graph_nodes,
    }
    cosine = (found.float or {}).get("cosine")
    row["cosine"] = None if cosine is None or cosine != cosine else round(cosine, 5)
    if not found.bit_exact:
        row["why"] = (
            f"{found.mismatched_elements} elements of {found.mismatched_nodes} nodes; {'; '.join(found.findings[:2])}"
        )
    return row


def _compiled(model: Any, inputs: Row) -> Row:
    import torch

    from runtime.pytorch.fallback import fallbacks, forget

    os.environ.pop("LLMCHIP_STRICT", None)
    forget()
    torch._dynamo.reset()
    try:
        with torch.no_grad():
            torch.compile(model, backend="llmchip")(**inputs)  # type: ignore[no-untyped-call]
    except Exception as error:
        return {"compile": "raise" if _runs(model, inputs) else "dynamo", "compile_why": _said(error)}
    told = fallbacks()
    faults = [f"{found.operator}: {found.reason}"[:200] for found in told if found.fault]
    why = list(dict.fromkeys(f"{found.operator}: {found.reason}"[:200] for found in told))
    return {
        "compile": "fault" if faults else "falls back" if told else "chip",
        "back": sum(found.count for found in told),
        "compile_why": "; ".join(faults),
        "reasons": why[:12],
    }


def _runs(model: Any, inputs: Row) -> bool:
    """Whether Dynamo itself can do it."""
    import torch

    torch._dynamo.reset()
    try:
        with torch.no_grad():
            torch.compile(model, backend="eager")(**inputs)  # type: ignore[no-untyped-call]
    except Exception:  # whatever Dynamo raises says the same
        return False
    return True


def _said(error: BaseException) -> str:
    """An error on one line."""
    where = getattr(error, "where", "") or ""
    text = " ".join(str(error).split()) or type(error).__name__
    named = text if hasattr(error, "what") else f"{type(error).__name__}: {text}"
    return (named if not where or where in named else f"{named} [{where}]")[:400]


if __name__ == "__main__":
    sys.exit(main())

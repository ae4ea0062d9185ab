"""`llmcc cache`: the compiled images that are kept on disk."""

from datetime import UTC, datetime

import click

from runtime.cli.common import common_options, examples, reply, say, size
from runtime.pytorch import cache


@click.command(
    name="cache", epilog=examples("llmcc cache", "llmcc cache clear", "LLMCHIP_CACHE=off llmcc run minilm --text hello")
)
@click.argument("action", type=click.Choice(["info", "clear"]), default="info")
@common_options
def command(action: str, as_json: bool, traceback: bool) -> int:
    """Show or clear the images that are kept so that nothing is compiled twice.

    They lie in LLMCHIP_CACHE (default ~/.cache/llmchip; 'off' keeps none) and take at most LLMCHIP_CACHE_BYTES (default
    4 GiB).
    """
    found = cache.clear() if action == "clear" else cache.entries()
    where, total = cache.folder(), sum(entry.bytes for entry in found)
    document = {
        "action": action, "folder": str(where) if where else None, "bound": cache.bound(), "bytes": total,
        "images": [{"key": entry.path.stem, "bytes": entry.bytes, "used": _date(entry.used)} for entry in found],
    }  # fmt: skip

    def text() -> None:
        done = "removed" if action == "clear" else "holds"
        say(
            f"{where or 'the cache is off'}: {done} {len(found)} images, {size(total)} of at most {size(cache.bound())}"
        )
        for entry in found if action == "info" else ():
            say(f"  {entry.path.stem[:16]}  {size(entry.bytes):>10}  last used {_date(entry.used)}")

    reply(document, as_json, text)
    return 0


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

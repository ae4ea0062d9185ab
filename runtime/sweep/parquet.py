"""pyarrow is an extra: what needs it says so."""

from importlib.util import find_spec

from isa.errors import InputError


def check_parquet() -> None:
    """Raise InputError unless a Parquet file can be written."""
    if find_spec("pyarrow") is None:
        raise InputError("a Parquet file needs pyarrow", hint="pip install 'pyarrow>=18', or llmchip[sweep]")

"""The version of the installed distribution."""

from importlib import metadata

try:
    __version__ = metadata.version("llmchip")
except metadata.PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0.1.0"

"""The one place that names the version of the package and of the protocol."""

__version__ = "0.1.0"

PROTOCOL_VERSION = 1
"""Raised when an old and a new side could misunderstand each other; see docs/protocol.md."""

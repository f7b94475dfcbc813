"""What the tests of our commands expect of every one of them."""

from __future__ import annotations

import re

from hetero_common import errors

SMALL = ("--model", "tinycnn", "--width", "4", "--image-size", "8", "--normalization", "digits")
"""A model of six layers that trains in milliseconds."""
LOG_LINE = re.compile(r"\d\d:\d\d:\d\d (DEBUG|INFO|WARNING|ERROR) ")
ERROR_NAMES = [name for name in vars(errors) if name[0].isupper()]
"""Of our error classes, which no person should have to read."""

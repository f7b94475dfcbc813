"""What every console command does around its work: settings, logging, resources, exit codes.

Exit codes: 0 done, 1 the run failed, 2 bad input and nothing was started, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from hetero_common import settings
from hetero_common.about import told
from hetero_common.compute.process import keep_freed_memory, limit_threads
from hetero_common.errors import HeteroError, SettingsError
from hetero_common.records.logs import start_logging
from hetero_common.settings import S

_WIDE = 140


def run_command(
    program: str,
    settings_class: type[S],
    body: Callable[[S], None],
    flags: Sequence[str] | None = None,
) -> int:
    """Read the settings, run `body` with them, and turn errors into one sentence and a code."""
    given = sys.argv[1:] if flags is None else flags
    try:
        answer = told(program, settings_class, given)
        if answer is not None:
            print(answer)
            return 0
        chosen = settings.load(settings_class, given, program)
        start_logging(chosen.level(), chosen.log_format)
        limit_threads(chosen.threads)
        keep_freed_memory()
        body(chosen)
    except HeteroError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def wide_console() -> Console:
    """Make a console as wide as the terminal, or, in a file or a pipe, as wide tables need."""
    return Console(width=None if sys.stdout.isatty() else _WIDE)

"""The numbers of a run's events as event files of TensorBoard, beside metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hetero_common.errors import SettingsError

FOLDER = "tensorboard"
_SHOWN = frozenset({"round", "evaluation"})


class TensorBoard:
    """Writes scalars by round: `exit_loss/board-1`, or `accuracy` where there are no clients.

    Args:
        run: Directory of the run.

    Raises:
        SettingsError: TensorBoard is not installed.
    """

    def __init__(self, run: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise SettingsError(
                "--tensorboard takes TensorBoard: pip install 'hetero-splitee[tensorboard]'"
            ) from None
        self._writer = SummaryWriter(str(run / FOLDER), flush_secs=10)

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Write the numbers of an event that is about a round."""
        if kind not in _SHOWN:
            return
        client = fields.get("client")
        for name, value in fields.items():
            if name not in ("round", "cut_layer") and isinstance(value, int | float):
                tag = name if client is None else f"{name}/{client}"
                self._writer.add_scalar(tag, value, fields["round"])

    def close(self) -> None:
        """Write what is still to be written."""
        self._writer.close()

"""A trained device, as its run directory holds it, and its way to the server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from torch import Tensor

from hetero_client.device_model import DeviceModel
from hetero_client.exits.evaluation import Predict
from hetero_client.link.transport import ServerLink
from hetero_client.settings import InferenceSettings
from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.errors import RefusedInput, SettingsError
from hetero_common.records.rundir import MODEL_FILE, read_plan
from hetero_common.tensors.weights import read_file


class TrainedDevice:
    """What a client's finished run directory holds, ready to answer.

    Raises:
        SettingsError: The directory holds no finished client run.
    """

    def __init__(self, settings: InferenceSettings) -> None:
        self.plan: Plan = read_plan(settings.run)
        weights, metadata = read_file(settings.run / MODEL_FILE)
        if "cut_layer" not in metadata:
            raise SettingsError(f"{settings.run} is a server's run: name the run of a client")
        compute = Compute(settings.device, self.plan.precision)
        self.model = DeviceModel(self.plan, int(metadata["cut_layer"]), compute)
        try:
            weights.require_like(self.model.weights())
        except RefusedInput:
            raise SettingsError(f"{settings.run} does not hold a device of its plan") from None
        self.model.load(weights)
        self.classes: list[str] = json.loads(metadata["classes"])
        self.rows = min(settings.batch_size, self.plan.predict_rows)
        self._settings = settings

    @contextlib.contextmanager
    def connected(self, deadline: float | None) -> Iterator[Predict]:
        """Open a connection, and yield the function that asks the server.

        Args:
            deadline: Seconds for each batch; None: no limit, and some batches are sent ahead.

        Raises:
            SettingsError: The credentials cannot be used.
        """
        settings = self._settings
        with ServerLink(
            settings.server,
            wire_dtype=self.plan.wire,
            certs=settings.certs,
            token=settings.resolved_token(),
            insecure=settings.insecure,
        ) as link:

            def predict(activations: Iterator[Tensor]) -> Iterator[Tensor]:
                each = (iter([activation]) for activation in activations)
                for together in [activations] if deadline is None else each:
                    yield from link.predict(
                        together,
                        cut_layer=self.model.cut_layer,
                        fingerprint=self.model.fingerprint,
                        deadline=deadline,
                    )

            yield predict

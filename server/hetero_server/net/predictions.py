"""The RPCs that every server answers: how it stands, and predictions."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from torch import Tensor

from hetero_common.agreement.plan import Plan
from hetero_common.errors import ModelMismatch, RefusedInput
from hetero_common.tensors import codec
from hetero_common.tensors.codec import Payload
from hetero_common.version import PROTOCOL_VERSION
from hetero_common.wire import messages
from hetero_common.wire.frames import Frame
from hetero_common.wire.messages import Announced, TensorSchema
from hetero_server.auth.identity import Caller
from hetero_server.learning.initial_model import InitialModel
from hetero_server.monitoring.monitor import Monitor
from hetero_server.net.receiver import Receiver
from hetero_server.run.member import Member
from hetero_server.settings import LimitSettings
from hetero_splitee.v1 import service_pb2 as pb

TENSOR = "an announced tensor"

T = TypeVar("T")


class Predictor(Protocol):
    """What answers predictions: a run that is trained, or a model that is only served."""

    @property
    def plan(self) -> Plan:
        """The agreement of its run."""

    @property
    def initial(self) -> InitialModel:
        """Its model's shapes and fingerprint."""

    def predict(self, activation: Tensor, cut_layer: int, client_id: str | None) -> Tensor:
        """Class probabilities (B, classes); runs in the compute thread."""


class Compute(Protocol):
    """The thread beside the event loop in which torch computes."""

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` there and wait for what it returns."""


class PredictionService:
    """GetStatus and Predict of hetero_splitee.v1.HeteroSplit: all that a finished run answers.

    Args:
        model: What answers.
        compute: Where it computes.
        monitor: Told what comes and goes, and asked how the run stands.
        limits: How much clients may ask for.
        patience: Seconds of silence that end a stream of predictions or weights.
    """

    def __init__(
        self,
        model: Predictor,
        compute: Compute,
        monitor: Monitor,
        limits: LimitSettings = LimitSettings(),  # noqa: B008 - frozen
        patience: float = math.inf,
    ) -> None:
        self._model = model
        self._compute = compute
        self._monitor = monitor
        self._metrics = monitor.metrics
        self._receiver = Receiver(limits.max_received_mb << 20, patience)

    async def GetStatus(self, request: pb.GetStatusRequest, caller: Caller) -> pb.GetStatusResponse:
        """Return what the server trains and who takes part."""
        status = self._monitor.status()
        assert status is not None, "the monitor watches this run"
        return pb.GetStatusResponse(
            protocol_version=PROTOCOL_VERSION,
            run_id=status.run_id,
            phase=status.phase,
            round=status.round,
            strategy=status.strategy,
            plan=messages.plan_to_wire(self._model.plan),
            members=[messages.member_to_wire(member) for member in status.members],
            fingerprint=self._model.initial.fingerprint,
            seconds_left=status.seconds_left,
            saved_seconds=status.saved_seconds,
        )

    async def Predict(
        self, requests: AsyncIterator[Frame[pb.PredictRequest]], caller: Caller
    ) -> AsyncIterator[pb.PredictResponse]:
        """Activations in, class probabilities out."""
        requests = self._receiver.in_time(requests)
        first = await anext(requests, None)
        if first is None or first.message is None or not first.message.HasField("open"):
            raise RefusedInput("a prediction stream begins with its cut layer")
        cut_layer = first.message.open.cut_layer
        self.require_model(first.message.open.fingerprint)
        self._model.initial.require_cut(cut_layer)
        member = self.member_who_asks(caller)
        client_id = member.client_id if member else None
        schema = self.schema(cut_layer, self._model.plan.predict_rows)
        async for request in requests:
            if request.message is None or not request.message.HasField("activation"):
                raise RefusedInput("an activation begins with its header")
            tensor = schema.admit(request.message.activation)
            payload = await self.receive(tensor, request, requests)
            if payload is None:
                raise RefusedInput(f"the stream ended within {TENSOR}")
            if member is not None:
                member.activity += 1  # an evaluation can take long
            answer = await self._compute.run(partial(self._predict, payload, cut_layer, client_id))
            if member is not None:
                member.traffic.predicted(tensor.nbytes, answer.nbytes)
            self._metrics.received("predictions", payload.wire_dtype, tensor.nbytes)
            self._metrics.sent("predictions", "fp32", answer.nbytes)
            self._metrics.predicted(cut_layer, len(answer))
            del payload  # its memory, until the next one has come
            yield pb.PredictResponse(probabilities=answer.numpy().tobytes(), rows=len(answer))

    def member_who_asks(self, caller: Caller) -> Member | None:
        """The member of a run whose evaluation asks; None for everybody else."""
        return None

    def require_model(self, fingerprint: str) -> None:
        """Raise ModelMismatch unless a client has the model of this run."""
        if fingerprint != self._model.initial.fingerprint:
            raise ModelMismatch(fingerprint, self._model.initial.fingerprint)

    def schema(self, cut_layer: int, rows: int) -> TensorSchema:
        """Return what an activation of up to `rows` rows at this cut layer must look like."""
        shape = self._model.initial.shapes[cut_layer - 1]
        return TensorSchema(self._model.plan.wire, shape, rows)

    async def receive(
        self,
        tensor: Announced,
        first: Frame[Any],
        following: AsyncIterator[Frame[Any]],
        may_wait: Callable[[], bool] = lambda: True,
    ) -> Payload | None:
        """Collect an announced tensor; None if the stream has ended within it."""
        data = await self._receiver.collect(
            tensor.nbytes, first, following, TENSOR, may_wait=may_wait
        )
        return None if data is None else tensor.payload(data)

    def _predict(self, payload: Payload, cut_layer: int, client_id: str | None) -> Tensor:
        return self._model.predict(codec.decode(payload), cut_layer, client_id)

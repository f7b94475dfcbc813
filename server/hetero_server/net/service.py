"""The RPCs: decode, call the engine, encode. No tensor arithmetic."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor

from hetero_common.agreement.control import Evaluate, Evaluation, Finish, RoundDone, StartRound
from hetero_common.errors import (
    HeteroError,
    LimitExceeded,
    ModelMismatch,
    RefusedInput,
    UnknownSession,
    VersionMismatch,
)
from hetero_common.tensors import codec
from hetero_common.tensors.codec import Payload
from hetero_common.version import PROTOCOL_VERSION
from hetero_common.wire import messages
from hetero_common.wire.frames import Frame, frames
from hetero_common.wire.messages import Announced, TensorSchema
from hetero_server.auth.identity import Caller
from hetero_server.net.heartbeat import Pulse
from hetero_server.net.limits import PerMinute
from hetero_server.net.receiver import Receiver
from hetero_server.net.sessions import Sessions, require_current
from hetero_server.run.engine import Engine
from hetero_server.run.member import Ack, Batch, Member, MemberState
from hetero_server.runner import Runner
from hetero_server.settings import LimitSettings
from hetero_splitee.v1 import service_pb2 as pb

_TENSOR = "an announced tensor"
_STATE_SLACK = 1 << 20
"""Bytes that a safetensors header may add to the tensors of a pushed state."""


class HeteroSplitService:
    """One method per RPC of hetero_splitee.v1.HeteroSplit.

    Args:
        runner: Drives the engine; its monitor is told what comes and goes.
        run_id: Names the run to clients and in their records.
        strategy: Its name, for the status.
        limits: How much clients may ask for.
        patience: Seconds of silence that end a stream of predictions or weights.
    """

    def __init__(
        self,
        runner: Runner,
        run_id: str,
        strategy: str,
        limits: LimitSettings = LimitSettings(),  # noqa: B008 - frozen
        patience: float = math.inf,
    ) -> None:
        self.runner = runner
        self._engine: Engine = runner.engine
        self._run_id = run_id
        self._monitor = runner.monitor
        self._metrics = self._monitor.metrics
        self._monitor.watch(runner.engine, run_id, strategy)
        registrations = PerMinute(limits.max_registrations, limits.max_registrations_per_client)
        self._sessions = Sessions(limits.max_clients, registrations)
        self._receiver = Receiver(limits.max_received_mb << 20, patience)

    async def GetStatus(self, request: pb.GetStatusRequest, caller: Caller) -> pb.GetStatusResponse:
        """What the server trains and who takes part."""
        status = self._monitor.status()
        assert status is not None, "the monitor watches this engine"
        return pb.GetStatusResponse(
            protocol_version=PROTOCOL_VERSION,
            run_id=status.run_id,
            phase=status.phase,
            round=status.round,
            strategy=status.strategy,
            plan=messages.plan_to_wire(self._engine.plan),
            members=[messages.member_to_wire(member) for member in status.members],
            fingerprint=self._engine.initial.fingerprint,
            seconds_left=status.seconds_left,
            saved_seconds=status.saved_seconds,
        )

    async def Register(self, request: pb.RegisterRequest, caller: Caller) -> pb.RegisterResponse:
        """Open a session."""
        engine = self._engine
        if request.protocol_version != PROTOCOL_VERSION:
            raise VersionMismatch(request.protocol_version, PROTOCOL_VERSION)
        if not 1 <= len(request.client_id) <= 100 or not request.client_id.isprintable():
            raise RefusedInput("a client id has 1 to 100 characters, all of them printable")
        caller.require(request.client_id)
        self._require_model(request.fingerprint)
        if engine.plan.wire not in map(messages.wire_dtype_name, request.wire_dtypes):
            raise RefusedInput(f"the run's wire dtype is {engine.plan.wire}: upgrade the client")
        self._sessions.require_room(request.client_id)
        held = request.held_rounds if request.run_id == self._run_id else ()
        member = engine.register(
            request.client_id,
            request.cut_layer,
            request.shard_size,
            held,
            request.class_counts,
        )
        self.runner.changed()
        return pb.RegisterResponse(
            session=self._sessions.open(member),
            base_round=member.base,
            heartbeat_seconds=self.runner.heartbeat,
            run_id=self._run_id,
            credits=engine.credits,
            steps=member.steps,
            activation_shape=engine.initial.shapes[member.cut_layer - 1],
            predict_rows=engine.plan.predict_rows,
        )

    async def Train(
        self, requests: AsyncIterator[Frame[pb.TrainRequest]], caller: Caller
    ) -> AsyncIterator[Frame[pb.TrainResponse] | pb.TrainResponse]:
        """Take batches and reports, tell acknowledgements and directives."""
        member = self._sessions.member(caller)
        if member.attached:
            raise LimitExceeded("this session has a training stream already")
        wake = asyncio.Event()
        member.outbox.wake = wake.set
        pulse = Pulse(wake, self.runner.heartbeat)
        reader = asyncio.create_task(self._take(member, pulse.heard(requests)))
        reader.add_done_callback(lambda _: wake.set())
        try:
            self._engine.attach(member.client_id)
            self.runner.changed()
            while True:
                while member.outbox:
                    for message in _messages(member.outbox.popleft()):
                        yield message
                    pulse.said()
                if reader.done():
                    break
                if pulse.is_lost:
                    raise UnknownSession("nothing came from this client for too long")
                if pulse.is_due:
                    yield pb.TrainResponse(heartbeat=pb.Heartbeat())
                    pulse.said()
                await wake.wait()
                wake.clear()
            reader.result()
        finally:
            pulse.stop()
            self._drop(member, *_farewell(reader))
            reader.cancel()
            # It must not read on: gRPC lets reading fail once a call is answered.
            await asyncio.gather(reader, return_exceptions=True)

    async def PushState(
        self, requests: AsyncIterator[Frame[pb.PushStateRequest]], caller: Caller
    ) -> pb.PushStateResponse:
        """Take a client's prefix and exit."""
        member = self._sessions.member(caller)
        requests = self._receiver.in_time(requests)
        first = await anext(requests, None)
        header = first.message.header if first and first.message else pb.StateHeader()
        if first is None or not header.bytes:
            raise RefusedInput("a pushed state begins with its header")
        limit = self._engine.shared.for_cut(member.cut_layer).nbytes + _STATE_SLACK
        if header.bytes > limit:
            raise LimitExceeded(f"a pushed state has at most {limit} bytes at this cut layer")
        data = await self._receiver.collect(header.bytes, first, requests, "a pushed state")
        if data is None:
            raise RefusedInput("the stream ended within a pushed state")
        weights = await self.runner.compute.run(
            partial(self._engine.shared.read_pushed, member.cut_layer, bytes(data))
        )
        require_current(member)
        self._metrics.received("weights", self._engine.plan.weights_wire, len(data))
        self._engine.push(member.client_id, header.round, weights)
        return pb.PushStateResponse()

    async def PullState(
        self, request: pb.PullStateRequest, caller: Caller
    ) -> AsyncIterator[Frame[pb.PullStateResponse]]:
        """Give a client the weights to continue with."""
        weights = self._engine.pull(self._sessions.member(caller))
        data = memoryview(await self.runner.compute.run(weights.to_bytes))
        header = pb.StateHeader(round=self._engine.round, bytes=data.nbytes)
        for frame in frames(pb.PullStateResponse(header=header), data):
            yield frame
        self._metrics.sent("weights", "fp32", data.nbytes)

    async def Predict(
        self, requests: AsyncIterator[Frame[pb.PredictRequest]], caller: Caller
    ) -> AsyncIterator[pb.PredictResponse]:
        """Activations in, class probabilities out."""
        requests = self._receiver.in_time(requests)
        first = await anext(requests, None)
        if first is None or first.message is None or not first.message.HasField("open"):
            raise RefusedInput("a prediction stream begins with its cut layer")
        cut_layer = first.message.open.cut_layer
        self._require_model(first.message.open.fingerprint)
        self._engine.initial.require_cut(cut_layer)
        member = self._sessions.member(caller) if caller.session else None
        client_id = member.client_id if member else None
        schema = self._schema(cut_layer, self._engine.plan.predict_rows)
        async for request in requests:
            if request.message is None or not request.message.HasField("activation"):
                raise RefusedInput("an activation begins with its header")
            tensor = schema.admit(request.message.activation)
            payload = await self._receive(tensor, request, requests)
            if payload is None:
                raise RefusedInput(f"the stream ended within {_TENSOR}")
            if member is not None:
                member.progress += 1  # an evaluation can take long
            answer = await self.runner.compute.run(
                partial(self._predict, payload, cut_layer, client_id)
            )
            if member is not None:
                member.predicted(tensor.nbytes, answer.nbytes)
            self._metrics.received("predictions", payload.wire_dtype, tensor.nbytes)
            self._metrics.sent("predictions", "fp32", answer.nbytes)
            self._metrics.predicted(cut_layer, len(answer))
            del payload  # its memory, until the next one has come
            yield pb.PredictResponse(probabilities=answer.numpy().tobytes(), rows=len(answer))

    async def Leave(self, request: pb.LeaveRequest, caller: Caller) -> pb.LeaveResponse:
        """End a session."""
        self._drop(self._sessions.member(caller), MemberState.LEFT)
        return pb.LeaveResponse()

    async def _take(self, member: Member, requests: AsyncIterator[Frame[pb.TrainRequest]]) -> None:
        schema = self._schema(member.cut_layer, self._engine.plan.batch_size)
        async for request in requests:
            require_current(member)
            member.heard_at = time.time()
            message = request.message or pb.TrainRequest()
            kind = message.WhichOneof("kind")
            if request.chunk is not None and kind != "batch":
                raise RefusedInput("a chunk came where none was announced")
            match kind:
                case "batch":
                    await self._take_batch(member, message.batch, schema, request, requests)
                case "round_done":
                    report = messages.record_from_wire(message.round_done, RoundDone)
                    self._engine.round_done(member.client_id, report)
                case "heartbeat":
                    continue
                case "evaluation":
                    evaluation = messages.record_from_wire(message.evaluation, Evaluation)
                    self._engine.evaluated(member.client_id, evaluation)
                case _:
                    raise RefusedInput("an empty message came")
            self.runner.changed()

    async def _take_batch(
        self,
        member: Member,
        batch: pb.Batch,
        schema: TensorSchema,
        first: Frame[pb.TrainRequest],
        requests: AsyncIterator[Frame[pb.TrainRequest]],
    ) -> None:
        tensor = schema.admit(batch.activation)
        rows = batch.activation.shape[0]
        labels = list(batch.labels)
        self._engine.admit(member.client_id, batch.round, batch.step, labels, rows)
        payload = await self._receive(tensor, first, requests, lambda: len(member.queue) > 0)
        if payload is None:
            return  # its connection has broken: it will send the batch again
        require_current(member)
        self._metrics.received("activations", payload.wire_dtype, tensor.nbytes)
        self._engine.submit(member.client_id, Batch(batch.round, batch.step, payload, labels))

    async def _receive(
        self,
        tensor: Announced,
        first: Frame[Any],
        following: AsyncIterator[Frame[Any]],
        may_wait: Callable[[], bool] = lambda: True,
    ) -> Payload | None:
        """The announced tensor, whole; None if the stream has ended within it."""
        data = await self._receiver.collect(
            tensor.nbytes, first, following, _TENSOR, may_wait=may_wait
        )
        return None if data is None else tensor.payload(data)

    def _predict(self, payload: Payload, cut_layer: int, client_id: str | None) -> Tensor:
        return self._engine.predict(codec.decode(payload), cut_layer, client_id)

    def _drop(self, member: Member, state: MemberState, error: HeteroError | None = None) -> None:
        """Forget a session; a newer one of the same client is none of its business."""
        self._sessions.end(member)
        if self._engine.members.get(member.client_id) is member:
            self._engine.detach(member.client_id, state, error)
        self.runner.changed()

    def _require_model(self, fingerprint: str) -> None:
        if fingerprint != self._engine.initial.fingerprint:
            raise ModelMismatch(fingerprint, self._engine.initial.fingerprint)

    def _schema(self, cut_layer: int, rows: int) -> TensorSchema:
        shape = self._engine.initial.shapes[cut_layer - 1]
        return TensorSchema(self._engine.plan.wire, shape, rows)


def _farewell(reader: asyncio.Task[None]) -> tuple[MemberState, HeteroError | None]:
    """A broken connection may come back; who breaks the protocol is sent away, with the error."""
    error = reader.exception() if reader.done() and not reader.cancelled() else None
    if error is None or isinstance(error, UnknownSession):
        return MemberState.STALE, None
    return MemberState.EVICTED, error if isinstance(error, HeteroError) else None


def _messages(
    item: Ack | StartRound | Evaluate | Finish | HeteroError,
) -> Iterable[Frame[pb.TrainResponse] | pb.TrainResponse]:
    match item:
        case HeteroError():
            raise item
        case Ack():
            return _ack_messages(item)
        case StartRound():
            return [pb.TrainResponse(start_round=messages.record_to_wire(item, pb.StartRound))]
        case Evaluate():
            return [pb.TrainResponse(evaluate=messages.record_to_wire(item, pb.Evaluate))]
        case Finish():
            return [pb.TrainResponse(finish=messages.record_to_wire(item, pb.Finish))]


def _ack_messages(ack: Ack) -> Iterable[Frame[pb.TrainResponse] | pb.TrainResponse]:
    message = pb.Ack(
        round=ack.round,
        step=ack.step,
        loss=ack.loss,
        accuracy=ack.accuracy,
        duplicate=ack.duplicate,
    )
    if ack.feedback is None:
        return [pb.TrainResponse(ack=message)]
    message.feedback.CopyFrom(messages.header_to_wire(ack.feedback))
    return frames(pb.TrainResponse(ack=message), ack.feedback.data)

"""The RPCs: decode, call the engine, encode. No tensor arithmetic."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial

from hetero_common.agreement.control import Evaluate, Evaluation, Finish, RoundDone, StartRound
from hetero_common.errors import (
    HeteroError,
    LimitExceeded,
    RefusedInput,
    UnknownSession,
    VersionMismatch,
)
from hetero_common.version import PROTOCOL_VERSION
from hetero_common.wire import messages
from hetero_common.wire.frames import Frame, frames
from hetero_common.wire.messages import TensorSchema
from hetero_server.auth.identity import Caller
from hetero_server.monitoring.monitor import Monitor
from hetero_server.net.heartbeat import Heartbeat
from hetero_server.net.limits import PerMinute
from hetero_server.net.predictions import Compute, PredictionService
from hetero_server.net.sessions import Sessions, require_current
from hetero_server.run.engine import Engine
from hetero_server.run.member import Ack, Batch, Member, MemberState
from hetero_server.settings import LimitSettings
from hetero_splitee.v1 import service_pb2 as pb

_STATE_SLACK = 1 << 20
"""Bytes that a safetensors header may add to the tensors of a pushed state."""


class HeteroSplitService(PredictionService):
    """One method per RPC of hetero_splitee.v1.HeteroSplit.

    Args:
        engine: The run.
        run_id: Names the run to clients and in their records.
        compute: Where the run computes.
        monitor: Told what comes and goes, and asked how the run stands.
        changed: Called when the engine was told something: there may be work.
        heartbeat: Seconds between two signs of life on a training stream.
        limits: How much clients may ask for.
        patience: Seconds of silence that end a stream of predictions or weights.
    """

    def __init__(
        self,
        engine: Engine,
        run_id: str,
        compute: Compute,
        monitor: Monitor,
        changed: Callable[[], None],
        *,
        heartbeat: float = 10.0,
        limits: LimitSettings = LimitSettings(),  # noqa: B008 - frozen
        patience: float = math.inf,
    ) -> None:
        super().__init__(engine, compute, monitor, limits, patience)
        self._engine = engine
        self._run_id = run_id
        self._changed = changed
        self._heartbeat = heartbeat
        registrations = PerMinute(limits.max_registrations, limits.max_registrations_per_client)
        self._sessions = Sessions(limits.max_clients, registrations)

    async def Register(self, request: pb.RegisterRequest, caller: Caller) -> pb.RegisterResponse:
        """Open a session."""
        engine = self._engine
        if request.protocol_version != PROTOCOL_VERSION:
            raise VersionMismatch(request.protocol_version, PROTOCOL_VERSION)
        if not 1 <= len(request.client_id) <= 100 or not request.client_id.isprintable():
            raise RefusedInput("a client id has 1 to 100 characters, all of them printable")
        caller.require(request.client_id)
        self.require_model(request.fingerprint)
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
        self._changed()
        return pb.RegisterResponse(
            session=self._sessions.open(member),
            base_round=member.base,
            heartbeat_seconds=self._heartbeat,
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
        heartbeat = Heartbeat(wake, self._heartbeat)
        reader = asyncio.create_task(self._take(member, heartbeat.heard(requests)))
        reader.add_done_callback(lambda _: wake.set())
        try:
            self._engine.attach(member.client_id)
            self._changed()
            while True:
                while member.outbox:
                    for message in _messages(member.outbox.popleft()):
                        yield message
                    heartbeat.said()
                if reader.done():
                    break
                if heartbeat.is_lost:
                    raise UnknownSession("nothing came from this client for too long")
                if heartbeat.is_due:
                    yield pb.TrainResponse(heartbeat=pb.Heartbeat())
                    heartbeat.said()
                await wake.wait()
                wake.clear()
            reader.result()
        finally:
            heartbeat.stop()
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
        weights = await self._compute.run(
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
        data = memoryview(await self._compute.run(weights.to_bytes))
        header = pb.StateHeader(round=self._engine.round, bytes=data.nbytes)
        for frame in frames(pb.PullStateResponse(header=header), data):
            yield frame
        self._metrics.sent("weights", "fp32", data.nbytes)

    def member_who_asks(self, caller: Caller) -> Member | None:
        """The member whose session the caller uses; None without one."""
        return self._sessions.member(caller) if caller.session else None

    async def Leave(self, request: pb.LeaveRequest, caller: Caller) -> pb.LeaveResponse:
        """End a session."""
        self._drop(self._sessions.member(caller), MemberState.LEFT)
        return pb.LeaveResponse()

    async def _take(self, member: Member, requests: AsyncIterator[Frame[pb.TrainRequest]]) -> None:
        schema = self.schema(member.cut_layer, self._engine.plan.batch_size)
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
            self._changed()

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
        payload = await self.receive(
            tensor, first, requests, lambda: len(member.progress.queue) > 0
        )
        if payload is None:
            return  # its connection has broken: it will send the batch again
        require_current(member)
        self._metrics.received("activations", payload.wire_dtype, tensor.nbytes)
        self._engine.submit(member.client_id, Batch(batch.round, batch.step, payload, labels))

    def _drop(self, member: Member, state: MemberState, error: HeteroError | None = None) -> None:
        """Forget a session; a newer one of the same client is none of its business."""
        self._sessions.end(member)
        if self._engine.members.get(member.client_id) is member:
            self._engine.detach(member.client_id, state, error)
        self._changed()


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

"""The Train call, against an engine and a runner without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.errors import RefusedInput, UnknownSession
from hetero_common.tensors.weight_delta import pack
from hetero_common.tensors.weights import tensors_to_bytes
from hetero_common.version import PROTOCOL_VERSION
from hetero_common.wire.frames import Frame
from hetero_server.auth.identity import Caller
from hetero_server.compute_thread import ComputeThread
from hetero_server.learning.initial_model import InitialModel
from hetero_server.learning.strategies import Surroundings
from hetero_server.learning.strategies.sequential import SequentialStrategy
from hetero_server.net.service import HeteroSplitService
from hetero_server.run.engine import Engine
from hetero_server.run.member import Ack, MemberState
from hetero_server.run.orders import arrival
from hetero_server.runner import Runner
from hetero_splitee.v1 import service_pb2 as pb
from hetero_splitee.v1 import tensor_pb2

# What they send is written by hand, and so in fp32.
PLAN = Plan(
    model="tinycnn", width=4, image_size=8, rounds=2, steps_per_round=2, batch_size=4, wire="fp32"
)


def a_service() -> tuple[HeteroSplitService, Runner, Engine]:
    initial = InitialModel(PLAN)
    strategy = SequentialStrategy(
        Surroundings(PLAN, Compute(), initial.fresh, initial.fresh_exits, None)
    )
    engine = Engine(PLAN, initial, strategy, arrival, clients=1)
    runner = Runner(engine, ComputeThread())
    runner.monitor.watch(engine, "run", "sequential")
    service = HeteroSplitService(engine, "run", runner.compute, runner.monitor, runner.changed)
    return service, runner, engine


async def register(service: HeteroSplitService, engine: Engine) -> Caller:
    request = pb.RegisterRequest(
        protocol_version=PROTOCOL_VERSION,
        client_id="a",
        cut_layer=2,
        fingerprint=engine.initial.fingerprint,
        shard_size=64,
        wire_dtypes=[tensor_pb2.WIRE_DTYPE_FP32],
    )
    answer = await service.Register(request, Caller())
    return Caller(session=answer.session)


def test_a_refused_client_is_told_although_an_acknowledgement_comes_at_the_same_time() -> None:
    """The reader's failure and an acknowledgement may arrive in either order, and none may hang."""

    async def scenario() -> None:
        service, runner, engine = a_service()
        caller = await register(service, engine)
        member = engine.members["a"]
        refuse = asyncio.Event()

        async def requests() -> AsyncIterator[Frame[pb.TrainRequest]]:
            await refuse.wait()
            asyncio.get_running_loop().call_soon(acknowledge)
            yield Frame(pb.TrainRequest())  # an empty message is refused

        def acknowledge() -> None:
            member.outbox.append(Ack(0, 0))
            runner.changed()

        answers = service.Train(requests(), caller)
        first = await anext(answers)
        assert isinstance(first, pb.TrainResponse)
        assert first.WhichOneof("kind") == "start_round"
        refuse.set()
        with pytest.raises(RefusedInput, match="an empty message came"):
            async for _ in answers:
                pass
        assert member.state is MemberState.EVICTED, "who breaks the protocol does not come back"
        runner.compute.close()

    asyncio.run(asyncio.wait_for(scenario(), timeout=30))


def test_a_session_has_one_training_stream_and_ends_with_it() -> None:
    async def scenario() -> None:
        service, runner, engine = a_service()
        caller = await register(service, engine)

        async def silence() -> AsyncIterator[Frame[pb.TrainRequest]]:
            await asyncio.Event().wait()
            yield Frame(pb.TrainRequest())

        answers = service.Train(silence(), caller)
        await anext(answers)
        with pytest.raises(Exception, match="has a training stream already"):
            await anext(service.Train(silence(), caller))
        await answers.aclose()  # type: ignore[attr-defined] # it is a generator
        assert engine.members["a"].state is MemberState.STALE
        with pytest.raises(UnknownSession):
            await service.Leave(pb.LeaveRequest(), caller)
        runner.compute.close()

    asyncio.run(asyncio.wait_for(scenario(), timeout=30))


def test_no_reading_outlives_its_stream() -> None:
    """gRPC lets it fail once the call is answered, and nobody would hear of that failure."""

    async def scenario() -> None:
        service, runner, engine = a_service()
        caller = await register(service, engine)
        reads = False

        async def silence() -> AsyncIterator[Frame[pb.TrainRequest]]:
            nonlocal reads
            reads = True
            try:
                await asyncio.Event().wait()
            finally:
                reads = False
            yield Frame(pb.TrainRequest())

        answers = service.Train(silence(), caller)
        await anext(answers)
        await asyncio.sleep(0)
        assert reads
        await answers.aclose()  # type: ignore[attr-defined] # it is a generator
        assert not reads
        runner.compute.close()

    asyncio.run(asyncio.wait_for(scenario(), timeout=30))


def test_a_stream_that_breaks_within_a_batch_may_be_taken_up_again() -> None:
    async def scenario() -> None:
        service, runner, engine = a_service()
        caller = await register(service, engine)
        broken = asyncio.Event()
        header = tensor_pb2.TensorHeader(dtype=tensor_pb2.WIRE_DTYPE_FP32, shape=(4, 4, 4, 4))
        half = pb.TrainRequest(batch=pb.Batch(labels=[0] * 4, activation=header))

        async def requests() -> AsyncIterator[Frame[pb.TrainRequest]]:
            await broken.wait()
            yield Frame(half, memoryview(bytes(100)))

        answers = service.Train(requests(), caller)
        await anext(answers)
        broken.set()
        assert [answer async for answer in answers] == []
        member = engine.members["a"]
        assert (member.state, member.progress.received) == (MemberState.STALE, 0)
        runner.compute.close()

    asyncio.run(asyncio.wait_for(scenario(), timeout=30))


def test_weights_that_outlive_their_stream_are_to_be_pushed_again() -> None:
    """A server that is being stopped ends streams; who pushes just then is not sent away for it."""

    async def scenario() -> None:
        service, runner, engine = a_service()
        caller = await register(service, engine)
        engine.attach("a")
        weights = engine.shared.for_cut(2)
        data = memoryview(tensors_to_bytes(pack(weights, weights, PLAN.push_dtype)))

        async def requests() -> AsyncIterator[Frame[pb.PushStateRequest]]:
            header = pb.StateHeader(round=0, bytes=data.nbytes)
            yield Frame(pb.PushStateRequest(header=header), data[:100])
            engine.detach("a", MemberState.STALE)
            yield Frame(None, data[100:])

        with pytest.raises(UnknownSession):
            await service.PushState(requests(), caller)
        assert engine.members["a"].progress.pushed is None
        runner.compute.close()

    asyncio.run(asyncio.wait_for(scenario(), timeout=30))

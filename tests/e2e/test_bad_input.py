"""What users get wrong, and what hostile clients try: one sentence each, and nothing else happens.

The second half holds one live server and one honest client, while a crowd of intruders registers
beside it and breaks one rule each.
"""

from __future__ import annotations

import pickle
import queue
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import save

from hetero_client.__main__ import main as client_main
from hetero_common import codec, errors, rpc, wire
from hetero_common.rundir import MODEL_FILE, PLAN_FILE, SETTINGS_FILE, read_events
from hetero_common.version import PROTOCOL_VERSION
from hetero_common.weights import Weights
from hetero_lab.__main__ import main as sim_main
from hetero_server.__main__ import main as server_main
from hetero_splitee.v1 import service_pb2 as pb
from hetero_splitee.v1 import tensor_pb2

if TYPE_CHECKING:
    from conftest import Simulate
    from e2e.conftest import Finished, Launch

Main = Callable[[Sequence[str]], int]

SMALL = ("--model", "tinycnn", "--width", "4", "--image-size", "8", "--normalization", "digits")
LOG_LINE = re.compile(r"\d\d:\d\d:\d\d (DEBUG|INFO|WARNING|ERROR) ")
ERROR_NAMES = [name for name in vars(errors) if name[0].isupper()]


def sentence_of(program: str, stderr: str) -> str:
    """The one line that a command ends with, after whatever it has logged."""
    *logged, last = stderr.splitlines()
    assert all(LOG_LINE.match(line) for line in logged)
    assert last.startswith(f"{program}: ")
    sentence = last.removeprefix(f"{program}: ")
    assert len(sentence) > 20
    assert not any(name in sentence for name in ERROR_NAMES)
    return sentence


Complaint = Callable[..., str]
"""(program, main, *flags, code=2) -> the sentence."""


@pytest.fixture
def complaint(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Complaint:
    """Run a command in this process, in an empty folder; it must refuse its input."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(program: str, main: Main, *flags: str, code: int = 2) -> str:
        capsys.readouterr()
        assert main(flags) == code
        written = capsys.readouterr()
        assert written.out == ""
        return sentence_of(program, written.err)

    return run


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--stratgy", "averaging"), r"unknown setting --stratgy: did you mean --strategy\?"),
        (("--rounds=3", "--lr=1"), r"unknown setting --lr=1: "),
        (("--rounds", "many"), r"setting rounds: .*integer.*, got 'many'"),
        (("--rounds", "0"), r"setting rounds: .*greater than or equal to 1, got '?0'?"),
        (("--client-lr", "-1"), r"setting client-lr: .*greater than 0"),
        (("--strategy", "median"), r"'sequential' or 'averaging', got 'median'"),
        (("--listen", "50051"), r"setting listen: write HOST:PORT, such as .*, got '50051'"),
        (("--listen", "127.0.0.1:70000"), r"setting listen: write HOST:PORT"),
        (("--normalization", "mnist"), r"normalization 'mnist' is unknown: choose one of cifar10"),
        (("--model", "resnet99"), r"unknown model 'resnet99': choose one of resnet18, "),
        (("--model", "no_such_module:make"), r"model 'no_such_module:make' can not be imported"),
        (("--device", "cuda:99"), r"device cuda:99 is not to be had: torch sees \d+ CUDA devices"),
        (("--device", "abacus"), r"unknown device 'abacus': use cpu, cuda or cuda:N"),
        (("--listen", "0.0.0.0:0", *SMALL), r"other machines.*: spell out --insecure"),
        (("--listen", "[::]:0", *SMALL), r"other machines.*: spell out --insecure"),
        (("--config", "none.yaml"), r"--config none.yaml can not be read: No such file"),
        (("--serve", "."), r"\. is no run directory: it has no valid plan.json"),
    ],
)
def test_a_server_refuses_bad_settings_in_one_sentence(
    flags: tuple[str, ...], sentence: str, complaint: Complaint
) -> None:
    assert re.search(sentence, complaint("hetero-server", server_main, *flags))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("stategy: averaging", "unknown setting stategy: did you mean strategy?"),
        ("rounds: [1, 2]", "setting rounds: "),
        ("- rounds", "must hold `name: value` lines"),
        ("rounds: 'open", "is not valid YAML: "),
    ],
)
def test_a_server_refuses_a_bad_settings_file(
    text: str, sentence: str, complaint: Complaint, tmp_path: Path
) -> None:
    file = tmp_path / "server.yaml"
    file.write_text(text)
    assert sentence in complaint("hetero-server", server_main, "--config", str(file))


def test_a_port_in_use_is_named(complaint: Complaint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = "{}:{}".format(*taken.getsockname())
        sentence = complaint("hetero-server", server_main, "--listen", listen, *SMALL)
    assert sentence.startswith(f"can not listen on {listen}: the port is in use")


def test_a_run_directory_that_can_not_be_written_is_named(
    complaint: Complaint, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    sentence = complaint("hetero-server", server_main, "--run-dir", str(file / "run"), *SMALL)
    assert sentence == f"--run-dir {file}/run can not be written: Not a directory"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), r"--cut-layer is missing: --list-cuts prints what each choice costs"),
        (("--cut-leyer", "3"), r"unknown setting --cut-leyer: did you mean --cut-layer\?"),
        (("--cut-layer", "three"), r"setting cut-layer: .*, got 'three'"),
        (("--cut-layer", "3", "--shard", "4/3"), r"shard '4/3' does not exist: write I/N"),
        (("--cut-layer", "3", "--threshold", "2"), r"setting threshold: .*less than or equal to 1"),
        (("--list-cuts", "--model", "vgg99"), r"unknown model 'vgg99': choose one of"),
    ],
)
def test_a_client_refuses_bad_settings_before_it_calls_anybody(
    flags: tuple[str, ...], sentence: str, complaint: Complaint
) -> None:
    assert re.search(sentence, complaint("hetero-client", client_main, *flags))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--cut-layers", "3;4"), r"setting cut-layers: write numbers separated by commas"),
        (("--cut-layers", "2,6"), r"cut layer 6 is out of range: choose one of 1\.\.5: 1 \(conv1"),
        (("--cut-layers", "2", "--classes", "9"), r"digits has 10 classes.*--classes 10"),
        (("--cut-layers", "2", "--clients", "1000"), r"images are too few for 1000 shards"),
        (("--cut-layers", "2", "--dataset", "mnist"), r"no data set 'mnist': choose one of"),
    ],
)
def test_a_simulation_refuses_bad_settings(
    flags: tuple[str, ...], sentence: str, complaint: Complaint
) -> None:
    flags = (*SMALL, "--dataset", "digits", *flags)
    assert re.search(sentence, complaint("hetero-sim", sim_main, *flags))


def test_a_client_without_a_server_says_why_it_waits_and_gives_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as nobody:  # bound, so that the port is not another's; nobody listens
        nobody.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*nobody.getsockname())
        flags = ("--server", address, "--cut-layer", "2", "--connect-timeout", "1")
        assert client_main(flags) == 1
    stderr = capsys.readouterr().err
    retry = next(line for line in stderr.splitlines() if "WARNING" in line)
    assert f"waiting for the server at {address}: " in retry
    assert "onnection refused" in retry
    sentence = sentence_of("hetero-client", stderr)
    assert sentence.startswith(
        f"no server answers at {address} after 1 s: check --server and that hetero-server runs"
    )


# --- against a server that only serves ------------------------------------------------------------


@dataclass(frozen=True)
class Serving:
    address: str
    run: Path


@pytest.fixture(scope="module")
def serving(launch: Launch, simulate: Simulate) -> Iterator[Serving]:
    flags = ("--dataset", "digits", "--rounds", "1", "--steps-per-round", "1", *SMALL)
    run = simulate(*flags, "--cut-layers", "2,3", "--clients", "2")
    with launch("hetero-server", "--serve", str(run), "--listen", "127.0.0.1:0") as server:
        yield Serving(server.address, run)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    Image.fromarray(pixels).save(path)


def picture_folder(root: Path, classes: int) -> Path:
    for split in ("train", "test"):
        for number in range(classes):
            for name in ("a", "b"):
                picture(root / split / f"class{number}" / f"{name}.png")
    return root


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ("--cut-layer", "6"),
            r"^cut layer 6 is out of range: choose one of 1\.\.5: "
            r"1 \(conv1\), 2 \(conv2\), 3 \(conv3\), 4 \(conv4\), 5 \(conv5\)$",
        ),
        (("--cut-layer", "0"), r"^cut layer 0 is out of range: choose one of 1\.\.5: "),
        (("--cut-layer", "-1"), r"^cut layer -1 is out of range: choose one of 1\.\.5: "),
        (("--dataset", "mnist"), r"^no data set 'mnist': choose one of cifar10, .*, folder:PATH$"),
        (("--dataset", "folder:nowhere"), r"^nowhere does not exist: give folder:PATH"),
        (("--shard", "1/1000"), r"^1433 images are too few for 1000 shards"),
        (
            ("--width", "8"),
            r"^--width 8 was expected, but the server trains with 4: drop --width, "
            r"or start the server with --width 8$",
        ),
        (("--model", "resnet18"), r"^--model resnet18 was expected, but .* with tinycnn: "),
        (("--device", "cuda:99"), r"^device cuda:99 is not to be had"),
    ],
)
def test_a_client_that_does_not_fit_says_what_to_change(
    flags: tuple[str, ...], sentence: str, serving: Serving, complaint: Complaint
) -> None:
    common = ("--server", serving.address, "--dataset", "digits", "--cut-layer", "2")
    given = complaint("hetero-client", client_main, *common, *flags)
    assert re.search(sentence, given)
    assert list(Path.cwd().iterdir()) == [], "it has not begun a run directory"


def test_a_data_set_with_other_classes_than_the_model(
    serving: Serving, complaint: Complaint, tmp_path: Path
) -> None:
    folder = picture_folder(tmp_path / "pictures", classes=2)
    flags = ("--server", serving.address, "--cut-layer", "2", "--dataset", f"folder:{folder}")
    assert complaint("hetero-client", client_main, *flags) == (
        f"data set folder:{folder} has 2 classes, but the model has 10: "
        "start the server with --classes 2"
    )


def test_an_image_that_can_not_be_read_is_named(
    serving: Serving, complaint: Complaint, tmp_path: Path
) -> None:
    folder = picture_folder(tmp_path / "pictures", classes=10)
    broken = folder / "train" / "class7" / "b.png"
    broken.write_bytes(broken.read_bytes()[:50])
    flags = ("--server", serving.address, "--cut-layer", "2", "--dataset", f"folder:{folder}")
    sentence = complaint("hetero-client", client_main, *flags)
    assert sentence.startswith(f"{broken} can not be read as an image (")


def test_nobody_trains_with_a_server_that_only_serves(
    serving: Serving, complaint: Complaint
) -> None:
    flags = ("--server", serving.address, "--cut-layer", "2", "--dataset", "digits")
    sentence = complaint("hetero-client", client_main, *flags, code=1)
    assert sentence == "no training goes on here: the run is over or only being served"


@pytest.mark.parametrize("missing", [PLAN_FILE, MODEL_FILE])
def test_what_is_not_a_finished_run_is_not_served(
    missing: str, serving: Serving, complaint: Complaint, tmp_path: Path
) -> None:
    for name in (PLAN_FILE, MODEL_FILE, SETTINGS_FILE):
        if name != missing:
            (tmp_path / name).write_bytes((serving.run / name).read_bytes())
    sentence = complaint("hetero-server", server_main, "--serve", str(tmp_path))
    assert sentence.startswith(f"{tmp_path}")
    assert missing in sentence


def test_a_device_s_part_of_a_model_is_not_served(
    serving: Serving, complaint: Complaint, tmp_path: Path
) -> None:
    (tmp_path / PLAN_FILE).write_bytes((serving.run / PLAN_FILE).read_bytes())
    (tmp_path / MODEL_FILE).write_bytes((serving.run / "client-1.safetensors").read_bytes())
    sentence = complaint("hetero-server", server_main, "--serve", str(tmp_path))
    assert sentence == f"{tmp_path} does not hold a whole model of its plan"


# --- intruders ------------------------------------------------------------------------------------

SECONDS = 200
"""Guard against a call that is never answered; DEADLINE_EXCEEDED is no expected status."""
CUT, SHAPE, BATCH, STEPS = 2, (4, 4, 4), 8, 3
DATA = ("--dataset", "digits", "--eval-samples", "50")
AGREED = (*SMALL, "--batch-size", str(BATCH), "--rounds", "2", "--steps-per-round", str(STEPS))

INVALID = grpc.StatusCode.INVALID_ARGUMENT
LIMIT = grpc.StatusCode.RESOURCE_EXHAUSTED
GAP = grpc.StatusCode.OUT_OF_RANGE
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
ENDED = grpc.StatusCode.ABORTED


class Garbage:
    """Bytes that are no message; stands in for one."""

    def SerializeToString(self) -> bytes:
        return b"\xff\xff\xff\xff"


@dataclass(frozen=True)
class Refusal:
    code: grpc.StatusCode
    sentence: str

    @classmethod
    def of(cls, error: grpc.RpcError) -> Refusal:
        return cls(error.code(), error.details() or "")


def refusal_of(call: Callable[[], object]) -> Refusal:
    """How a call ends, of which every answer has been read."""
    with pytest.raises(grpc.RpcError) as caught:
        answers = call()
        if isinstance(answers, Iterator):
            for _ in answers:
                pass
    return Refusal.of(caught.value)


def registration(**changes: Any) -> pb.RegisterRequest:
    fields: dict[str, Any] = {
        "protocol_version": PROTOCOL_VERSION,
        "client_id": "stranger",
        "cut_layer": CUT,
        "shard_size": 100,
        "wire_dtypes": wire.wire_dtypes(),
    }
    return pb.RegisterRequest(**(fields | changes))


def header(
    *shape: int,
    dtype: tensor_pb2.WireDtype.ValueType = tensor_pb2.WIRE_DTYPE_FP32,
    head: bytes = b"",
) -> tensor_pb2.TensorHeader:
    return tensor_pb2.TensorHeader(dtype=dtype, shape=shape, head=head)


def batch(
    *,
    round: int = 0,
    step: int = 0,
    labels: Sequence[int] = (0,) * BATCH,
    activation: tensor_pb2.TensorHeader | None = None,
) -> pb.TrainRequest:
    """Announces a batch; a good one, unless told otherwise."""
    activation = activation or header(BATCH, *SHAPE)
    return pb.TrainRequest(
        batch=pb.Batch(round=round, step=step, labels=labels, activation=activation)
    )


def activation_of(value: float) -> memoryview:
    """The bytes of a whole activation, with one value in its very middle."""
    activation = torch.zeros(BATCH, *SHAPE)
    data = codec.encode(activation, "fp32").data
    torch.frombuffer(data, dtype=torch.float32)[BATCH * 32] = value
    return data


GOOD = activation_of(0)
HANG_UP = None

# What is sent on a training stream once round 0 has begun, and how it is refused.
STREAM_OFFENCES: dict[str, tuple[list[object], grpc.StatusCode, str]] = {
    "a batch larger than agreed": (
        [batch(labels=[0] * 9, activation=header(9, *SHAPE))],
        LIMIT,
        "a batch of 9 rows is larger than the agreed 8",
    ),
    "a batch of four billion": (
        [batch(activation=header(2**32 - 1, *SHAPE))],
        LIMIT,
        "4294967295 rows is larger than the agreed 8",
    ),
    "a batch of one, which BatchNorm can not train on": (
        [batch(labels=[0], activation=header(1, *SHAPE))],
        INVALID,
        "a batch has 2 rows at least",
    ),
    "another shape": ([batch(activation=header(BATCH, 4, 4, 5))], INVALID, "the agreed activation"),
    "fewer dimensions": ([batch(activation=header(BATCH, 64))], INVALID, "the agreed activation"),
    "no dimensions": ([batch(activation=header())], INVALID, "the agreed activation"),
    "another wire dtype": (
        [batch(activation=header(BATCH, *SHAPE, dtype=tensor_pb2.WIRE_DTYPE_BF16))],
        INVALID,
        "the agreed wire dtype is fp32, not bf16",
    ),
    "a label out of range": (
        [batch(labels=[0, 1, 2, 3, 4, 5, 6, 10])],
        INVALID,
        "a label is outside 0..9",
    ),
    "a label missing": ([batch(labels=[0] * 7)], INVALID, "a label for each"),
    "a gap": ([batch(step=1)], GAP, "step 1 of round 0 leaves a gap: step 0 is expected next"),
    "a step too many": ([batch(step=STEPS)], INVALID, "round 0 has steps 0..2, not 3"),
    "a round that is to come": ([batch(round=1)], INVALID, "round 1 is not the one"),
    "a NaN": ([batch(), activation_of(float("nan"))], INVALID, "a tensor holds NaN or infinity"),
    "an infinity": (
        [batch(), activation_of(-float("inf"))],
        INVALID,
        "a tensor holds NaN or infinity",
    ),
    "more bytes than announced": (
        [batch(), GOOD[:1000], GOOD],
        INVALID,
        "a chunk is empty or exceeds the announced size",
    ),
    "more bytes than announced, with the announcement": (
        [batch(activation=header(BATCH, *SHAPE, head=bytes(9999)))],
        INVALID,
        "a chunk is empty or exceeds the announced size",
    ),
    "an empty chunk": ([batch(), GOOD[:0]], INVALID, "a chunk is empty or exceeds"),
    "bytes that were not announced": ([GOOD], INVALID, "a chunk came where none was announced"),
    "a batch within a batch": (
        [batch(), GOOD[:1000], batch(step=1)],
        INVALID,
        "an announced tensor is not complete",
    ),
    "half a batch, and then nothing": (
        [batch(), GOOD[:1000], HANG_UP],
        INVALID,
        "the stream ended within an announced tensor",
    ),
    "garbage": ([Garbage()], INVALID, "a message could not be read"),
    "garbage within a batch": ([batch(), Garbage()], INVALID, "a message could not be read"),
    "a frame larger than gRPC takes": (
        [batch(), memoryview(bytes(5 << 20))],
        LIMIT,
        "larger than max",
    ),
    "an empty message": ([pb.TrainRequest()], INVALID, "an empty message came"),
    "the end of the round before its first step": (
        [pb.TrainRequest(round_done=pb.RoundDone(round=0))],
        INVALID,
        "step 0 of round 0 is still missing",
    ),
    "an evaluation that nobody asked for": (
        [pb.TrainRequest(evaluation=pb.Evaluation(round=0, samples=1, exit_accuracy=1))],
        INVALID,
        "no evaluation was asked for",
    ),
}


def poisoned(weights: Weights) -> bytes:
    """Weights of the right names and shapes, one of them infinite."""
    weights.layers[1]["conv.weight"][0, 0, 0, 0] = torch.inf
    return weights.to_bytes()


def reshaped(weights: Weights) -> bytes:
    weights.layers[1]["conv.weight"] = weights.layers[1]["conv.weight"][:, :, :1]
    return weights.to_bytes()


def shallower(weights: Weights) -> bytes:
    del weights.layers[CUT]
    return weights.to_bytes()


class Intruder:
    """A client that speaks the protocol by hand.

    Args:
        channel: To the server.
        name: Its client id.
        fingerprint: Of the server's model.
    """

    def __init__(self, channel: grpc.Channel, name: str, fingerprint: str) -> None:
        self._channel = channel
        answer = rpc.callable_for(channel, "Register")(
            registration(client_id=name, fingerprint=fingerprint), timeout=SECONDS
        )
        self._session = ((rpc.SESSION_KEY, answer.session),)
        self._outgoing: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._stream = self._call("Train", iter(self._outgoing.get, HANG_UP))

    def waits_for_round(self) -> None:
        """The round has begun, and with it waits for this client too."""
        start = next(self._stream).start_round
        assert (start.round, start.steps, start.push_state) == (0, STEPS, True)

    def sends(self, messages: Sequence[object]) -> Refusal:
        for message in messages:
            self._outgoing.put(message)
        return refusal_of(lambda: self._stream)

    def weights(self) -> Weights:
        """Good ones, as this client is told to start from."""
        chunks = self._call("PullState", pb.PullStateRequest())
        return Weights.from_bytes(b"".join(c for c in chunks if isinstance(c, memoryview)))

    def pushes(self, data: bytes, round_: int = 0) -> Refusal:
        head = pb.PushStateRequest(header=pb.StateHeader(round=round_, bytes=len(data)))
        return self.refusal("PushState", [head, *wire.chunks(memoryview(data))])

    def pulls(self) -> Refusal:
        return refusal_of(lambda: self._call("PullState", pb.PullStateRequest()))

    def refusal(self, name: str, requests: Sequence[object]) -> Refusal:
        return refusal_of(lambda: self._call(name, iter(requests)))

    def leaves(self) -> None:
        self._call("Leave", pb.LeaveRequest())
        self.closes()

    def closes(self) -> None:
        self._outgoing.put(HANG_UP)
        self._stream.cancel()

    def _call(self, name: str, requests: object) -> Any:
        method = rpc.callable_for(self._channel, name)
        return method(requests, metadata=self._session, timeout=SECONDS)


def pushing(spoil: Callable[[Weights], bytes]) -> Callable[[Intruder], Refusal]:
    return lambda intruder: intruder.pushes(spoil(intruder.weights()))


# What is called within a session, beside its training stream, during round 0.
SESSION_OFFENCES: dict[str, tuple[Callable[[Intruder], Refusal], grpc.StatusCode, str]] = {
    "infinite weights": (pushing(poisoned), INVALID, "NaN or infinity"),
    "weights of another shape": (pushing(reshaped), INVALID, "names, shapes and dtypes"),
    "weights of another cut layer": (pushing(shallower), INVALID, "names, shapes and dtypes"),
    "a pickle": (pushing(lambda _: pickle.dumps([1, 2])), INVALID, "safetensors"),
    "foreign tensors": (
        pushing(lambda _: save({"x": torch.zeros(1)})),
        INVALID,
        "no layer's and no exit's",
    ),
    "far too many bytes": (
        pushing(lambda _: bytes(3 << 20)),
        LIMIT,
        "a pushed state has at most",
    ),
    "weights of a round that is to come": (
        lambda intruder: intruder.pushes(intruder.weights().to_bytes(), round_=1),
        INVALID,
        "round 1 is not the one this client is training",
    ),
    "weights without a header": (
        lambda intruder: intruder.refusal("PushState", [GOOD]),
        INVALID,
        "a pushed state begins with its header",
    ),
    "a second training stream": (
        lambda intruder: intruder.refusal("Train", [batch()]),
        LIMIT,
        "this session has a training stream already",
    ),
}


# What needs no session, or is refused one. The server's fingerprint is filled in.
Offence = Callable[[grpc.Channel, str], object]


def registers(**changes: Any) -> Offence:
    def call(channel: grpc.Channel, fingerprint: str) -> object:
        request = registration(**({"fingerprint": fingerprint} | changes))
        return rpc.callable_for(channel, "Register")(request, timeout=SECONDS)

    return call


def calls(name: str, *requests: object, session: str | None = None) -> Offence:
    """A call with these requests."""

    def call(channel: grpc.Channel, fingerprint: str) -> object:
        method = rpc.SERVICE.methods_by_name[name]
        metadata = None if session is None else ((rpc.SESSION_KEY, session),)
        given = iter(requests) if method.client_streaming else requests[0]
        return rpc.callable_for(channel, name)(given, metadata=metadata, timeout=SECONDS)

    return call


def predicts(*requests: object, cut_layer: int = CUT, fingerprint: str | None = None) -> Offence:
    def call(channel: grpc.Channel, real: str) -> object:
        opening = pb.PredictOpen(cut_layer=cut_layer, fingerprint=fingerprint or real)
        return calls("Predict", pb.PredictRequest(open=opening), *requests)(channel, real)

    return call


CALL_OFFENCES: dict[str, tuple[Offence, grpc.StatusCode, str]] = {
    "a newer protocol": (
        registers(protocol_version=PROTOCOL_VERSION + 1),
        PRECONDITION,
        f"the client speaks protocol version {PROTOCOL_VERSION + 1}, "
        f"the server {PROTOCOL_VERSION}: upgrade hetero-splitee on the server",
    ),
    "no protocol": (
        registers(protocol_version=0),
        PRECONDITION,
        "upgrade hetero-splitee on the client",
    ),
    "another model": (
        registers(fingerprint="0123456789abcdef"),
        PRECONDITION,
        "the client built a model with fingerprint 0123456789ab, the server trains ",
    ),
    "a cut layer that is none": (
        registers(cut_layer=6),
        PRECONDITION,
        "cut layer 6 is out of range: choose one of 1..5: 1 (conv1), 2 (conv2)",
    ),
    "a shard of one image": (registers(shard_size=1), INVALID, "a shard of 1 images is too small"),
    "no client id": (registers(client_id=""), INVALID, "a client id has 1 to 100 characters"),
    "a long client id": (registers(client_id="x" * 101), INVALID, "1 to 100 characters"),
    "a wire dtype that the run does not use": (
        registers(wire_dtypes=[tensor_pb2.WIRE_DTYPE_INT8]),
        INVALID,
        "the run's wire dtype is fp32",
    ),
    "a registration of garbage": (calls("Register", Garbage()), INVALID, "could not be read"),
    "a question of garbage": (calls("GetStatus", Garbage()), INVALID, "could not be read"),
    "training without a session": (calls("Train", batch()), ENDED, "register again"),
    "pushing without a session": (
        calls("PushState", pb.PushStateRequest(header=pb.StateHeader(bytes=1))),
        ENDED,
        "register again",
    ),
    "pulling without a session": (
        calls("PullState", pb.PullStateRequest()),
        ENDED,
        "register again",
    ),
    "leaving without a session": (calls("Leave", pb.LeaveRequest()), ENDED, "register again"),
    "training with a made-up session": (
        calls("Train", batch(), session="secret"),
        ENDED,
        "register again",
    ),
    "predicting with a made-up session": (
        lambda channel, fingerprint: calls(
            "Predict",
            pb.PredictRequest(open=pb.PredictOpen(cut_layer=CUT, fingerprint=fingerprint)),
            session="secret",
        )(channel, fingerprint),
        ENDED,
        "register again",
    ),
    "predicting without a cut layer": (
        calls("Predict", pb.PredictRequest(activation=header(1, *SHAPE))),
        INVALID,
        "a prediction stream begins with its cut layer",
    ),
    "predicting nothing": (calls("Predict"), INVALID, "begins with its cut layer"),
    "predicting at another cut layer": (predicts(cut_layer=9), PRECONDITION, "is out of range"),
    "predicting with another model": (
        predicts(fingerprint="0123456789abcdef"),
        PRECONDITION,
        "install the same model code on both sides",
    ),
    "predicting another shape": (
        predicts(pb.PredictRequest(activation=header(1, 4, 4, 5))),
        INVALID,
        "the agreed activation",
    ),
    "predicting too many at once": (
        predicts(pb.PredictRequest(activation=header(257, *SHAPE))),
        LIMIT,
        "a batch of 257 rows is larger than the agreed 256",
    ),
    "predicting a NaN": (
        predicts(pb.PredictRequest(activation=header(BATCH, *SHAPE)), activation_of(float("nan"))),
        INVALID,
        "a tensor holds NaN or infinity",
    ),
    "predicting garbage": (predicts(Garbage()), INVALID, "a message could not be read"),
}

EXPECTED = {
    name: (code, sentence)
    for offences in (STREAM_OFFENCES, SESSION_OFFENCES, CALL_OFFENCES)
    for name, (_, code, sentence) in offences.items()
}


@dataclass
class Siege:
    """A run with one honest client among intruders, when it was over."""

    refusals: dict[str, Refusal] = field(default_factory=dict)
    afterwards: dict[str, Refusal] = field(default_factory=dict)
    """What those hear next whose training stream was ended."""
    client: Finished | None = None
    client_run: Path = Path()
    server: Finished | None = None
    server_run: Path = Path()


@pytest.fixture(scope="module")
def siege(launch: Launch) -> Siege:
    siege = Siege()
    intruding = [*STREAM_OFFENCES, *SESSION_OFFENCES]
    with ExitStack() as stack:
        server = stack.enter_context(
            launch(
                *("hetero-server", "--listen", "127.0.0.1:0", "--run-dir", "run"),
                *("--clients", str(len(intruding) + 1), *AGREED),
            )
        )
        flags = ("--server", server.address, "--cut-layer", str(CUT), "--run-dir", "run")
        honest = stack.enter_context(
            launch("hetero-client", *flags, *DATA, "--client-id", "client-1")
        )
        channel = stack.enter_context(grpc.insecure_channel(server.address))
        status = rpc.callable_for(channel, "GetStatus")(pb.GetStatusRequest(), timeout=SECONDS)
        crowd = {}
        for name in intruding:
            crowd[name] = Intruder(channel, name, status.fingerprint)
            stack.callback(crowd[name].closes)
        for intruder in crowd.values():
            intruder.waits_for_round()
        # From here on the honest client is in a round that can not end before the last intruder.
        for name, (call, _, _) in CALL_OFFENCES.items():
            siege.refusals[name] = refusal_of(partial(call, channel, status.fingerprint))
        for name, (offends, _, _) in SESSION_OFFENCES.items():
            siege.refusals[name] = offends(crowd[name])
            crowd[name].leaves()
        for name, (messages, _, _) in STREAM_OFFENCES.items():
            siege.refusals[name] = crowd[name].sends(messages)
            siege.afterwards[name] = crowd[name].pulls()
        siege.client, siege.server = honest.finish(), server.finish()
        siege.client_run, siege.server_run = honest.folder / "run", server.folder / "run"
    return siege


@pytest.mark.parametrize("offence", EXPECTED)
def test_an_intruder_is_refused(offence: str, siege: Siege) -> None:
    code, sentence = EXPECTED[offence]
    refusal = siege.refusals[offence]
    assert (refusal.code, sentence in refusal.sentence) == (code, True), refusal
    assert "\n" not in refusal.sentence
    assert not any(name in refusal.sentence for name in (*ERROR_NAMES, "Traceback", ".py", "/"))


@pytest.mark.parametrize("offence", STREAM_OFFENCES)
def test_an_intruder_s_session_is_over(offence: str, siege: Siege) -> None:
    assert siege.afterwards[offence] == Refusal(
        ENDED, "this session has ended or was never opened: register again"
    )


def test_the_honest_client_finishes_its_training(siege: Siege) -> None:
    assert siege.client is not None and siege.server is not None
    assert (siege.client.code, siege.server.code) == (0, 0)
    kinds = [event["event"] for event in read_events(siege.client_run)]
    assert kinds == ["joined", "round", "round", "evaluation", "finished"]


def test_intruders_leave_no_trace_in_the_weights(siege: Siege, simulate: Simulate) -> None:
    """Bit for bit what the honest client and the server would have got on their own."""
    alone = simulate("--clients", "1", "--cut-layers", str(CUT), *DATA, *AGREED)
    for ours, theirs in (
        (siege.server_run / MODEL_FILE, alone / MODEL_FILE),
        (siege.client_run / MODEL_FILE, alone / "client-1.safetensors"),
    ):
        trained, expected = load_file(ours), load_file(theirs)
        assert trained.keys() == expected.keys()
        assert all(trained[k].tobytes() == expected[k].tobytes() for k in expected)


def test_no_intruder_makes_the_server_fail(siege: Siege) -> None:
    """A refusal is a line in the log; a fault would be a traceback with an id."""
    assert siege.server is not None
    log = siege.server.stderr.splitlines()
    assert all(LOG_LINE.match(line) for line in log)
    assert not [line for line in log if " ERROR " in line or "fault" in line]
    refused = [line for line in log if "WARNING refused a call: " in line]
    assert len(refused) >= len(siege.refusals)

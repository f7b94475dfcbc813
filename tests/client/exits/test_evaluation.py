from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hetero_client.data.shard import Shard
from hetero_client.device_model import DeviceModel
from hetero_client.exits.evaluation import answer, evaluate
from hetero_client.exits.rule import (
    UNCERTAINTY,
    Answers,
    Criterion,
    ExitRule,
    normalized_entropy,
)
from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.models import build_model, normalization
from hetero_common.models.split import split_model

PLAN = Plan(model="tinycnn", width=4, image_size=8, normalization="digits")
CUT = 2


def some_images(count: int) -> Shard:
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Shard(pixels, torch.randint(0, 10, (count,), generator=generator))


@pytest.fixture
def model() -> DeviceModel:
    """Trained just enough that its BatchNorm statistics are not those of any batch."""
    torch.manual_seed(0)
    model = DeviceModel(PLAN, CUT, Compute())
    model.train(True)
    for _ in range(3):
        model.forward(some_images(50).images)
    return model


@pytest.fixture
def suffix() -> nn.Sequential:
    torch.manual_seed(1)
    return split_model(build_model("tinycnn", num_classes=10, width=4), CUT)[1].eval()


def one_by_one(server: nn.Module) -> Callable[[Iterator[Tensor]], Iterator[Tensor]]:
    def predict(activations: Iterator[Tensor]) -> Iterator[Tensor]:
        with torch.no_grad():
            for activation in activations:
                yield server(activation).softmax(dim=1)

    return predict


def three_ahead(server: nn.Module) -> Callable[[Iterator[Tensor]], Iterator[Tensor]]:
    """As over the network: activations are taken before earlier ones are answered."""

    def predict(activations: Iterator[Tensor]) -> Iterator[Tensor]:
        under_way: deque[Tensor] = deque(itertools.islice(activations, 3))
        while under_way:
            with torch.no_grad():
                yield server(under_way.popleft()).softmax(dim=1)
            under_way.extend(itertools.islice(activations, 1))

    return predict


@pytest.mark.parametrize("pipelined", [one_by_one, three_ahead])
@pytest.mark.parametrize("rows", [1, 7, 30, 256])
def test_both_answers_are_those_of_the_divided_and_of_the_whole_model(
    model: DeviceModel,
    suffix: nn.Sequential,
    rows: int,
    pipelined: Callable[[nn.Module], Callable[[Iterator[Tensor]], Iterator[Tensor]]],
) -> None:
    test = some_images(30)
    answers = answer(model, test, pipelined(suffix), rows)

    inputs = normalization.parse("digits").apply(test.images)
    model.train(False)
    with torch.no_grad():
        activation = model.prefix(inputs)
        at_exit, at_server = model.head(activation), suffix(activation)
    assert torch.equal(answers.exit_right, at_exit.argmax(dim=1) == test.labels)
    assert torch.equal(answers.server_right, at_server.argmax(dim=1) == test.labels)
    # Batches of another size are summed up in another order.
    torch.testing.assert_close(answers.uncertainty, normalized_entropy(at_exit.softmax(dim=1)))


def test_the_server_gets_each_image_once_in_order_and_without_a_graph(model: DeviceModel) -> None:
    test = some_images(10)
    sent: list[Tensor] = []

    def predict(activations: Iterator[Tensor]) -> Iterator[Tensor]:
        for activation in activations:
            sent.append(activation)
            yield torch.full((len(activation), 10), 0.1)

    answer(model, test, predict, rows=4)
    assert [len(activation) for activation in sent] == [4, 4, 2]
    assert not any(activation.requires_grad for activation in sent)
    assert all(activation.dtype is torch.float32 for activation in sent)
    expected = torch.cat([model.infer(part)[0] for part in torch.split(test.images, 4)])
    assert torch.equal(torch.cat(sent), expected)


def test_an_image_is_run_only_when_the_server_asks_for_it(model: DeviceModel) -> None:
    """A device holds the activations of a few batches, never of its whole test split."""
    runs = 0

    def counting(module: nn.Module, inputs: object) -> None:
        nonlocal runs
        runs += 1

    model.prefix[0].register_forward_pre_hook(counting)

    def predict(activations: Iterator[Tensor]) -> Iterator[Tensor]:
        for asked, activation in enumerate(activations, start=1):
            assert runs == asked
            yield torch.full((len(activation), 10), 0.1)

    answer(model, some_images(10), predict, rows=2)
    assert runs == 5


def test_an_evaluation_leaves_the_model_as_it_was(
    model: DeviceModel, suffix: nn.Sequential
) -> None:
    before = model.weights().to_bytes()
    evaluate(model, some_images(20), one_by_one(suffix), rows=8, rule=ExitRule(0.5), round_=0)
    assert model.weights().to_bytes() == before


def share(flags: Tensor) -> float:
    return int(flags.sum()) / len(flags)


@pytest.mark.parametrize("criterion", UNCERTAINTY)
@pytest.mark.parametrize(
    ("quantile", "offloaded"), [(0.0, 39), (0.5, 20), (1.0, 0)], ids=["most", "half", "none"]
)
def test_a_report_holds_the_accuracies_of_exit_server_and_both(
    model: DeviceModel, quantile: float, offloaded: int, criterion: Criterion
) -> None:
    test = some_images(40)
    _, probabilities = model.infer(test.images)
    uncertainty = UNCERTAINTY[criterion](probabilities)
    threshold = uncertainty.quantile(quantile, interpolation="lower").item()
    rule = ExitRule(threshold, criterion)

    def know_it_all(activations: Iterator[Tensor]) -> Iterator[Tensor]:
        for _ in activations:
            yield F.one_hot(test.labels, 10).float()

    report = evaluate(model, test, know_it_all, rows=40, rule=rule, round_=6)

    right = probabilities.argmax(dim=1) == test.labels
    assert 0 < share(right) < 1
    both = Answers.of(probabilities, F.one_hot(test.labels, 10).float(), test.labels, criterion)
    record = asdict(report)
    record.pop("curve")
    assert report.curve == tuple(both.curve())
    of_class = [test.labels == number for number in range(10)]
    held = tuple(int(those.sum()) for those in of_class)
    assert record.pop("class_samples") == record.pop("server_class_right") == held
    assert record.pop("exit_class_right") == tuple(int(right[those].sum()) for those in of_class)
    assert record == pytest.approx(
        {
            "round": 6,
            "samples": 40,
            "exit_accuracy": share(right),
            "server_accuracy": 1.0,
            "threshold": threshold,
            "threshold_accuracy": share(right | (uncertainty > threshold)),
            "offload_share": offloaded / 40,
            "only_server_right": 1 - share(right),
        },
        rel=1e-12,
    )


def test_a_class_without_test_images_has_no_accuracy(
    model: DeviceModel, suffix: nn.Sequential
) -> None:
    test = some_images(40)
    without = test.labels != 3
    some = Shard(test.images[without], test.labels[without])
    report = evaluate(model, some, one_by_one(suffix), rows=8, rule=ExitRule(0.5), round_=0)
    recorded = report.record()
    for name in ("exit_class_accuracy", "server_class_accuracy"):
        accuracies = recorded[name]
        assert [k for k, each in enumerate(accuracies) if each is None] == [3]
        counts = zip(accuracies, recorded["class_samples"], strict=True)
        overall = recorded[name.replace("class_accuracy", "accuracy")]
        assert sum((each or 0) * count for each, count in counts) / len(some.labels) == (
            pytest.approx(overall)
        )

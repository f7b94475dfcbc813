from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hetero_common.agreement.plan import Plan
from hetero_common.compute.device import Compute
from hetero_common.compute.schedules import StepAt
from hetero_common.errors import RefusedInput
from hetero_common.tensors import codec
from hetero_common.tensors.aggregation import LayerStates
from hetero_common.tensors.weights import Weights
from hetero_server.learning.initial_model import InitialModel
from hetero_server.learning.suffix import Suffix

AT = StepAt(0, 0, 2)
CUTS = range(1, 6)
MakeBatch = Callable[[int, int], tuple[Tensor, Tensor]]


@pytest.fixture
def build(plan: Plan, initial: InitialModel, compute: Compute) -> Callable[..., Suffix]:
    """A suffix of everything after layer `cut`, with some fields of the plan changed."""

    def build(cut: int = 1, **changes: object) -> Suffix:
        return Suffix(initial.fresh(cut), plan.model_copy(update=changes), compute)

    return build


def equal(first: LayerStates, second: LayerStates, number: int) -> bool:
    return all(torch.equal(value, second[number][name]) for name, value in first[number].items())


def plain(initial: InitialModel, cut: int) -> nn.Sequential:
    """The same layers without anything of ours around them."""
    return nn.Sequential(*initial.fresh(cut).values()).train()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("cut", CUTS)
def test_a_batch_leaves_layers_up_to_its_cut_bit_for_bit(
    build: Callable[..., Suffix], make_batch: MakeBatch, cut: int, optimizer: str
) -> None:
    suffix = build(1, momentum=0.9, weight_decay=0.1, optimizer=optimizer)
    for seed in range(2):  # every layer has momentum now
        suffix.train_step(*make_batch(1, seed), 1, AT)
    before = suffix.states()
    suffix.train_step(*make_batch(cut, 2), cut, AT)
    after = suffix.states()
    untouched = [number for number in before if equal(before, after, number)]
    assert untouched == list(range(2, cut + 1))


@pytest.mark.parametrize("cut", CUTS)
def test_a_step_reports_loss_and_hits_of_the_batch(
    build: Callable[..., Suffix], make_batch: MakeBatch, initial: InitialModel, cut: int
) -> None:
    activation, labels = make_batch(cut, 0)
    logits = plain(initial, cut)(activation).detach()
    result = build(cut).train_step(activation, labels, cut, AT)
    assert result.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    assert result.correct == int((logits.argmax(dim=1) == labels).sum())
    assert result.feedback is None


@pytest.mark.parametrize("cut", CUTS)
def test_gradient_feedback_continues_the_autograd_of_the_whole(
    build: Callable[..., Suffix], plan: Plan, initial: InitialModel, cut: int
) -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(6, 3, 8, 8), torch.randint(0, plan.classes, (6,))
    whole = plain(initial, 0)
    F.cross_entropy(whole(images), labels).backward()  # type: ignore[no-untyped-call]
    expected = [parameter.grad for parameter in whole[:cut].parameters()]

    prefix = plain(initial, 0)[:cut]
    activation = prefix(images)
    result = build(cut, feedback="gradient").train_step(activation.detach(), labels, cut, AT)
    assert result.feedback is not None
    activation.backward(codec.decode(result.feedback))
    actual = [parameter.grad for parameter in prefix.parameters()]
    assert len(actual) == len(expected) > 0
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("cut", CUTS)
def test_logits_feedback_is_what_the_suffix_answers_before_the_step(
    build: Callable[..., Suffix], make_batch: MakeBatch, initial: InitialModel, cut: int
) -> None:
    activation, labels = make_batch(cut, 0)
    result = build(cut, feedback="logits").train_step(activation, labels, cut, AT)
    assert result.feedback is not None
    torch.testing.assert_close(
        codec.decode(result.feedback), plain(initial, cut)(activation).detach()
    )


OFFSETS = torch.tensor([0.0, -1.0, -7.0])


@pytest.mark.parametrize("feedback", ["gradient", "logits"])
def test_the_loss_is_of_the_adjusted_logits_and_hits_and_logits_are_not(
    build: Callable[..., Suffix], make_batch: MakeBatch, initial: InitialModel, feedback: str
) -> None:
    activation, labels = make_batch(2, 0)
    entering = activation.clone().requires_grad_()
    layers = plain(initial, 2)
    logits = layers(entering)
    loss = F.cross_entropy(logits + OFFSETS, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    suffix = build(2, feedback=feedback, server_lr=0.1)
    result = suffix.train_step(activation, labels, 2, AT, OFFSETS)
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert result.correct == int((logits.argmax(dim=1) == labels).sum())
    expected = {"gradient": entering.grad, "logits": logits.detach()}[feedback]
    assert result.feedback is not None
    torch.testing.assert_close(codec.decode(result.feedback), expected)
    head = dict(layers[-1].named_parameters())["linear.bias"]
    assert head.grad is not None
    torch.testing.assert_close(suffix.states()[6]["linear.bias"], head.detach() - 0.1 * head.grad)


def test_predictions_are_not_adjusted(
    build: Callable[..., Suffix], make_batch: MakeBatch, initial: InitialModel
) -> None:
    suffix = build(2, server_lr=1e-30)
    activation, labels = make_batch(2, 0)
    suffix.train_step(activation, labels, 2, AT, OFFSETS)
    suffix.load(initial.weights)
    assert torch.equal(suffix.predict(activation, 2), build(2).predict(activation, 2))


@pytest.mark.parametrize("feedback", ["none", "gradient", "logits"])
def test_feedback_does_not_change_the_step(
    build: Callable[..., Suffix], make_batch: MakeBatch, feedback: str
) -> None:
    plainly, returning = build(2), build(2, feedback=feedback)
    for suffix in (plainly, returning):
        suffix.train_step(*make_batch(2, 0), 2, AT)
    first, second = plainly.states(), returning.states()
    assert all(equal(first, second, number) for number in first)


@pytest.mark.parametrize("feedback", ["gradient", "logits"])
def test_feedback_is_fp32_whatever_the_precision(
    plan: Plan, initial: InitialModel, make_batch: MakeBatch, feedback: str
) -> None:
    agreed = plan.model_copy(update={"feedback": feedback})
    suffix = Suffix(initial.fresh(2), agreed, Compute(precision="bf16"))
    result = suffix.train_step(*make_batch(2, 0), 2, AT)
    assert result.feedback is not None
    assert result.feedback.wire_dtype == agreed.wire
    assert suffix.predict(make_batch(2, 0)[0], 2).dtype is torch.float32


@pytest.mark.parametrize("feedback", ["none", "gradient"])
def test_a_step_leaves_the_senders_tensors_alone(
    build: Callable[..., Suffix], make_batch: MakeBatch, feedback: str
) -> None:
    activation, labels = make_batch(3, 0)
    activation = activation.to(memory_format=torch.channels_last)  # computed on without a copy
    before = activation.clone(), labels.clone()
    build(3, feedback=feedback).train_step(activation, labels, 3, AT)
    assert torch.equal(activation, before[0])
    assert torch.equal(labels, before[1])
    assert not activation.requires_grad


@pytest.mark.parametrize("cut", CUTS)
def test_predictions_are_probabilities_in_evaluation_mode(
    build: Callable[..., Suffix], make_batch: MakeBatch, initial: InitialModel, cut: int
) -> None:
    activation, _ = make_batch(cut, 0)
    suffix = build(1)
    before = suffix.states()
    actual = suffix.predict(activation, cut)
    with torch.no_grad():
        logits = plain(initial, cut).eval()(activation)
    torch.testing.assert_close(actual, logits.softmax(dim=1))
    after = suffix.states()
    assert all(equal(before, after, number) for number in before)


def test_training_goes_on_in_training_mode_after_a_prediction(
    build: Callable[..., Suffix], make_batch: MakeBatch
) -> None:
    interrupted, straight = build(2), build(2)
    interrupted.predict(make_batch(2, 9)[0], 2)
    for suffix in (interrupted, straight):
        suffix.train_step(*make_batch(2, 0), 2, AT)
    first, second = interrupted.states(), straight.states()
    assert all(equal(first, second, number) for number in first)
    assert int(first[3]["bn.num_batches_tracked"]) == 1


@pytest.mark.parametrize("largest", [65504.0, 1e20, 3e38])
@pytest.mark.parametrize("cut", [1, 5])
def test_no_finite_activation_makes_a_layer_infinite(
    build: Callable[..., Suffix], make_batch: MakeBatch, cut: int, largest: float
) -> None:
    suffix = build(cut)
    activation, labels = make_batch(cut, 0)
    before = suffix.states()
    try:
        suffix.train_step(activation / activation.max() * largest, labels, cut, AT)
    except RefusedInput:
        assert all(equal(before, suffix.states(), number) for number in before)
    for number, state in suffix.states().items():
        for name, value in state.items():
            assert torch.isfinite(value).all(), (number, name)


@pytest.mark.parametrize("beyond", [65536.0, -65536.0])
def test_a_prediction_takes_what_a_step_takes(
    build: Callable[..., Suffix], make_batch: MakeBatch, beyond: float
) -> None:
    suffix = build(2)
    activation, labels = make_batch(2, 0)
    activation[3, 1, 2, 0] = beyond
    for call in (
        lambda: suffix.predict(activation, 2),
        lambda: suffix.train_step(activation, labels, 2, AT),
    ):
        with pytest.raises(RefusedInput) as caught:
            call()
        assert str(caught.value) == (
            "an activation is beyond 65504: lower the client's learning rate"
        )


@pytest.mark.parametrize("clip", [0.0, 0.01])
@pytest.mark.parametrize("cut", CUTS)
def test_a_step_returns_the_size_of_its_gradient_and_of_its_activation(
    build: Callable[..., Suffix],
    make_batch: MakeBatch,
    initial: InitialModel,
    cut: int,
    clip: float,
) -> None:
    activation, labels = make_batch(cut, 0)
    activation[2] *= -7
    whole = plain(initial, cut)
    F.cross_entropy(whole(activation), labels).backward()  # type: ignore[no-untyped-call]
    squares = [
        float(p.grad.double().square().sum()) for p in whole.parameters() if p.grad is not None
    ]
    result = build(1, grad_clip=clip).train_step(activation, labels, cut, AT)
    assert result.gradient_norm == pytest.approx(sum(squares) ** 0.5, rel=1e-4)
    assert result.activation_peak == float(activation.abs().max())


def test_a_clipped_step_moves_the_weights_no_further_than_its_limit(
    build: Callable[..., Suffix], make_batch: MakeBatch
) -> None:
    """Noise at the head, behind the last BatchNorm, where nothing else makes it smaller."""
    suffix = build(5, grad_clip=2.0)
    activation, labels = make_batch(5, 0)
    before = suffix.states()
    result = suffix.train_step(1000 * activation, labels, 5, AT)
    after = suffix.states()
    moved = sum(float((after[6][name] - before[6][name]).square().sum()) for name in after[6])
    assert result.gradient_norm > 100
    assert moved**0.5 == pytest.approx(0.1 * 2.0, rel=1e-3)


@pytest.mark.parametrize("cut", CUTS)
def test_statistics_can_be_put_back_to_before_the_last_step(
    build: Callable[..., Suffix], make_batch: MakeBatch, cut: int
) -> None:
    suffix = build(1, momentum=0.9)
    suffix.train_step(*make_batch(1, 0), 1, AT)
    before = suffix.states()
    suffix.train_step(1000 * make_batch(cut, 1)[0], make_batch(cut, 1)[1], cut, AT)
    trained = suffix.states()
    suffix.forget_statistics()
    for number, state in suffix.states().items():
        for name, value in state.items():
            is_buffer = "running" in name or "tracked" in name
            expected = before if is_buffer else trained
            assert torch.equal(value, expected[number][name]), (number, name)


def test_a_prediction_from_before_the_first_layer_is_refused(
    build: Callable[..., Suffix], make_batch: MakeBatch
) -> None:
    with pytest.raises(RefusedInput) as caught:
        build(3).predict(make_batch(2, 0)[0], 2)
    assert str(caught.value) == "the server has no layer 3 yet: cut deeper"


def test_a_suffix_grows_downwards_and_trains_what_it_was_given(
    build: Callable[..., Suffix], make_batch: MakeBatch, initial: InitialModel
) -> None:
    grown, whole = build(3), build(1)
    fresh = initial.fresh(1)
    grown.extend({3: fresh[3], 2: fresh[2]})
    assert grown.first == whole.first == 2
    for suffix in (grown, whole):
        suffix.train_step(*make_batch(1, 0), 1, AT)
    first, second = grown.states(), whole.states()
    assert list(first) == list(second) == [2, 3, 4, 5, 6]
    assert all(equal(first, second, number) for number in first)


def test_states_are_copies_and_only_held_layers_are_loaded(
    build: Callable[..., Suffix], make_batch: MakeBatch
) -> None:
    trained, suffix = build(1), build(3)
    trained.train_step(*make_batch(1, 0), 1, AT)
    target, kept = trained.states(), suffix.states()
    before = copy.deepcopy(kept)
    suffix.load(Weights({number: target[number] for number in (2, 3, 5)}))
    loaded = suffix.states()
    assert list(loaded) == [4, 5, 6]
    assert [number for number in loaded if equal(loaded, target, number)] == [5]
    assert all(equal(kept, before, number) for number in before)

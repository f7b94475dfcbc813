"""Several clients' batches in one step, against plain autograd."""

from __future__ import annotations

import dataclasses
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
from hetero_common.tensors.aggregation import cross_layer_average
from hetero_common.tensors.weights import Weights
from hetero_server.learning.initial_model import InitialModel
from hetero_server.learning.step_outcome import StepOutcome
from hetero_server.learning.strategies import ClientBatch, FreshLayers, Surroundings, no_exits
from hetero_server.learning.strategies.mixed import MixedStrategy
from hetero_server.learning.suffix import Entry, Suffix
from hetero_server.run.member import Member
from hetero_server.run.orders import arrival, interleaved
from hetero_server.settings import StrategySettings
from server.run.test_orders import member, whole_round

MakeBatch = Callable[[int, int], tuple[Tensor, Tensor]]
AT = StepAt(0, 0, 2)
CUTS = {"far": 4, "near": 2, "next": 3, "beside": 2}
COPIED = {"far": [], "near": [3, 4], "next": [4], "beside": [3, 4]}
"""Which layers, and exits after them, the server holds for clients with these cuts."""


@pytest.fixture
def mixed(plan: Plan, initial: InitialModel, compute: Compute) -> MixedStrategy:
    return a_mixed(plan, initial, compute)


def a_mixed(
    plan: Plan, initial: InitialModel, compute: Compute, fresh_exits: FreshLayers = no_exits
) -> MixedStrategy:
    settings = StrategySettings()
    strategy = MixedStrategy(Surroundings(plan, compute, initial.fresh, fresh_exits, settings))
    for client_id, cut_layer in CUTS.items():
        strategy.add(client_id, cut_layer)
    return strategy


def batches_of(make_batch: MakeBatch, seed: int = 0) -> list[ClientBatch]:
    return [
        ClientBatch(client_id, *make_batch(cut_layer, seed + place), AT)
        for place, (client_id, cut_layer) in enumerate(CUTS.items())
    ]


def by_hand(initial: InitialModel, entries: list[Entry]) -> tuple[list[Tensor], nn.ModuleDict]:
    """Logits of each entry, joined where it enters; and the layers 2.. that have answered."""
    layers = nn.ModuleDict({str(k): layer.train() for k, layer in initial.fresh(1).items()})
    rows: list[int] = []
    joined = torch.empty(0)
    for number in range(2, 7):
        for index, entry in enumerate(entries):
            if entry.cut_layer == number - 1:
                rows += [index] * len(entry.labels)
                joined = torch.cat([joined, entry.activation]) if len(joined) else entry.activation
        joined = layers[str(number)](joined) if len(joined) else joined
    logits = [joined[torch.tensor(rows) == index] for index in range(len(entries))]
    return logits, layers


def moved(layers: nn.ModuleDict, rate: float) -> dict[str, Tensor]:
    """All parameters after a step of plain gradient descent."""
    return {
        f"{k}.{name}": parameter.detach() - rate * parameter.grad
        for k, layer in layers.items()
        for name, parameter in layer.named_parameters()
        if parameter.grad is not None
    }


def require_trained(suffix: Suffix, expected: dict[str, Tensor], layers: nn.ModuleDict) -> None:
    trained = {
        f"{k}.{name}": t for k, state in suffix.states().items() for name, t in state.items()
    }
    buffers = {f"{k}.{name}": b for k, m in layers.items() for name, b in m.named_buffers()}
    for name, tensor in (expected | buffers).items():
        torch.testing.assert_close(trained[name], tensor)


@pytest.mark.parametrize("feedback", ["none", "gradient", "logits"])
def test_a_joint_step_is_one_step_on_the_mean_over_all_images(
    plan: Plan, initial: InitialModel, compute: Compute, make_batch: MakeBatch, feedback: str
) -> None:
    plan = plan.model_copy(update={"feedback": feedback, "momentum": 0.0, "weight_decay": 0.0})
    suffix = Suffix(initial.fresh(1), plan, compute)
    entries = [Entry.of(*make_batch(cut, cut), cut) for cut in (4, 1, 3, 1)]
    entries[2] = Entry.of(entries[2].activation[:3], entries[2].labels[:3], 3)
    for entry in entries:
        entry.activation.requires_grad_()
    logits, layers = by_hand(initial, entries)
    labels = torch.cat([entry.labels for entry in entries])
    F.cross_entropy(torch.cat(logits), labels).backward()  # type: ignore[no-untyped-call]
    expected = moved(layers, plan.learning_rate(plan.server_lr, AT))
    given = [Entry.of(e.activation.detach(), e.labels, e.cut_layer) for e in entries]
    results = suffix.train_together(given, AT)
    require_trained(suffix, expected, layers)
    for entry, own, result in zip(entries, logits, results, strict=True):
        assert result.loss == pytest.approx(
            float(F.cross_entropy(own.detach(), entry.labels)), rel=1e-4
        )
        assert result.correct == int((own.argmax(dim=1) == entry.labels).sum())
        assert result.activation_peak == pytest.approx(float(entry.activation.detach().abs().max()))
        if feedback == "logits":
            assert result.feedback is not None
            torch.testing.assert_close(codec.decode(result.feedback), own.detach())
        if feedback == "gradient":  # of the entry's own mean loss, not of the joint one
            assert entry.activation.grad is not None
            own_mean = entry.activation.grad * (len(labels) / len(entry.labels))
            assert result.feedback is not None
            torch.testing.assert_close(codec.decode(result.feedback), own_mean)
    assert len({result.gradient_norm for result in results}) == 1


@pytest.mark.parametrize("feedback", ["gradient", "logits"])
def test_each_entry_of_a_joint_step_is_adjusted_by_its_own_offsets(
    plan: Plan, initial: InitialModel, compute: Compute, make_batch: MakeBatch, feedback: str
) -> None:
    plan = plan.model_copy(update={"feedback": feedback, "momentum": 0.0, "weight_decay": 0.0})
    offsets = [torch.tensor([0.0, -1.0, -7.0]), None, torch.tensor([-3.0, 0.5, 0.0])]
    entries = [
        Entry.of(*make_batch(cut, cut), cut, own)
        for cut, own in zip((4, 1, 3), offsets, strict=True)
    ]
    entries[1] = Entry.of(entries[1].activation[:3], entries[1].labels[:3], 1)
    for entry in entries:
        entry.activation.requires_grad_()
    logits, layers = by_hand(initial, entries)
    own_losses = [
        F.cross_entropy(own if e.offsets is None else own + e.offsets, e.labels)
        for e, own in zip(entries, logits, strict=True)
    ]
    rows = [len(entry.labels) for entry in entries]
    joint = torch.stack(own_losses).dot(torch.tensor(rows) / sum(rows))
    joint.backward()  # type: ignore[no-untyped-call]
    suffix = Suffix(initial.fresh(1), plan, compute)
    given = [Entry.of(e.activation.detach(), e.labels, e.cut_layer, e.offsets) for e in entries]
    results = suffix.train_together(given, AT)
    require_trained(suffix, moved(layers, plan.learning_rate(plan.server_lr, AT)), layers)
    for entry, loss, own, result in zip(entries, own_losses, logits, results, strict=True):
        assert result.loss == pytest.approx(float(loss.detach()), rel=1e-4)
        assert result.correct == int((own.argmax(dim=1) == entry.labels).sum())
        if feedback == "logits":
            assert result.feedback is not None
            torch.testing.assert_close(codec.decode(result.feedback), own.detach())
        else:
            assert entry.activation.grad is not None
            own_mean = entry.activation.grad * (sum(rows) / len(entry.labels))
            assert result.feedback is not None
            torch.testing.assert_close(codec.decode(result.feedback), own_mean)


def test_a_step_takes_the_offsets_of_each_client(
    plan: Plan, initial: InitialModel, compute: Compute, make_batch: MakeBatch
) -> None:
    batches = batches_of(make_batch)
    own = dataclasses.replace(batches[1], offsets=torch.tensor([0.0, -1.0, -7.0]))
    (plain, adjusted) = (
        a_mixed(plan, initial, compute).step(each)
        for each in (batches, [batches[0], own, *batches[2:]])
    )
    same = [one == other for one, other in zip(losses(plain), losses(adjusted), strict=True)]
    assert same == [True, False, True, True]


def losses(results: list[StepOutcome | RefusedInput]) -> list[float]:
    return [result.loss for result in results if isinstance(result, StepOutcome)]


def test_one_batch_alone_is_a_step_of_sequential_bit_for_bit(
    mixed: MixedStrategy, plan: Plan, initial: InitialModel, compute: Compute, make_batch: MakeBatch
) -> None:
    suffix = Suffix(initial.fresh(1), plan, compute)
    for seed in range(3):
        (own,) = mixed.step([ClientBatch("near", *make_batch(2, seed), AT)])
        assert own == suffix.train_step(*make_batch(2, seed), 2, AT)
    for number, state in mixed.layers().items():
        assert all(torch.equal(t, suffix.states()[number][name]) for name, t in state.items())


def test_it_makes_no_difference_in_which_order_batches_of_different_cuts_come(
    plan: Plan, initial: InitialModel, compute: Compute, make_batch: MakeBatch
) -> None:
    batches = [b for b in batches_of(make_batch) if b.client_id != "beside"]
    ends = []
    for order in (batches, batches[::-1]):
        strategy = a_mixed(plan, initial, compute)
        strategy.step(order)
        ends.append(strategy.layers())
    for number, state in ends[0].items():
        assert all(torch.equal(tensor, ends[1][number][name]) for name, tensor in state.items())


def test_a_refused_batch_does_not_keep_the_others_from_their_step(
    mixed: MixedStrategy, plan: Plan, initial: InitialModel, compute: Compute, make_batch: MakeBatch
) -> None:
    batches = batches_of(make_batch)
    bad = ClientBatch("next", batches[2].activation * 1e9, batches[2].labels, AT)
    results = mixed.step([*batches[:2], bad, batches[3]])
    assert [isinstance(result, RefusedInput) for result in results] == [False, False, True, False]
    others = a_mixed(plan, initial, compute)
    assert others.step([*batches[:2], batches[3]]) == [*results[:2], results[3]]
    assert all(isinstance(result, RefusedInput) for result in mixed.step([bad]))


def test_a_step_without_a_finite_outcome_is_taken_apart(
    mixed: MixedStrategy, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose batch it is shows then, and the statistics have not seen it."""
    poison = F.cross_entropy
    batches = batches_of(make_batch)

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        value = poison(logits, targets)
        bad = torch.equal(targets[-len(batches[0].labels) :], batches[0].labels)
        return value * torch.inf if bad and logits.requires_grad else value

    monkeypatch.setattr(F, "cross_entropy", loss)
    results = mixed.step(batches)
    assert isinstance(results[0], RefusedInput)
    assert all(isinstance(result, StepOutcome) for result in results[1:])
    tracked = {
        int(tensor)
        for state in mixed.layers().values()
        for name, tensor in state.items()
        if name.endswith("num_batches_tracked")
    }
    assert max(tracked) <= len(batches), "the joint step that failed is not among them"


def test_copies_of_one_layer_are_kept_together(mixed: MixedStrategy, make_batch: MakeBatch) -> None:
    mixed.step(batches_of(make_batch))
    shared = mixed.layers()
    copies = mixed.copies(0, last=False)
    assert {who: sorted(held.layers) for who, held in copies.items()} == COPIED
    client = {3: {name: torch.zeros_like(t) for name, t in shared[3].items()}}
    averaged = cross_layer_average(
        [copies["near"].layers, copies["beside"].layers, client], [1.0, 1.0, 2.0]
    )
    mixed.adopt(Weights(averaged))
    after = mixed.layers()
    for name, tensor in shared[3].items():
        if tensor.is_floating_point() and not name.endswith("running_var"):
            torch.testing.assert_close(after[3][name], tensor / 2)
    for number in (4, 5, 6):
        assert all(torch.equal(t, after[number][name]) for name, t in shared[number].items())


def test_without_client_aggregation_the_server_keeps_its_own(
    plan: Plan, initial: InitialModel, compute: Compute
) -> None:
    plan = plan.model_copy(update={"client_aggregation": "none"})
    assert a_mixed(plan, initial, compute).copies(0, last=True) == {}


# Exits on the server too.


LISTED = {"exits": "3,4,5", "exit_head": "conv", "momentum": 0.0, "weight_decay": 0.0}


def test_exits_learn_from_all_that_has_passed_their_layer(
    plan: Plan, compute: Compute, make_batch: MakeBatch
) -> None:
    """By the mean over it: the one of 4 from three entries, of 3 from two, of 5 from none."""
    plan = plan.model_copy(update=LISTED | {"exit_weight": 0.5})
    initial = InitialModel(plan)
    suffix = Suffix({}, plan, compute)
    suffix.extend(initial.fresh(1), initial.fresh_exits(1))
    entries = [Entry.of(*make_batch(cut, cut), cut) for cut in (3, 1, 2, 4)]
    layers = nn.ModuleDict({str(k): layer.train() for k, layer in initial.fresh(1).items()})
    heads = nn.ModuleDict({str(k): head.train() for k, head in initial.fresh_exits(1).items()})
    passed: dict[int, Tensor] = {}
    joined = torch.empty(0)
    for number in range(2, 7):
        new = [entry.activation for entry in entries if entry.cut_layer == number - 1]
        joined = layers[str(number)](torch.cat([joined, *new] if len(joined) else new))
        passed[number] = joined
    by_depth = sorted(entries, key=lambda entry: entry.cut_layer)
    labels = torch.cat([entry.labels for entry in by_depth])
    loss = F.cross_entropy(joined, labels)
    objective = loss
    for number in (3, 4):
        answers = heads[str(number)](passed[number])
        objective = objective + 0.5 * F.cross_entropy(answers, labels[: len(answers)])
    objective.backward()  # type: ignore[no-untyped-call]
    rate = plan.learning_rate(plan.server_lr, AT)
    expected, expected_exits = moved(layers, rate), moved(heads, rate)
    results = suffix.train_together(entries, AT, deepest=4)
    require_trained(suffix, expected, layers)
    rows = [len(entry.labels) for entry in entries]
    mean = sum(r.loss * n for r, n in zip(results, rows, strict=True)) / sum(rows)
    assert mean == pytest.approx(float(loss.detach()), rel=1e-4), "exits have no part in it"
    exits = suffix.weights().exits
    assert sorted(exits) == [3, 4, 5]
    for number, state in exits.items():
        for name, tensor in state.items():
            before = initial.weights.exits[number][name]
            wanted = expected_exits.get(f"{number}.{name}", before)
            if name in dict(heads[str(number)].named_parameters()):
                torch.testing.assert_close(tensor, wanted)
            elif number == 5:
                assert torch.equal(tensor, before), "its statistics are left alone too"


@pytest.fixture
def teaching(plan: Plan, compute: Compute) -> MixedStrategy:
    """Mixed with exits; the deepest client is cut after layer 4."""
    plan = plan.model_copy(update=LISTED)
    initial = InitialModel(plan)
    return a_mixed(plan, initial, compute, initial.fresh_exits)


def test_exits_take_part_in_the_averages_in_the_place_of_who_is_cut_before(
    teaching: MixedStrategy, make_batch: MakeBatch
) -> None:
    teaching.step(batches_of(make_batch))
    copies = teaching.copies(0, last=False)
    assert {who: sorted(held.exits) for who, held in copies.items()} == COPIED
    averaged = {4: {name: torch.zeros_like(t) for name, t in copies["next"].exits[4].items()}}
    teaching.adopt(Weights({}, averaged))
    assert not any(bool(t.any()) for t in teaching.copies(0, last=False)["near"].exits[4].values())


def test_exits_go_on_where_a_checkpoint_has_them(
    plan: Plan, compute: Compute, teaching: MixedStrategy, make_batch: MakeBatch
) -> None:
    teaching.step(batches_of(make_batch))
    plan = plan.model_copy(update=LISTED)
    initial = InitialModel(plan)
    settings = StrategySettings()
    around = Surroundings(plan, compute, initial.fresh, initial.fresh_exits, settings)
    other = MixedStrategy(around)
    for client_id, cut_layer in reversed(CUTS.items()):
        other.add(client_id, cut_layer)
    other.restore(teaching.checkpoint())
    for strategy in (teaching, other):
        strategy.step(batches_of(make_batch, seed=9))
    ours, theirs = teaching.checkpoint(), other.checkpoint()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert any(name.startswith("weights/exits.4.") for name in ours)


# Whose batches are mixed.


def test_everybodys_next_batch_makes_up_a_step() -> None:
    members = [member("a", 2, 0), member("b", 3), member("c", 1, 1)]
    assert {held.client_id for held in interleaved(members, 0, 0)} == {"a", "b", "c"}
    for held in members:
        held.progress.applied_steps.append(0)
    assert {held.client_id for held in interleaved(members, 0, 0)} == {"a", "b"}
    steps = [step for _, step in whole_round(interleaved, {"a": 2, "b": 3, "c": 1})]
    assert steps == [0, 0, 0, 1, 1, 2]


def test_or_whatever_is_here_so_that_nobody_waits_for_the_slowest() -> None:
    members: list[Member] = [member("a", 2, 4, 5), member("b", 2), member("c", 2, 1)]
    assert [held.client_id for held in arrival(members, 0, 0)] == ["c", "a"]
    assert arrival(members[1:2], 0, 0) == []

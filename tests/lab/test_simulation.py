"""The simulator: the method as a whole, without sockets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from torch import nn

from hetero_client.data.shard import Shard, load_shard, load_test
from hetero_client.device_model import DeviceModel
from hetero_client.exits.rule import DEFAULT_RULE
from hetero_client.training.trainer import PrefixTrainer
from hetero_common.agreement.plan import Plan
from hetero_common.compute.augmentation import augment
from hetero_common.compute.device import Compute
from hetero_common.compute.sampling import batch_indices
from hetero_common.compute.seeding import derive_seed
from hetero_common.models import normalization
from hetero_common.records.history import read_records
from hetero_common.records.rundir import MODEL_FILE
from hetero_common.settings import load
from hetero_common.tensors.weights import Weights, layer_states, numbered, read_file
from hetero_lab.__main__ import main
from hetero_lab.settings import SimulationSettings
from hetero_lab.simulation import InNoFile, SimulatedClient, simulate
from hetero_server.build import build_engine
from hetero_server.learning.initial_model import InitialModel
from hetero_server.run.engine import Engine

Simulate = Callable[..., Path]

SMALL = (
    *("--dataset", "digits", "--normalization", "digits", "--image-size", "8"),
    *("--model", "tinycnn", "--width", "4", "--batch-size", "8", "--eval-samples", "50"),
    *("--rounds", "2", "--steps-per-round", "5", "--cut-layers", "2,3,4"),
)
"""Later flags win over earlier ones."""


def settings_of(*flags: str) -> SimulationSettings:
    return load(SimulationSettings, [*SMALL, *flags], "hetero-sim")


def bits(path: Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in load_file(path).items()}


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    """Without what the clock has written."""
    clock = ("time", "seconds")
    return [
        {name: value for name, value in event.items() if name not in clock}
        for event in read_records(run)
        if event["event"] == kind
    ]


def weight_files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("*.safetensors")}


# --- split training is training -------------------------------------------------------------------


def train_undivided(plan: Plan, train: Shard, name: str) -> nn.Sequential:
    """The whole model in one plain loop, on the batches of the client of this name."""
    initial = InitialModel(plan)
    model = nn.Sequential(*initial.fresh(0).values())
    Compute().adopt(model)
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() > 1]},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0},
    ]
    optimizer = torch.optim.SGD(
        groups,
        momentum=plan.momentum,
        nesterov=plan.momentum > 0,
        weight_decay=plan.weight_decay,
    )
    steps = plan.steps_per_round
    for round_, step in itertools.product(range(plan.rounds), range(steps)):
        progress = (round_ + step / steps) / plan.rounds
        for group in optimizer.param_groups:
            group["lr"] = plan.server_lr * 0.5 * (1 + math.cos(math.pi * progress))
        chosen = torch.from_numpy(
            batch_indices(
                len(train.labels), plan.batch_size, round_ * steps + step, plan.seed, name
            )
        )
        seed = derive_seed(plan.seed, "augment", name, round_, step)
        images = augment(train.images[chosen], plan.augment, seed)
        inputs = normalization.parse(plan.normalization).apply(images)
        logits = model(inputs.contiguous(memory_format=torch.channels_last))
        optimizer.zero_grad()
        F.cross_entropy(logits, train.labels[chosen]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model


def assert_same_layers(run: Path, model: nn.Sequential) -> None:
    """Bit for bit: the split changes who computes, not what."""
    trained, _ = read_file(run / MODEL_FILE)
    assert Weights(trained.layers).to_bytes() == Weights(layer_states(numbered(model))).to_bytes()


FIFTY_STEPS = (
    *("--rounds", "5", "--steps-per-round", "10", "--client-lr", "0.05", "--server-lr", "0.05"),
)


@pytest.mark.parametrize(
    ("model", "cut", "momentum", "strategy"),
    [
        ("tinycnn", "1", "0", "sequential"),
        ("tinycnn", "5", "0.9", "averaging"),
        ("resnet18", "4", "0.9", "sequential"),
    ],
)
def test_one_client_with_gradient_feedback_alone_is_centralized_training(
    simulate: Simulate, model: str, cut: str, momentum: str, strategy: str
) -> None:
    flags = (
        *(*FIFTY_STEPS, "--clients", "1", "--cut-layers", cut, "--model", model),
        *("--momentum", momentum, "--strategy", strategy, "--wire", "fp32"),
        *("--feedback", "gradient", "--exit-weight", "0", "--client-aggregation", "none"),
        *("--grad-clip", "0"),  # which limits each side's part of the gradient by itself
    )
    settings = settings_of(*flags)
    reference = train_undivided(settings.plan(), load_shard(settings, settings, 0, 1), "client-1")
    assert_same_layers(simulate(*SMALL, *flags), reference)


def test_centralized_training_is_the_plain_loop(simulate: Simulate) -> None:
    settings = settings_of(*FIFTY_STEPS)
    plan, train = settings.plan(), load_shard(settings, settings, 0, 1)
    # Three clients' steps in each round.
    reference = train_undivided(
        plan.model_copy(update={"steps_per_round": 30}), train, "centralized"
    )
    run = simulate(*SMALL, *FIFTY_STEPS, "--method", "centralized", "--clients", "3")
    assert_same_layers(run, reference)


def test_with_one_client_both_strategies_are_equal_bit_for_bit(simulate: Simulate) -> None:
    """... and aggregation changes nothing: the average of one copy is that copy.

    Without it, weights are pushed after the last round only, and have moved since the first.
    """
    moved, carried = ("update_norm", "buffers_norm"), ("bytes_pushed", "bytes_pulled")
    first, *others = (
        simulate(
            *(*SMALL, "--clients", "1", "--strategy", strategy),
            *("--client-aggregation", aggregation, "--weights-wire", "fp32"),
        )
        for strategy in ("sequential", "averaging")
        for aggregation in ("none", "round")
    )
    assert weight_files(first).keys() == {MODEL_FILE, "client-1.safetensors"}
    for other in others:
        assert weight_files(other) == weight_files(first)
        for kind in ("round", "evaluation"):
            theirs, ours = events(other, kind), events(first, kind)
            for event in (*theirs, *ours):
                assert kind == "evaluation" or all(event.pop(name, 0) != 0 for name in moved)
                assert all(event.pop(name) >= 0 for name in carried)
            assert theirs == ours != []


BASELINE = ("--strategy", "sequential", "--client-aggregation", "none", "--wire", "fp32")


@pytest.fixture(scope="module")
def baseline(simulate: Simulate) -> Path:
    """A run that others are compared with."""
    return simulate(*SMALL, *BASELINE)


# --- determinism ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        ("--strategy", "sequential"),
        ("--strategy", "sequential", "--order", "relay"),
        ("--strategy", "averaging"),
        (),
    ],
    ids=["interleaved", "relay", "averaging", "defaults"],
)
def test_a_run_is_a_function_of_its_settings(simulate: Simulate, flags: tuple[str, ...]) -> None:
    first, again = simulate(*SMALL, *flags), simulate(*SMALL, *flags)
    assert weight_files(first) == weight_files(again)
    assert len(weight_files(first)) == 4
    for kind in ("joined", "round", "evaluation", "left", "finished"):
        assert events(first, kind) == events(again, kind) != []


@pytest.mark.parametrize("change", [("--seed", "1"), ("--order", "relay"), ("--augment", "none")])
def test_another_seed_order_or_recipe_is_another_run(
    simulate: Simulate, baseline: Path, change: tuple[str, ...]
) -> None:
    changed = simulate(*SMALL, *BASELINE, *change)
    assert bits(changed / MODEL_FILE) != bits(baseline / MODEL_FILE)


def dropout_model(num_classes: int) -> nn.Sequential:
    """Draws random numbers on both sides of every cut."""
    widths = itertools.pairwise((3 * 8 * 8, 16, 16, 16, 16))
    hidden = [nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Dropout(0.3)) for a, b in widths]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(16, num_classes))


def run_registering_in(order: Sequence[int], *flags: str) -> tuple[Engine, dict[str, Weights]]:
    """A simulated run whose clients come in this order, and their weights by id."""
    settings = settings_of(*flags)
    plan, compute = settings.plan(), Compute()
    engine = build_engine(
        InitialModel(plan),
        settings,
        compute,
        clients=settings.clients,
        observe=lambda event: None,
    )
    test = load_test(settings.dataset, settings.data_dir, plan)
    clients = []
    for index in order:
        name, cut_layer = f"client-{index + 1}", settings.cuts()[index]
        shard = load_shard(settings, plan, index, settings.clients)
        model, count = DeviceModel(plan, cut_layer, compute), len(shard.labels)
        trainer = PrefixTrainer(plan, name, model, shard, plan.steps_for(count))
        clients.append(SimulatedClient(name, trainer, count, test, DEFAULT_RULE, 50, InNoFile()))
    simulate(engine, "run", clients)
    return engine, {client.client_id: client.trainer.model.weights() for client in clients}


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--strategy", "sequential"),
        ("--strategy", "sequential", "--feedback", "gradient", "--grad-clip", "0.5"),
        ("--strategy", "sequential", "--order", "relay", "--grad-clip", "0.5", "--rounds", "4"),
        ("--strategy", "averaging", "--partition", "dirichlet", "--grad-clip", "0.5"),
        ("--strategy", "sequential", "--model", f"{__name__}:dropout_model"),
    ],
    ids=["defaults", "interleaved", "gradient", "relay", "averaging", "dropout"],
)
def test_it_makes_no_difference_in_which_order_clients_come(flags: tuple[str, ...]) -> None:
    """Networked clients register in any order; their run must equal the simulated one."""
    engine, weights = run_registering_in((0, 1, 2), *flags)
    other_engine, other_weights = run_registering_in((2, 0, 1), *flags)
    assert engine.model is not None and other_engine.model is not None
    assert other_engine.model.to_bytes() == engine.model.to_bytes()
    for name in weights:
        assert other_weights[name].to_bytes() == weights[name].to_bytes()


# --- what may differ between clients --------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "strategy"),
    [("arrival", "averaging"), ("interleaved", "sequential"), ("relay", "sequential")],
)
def test_one_pass_over_shards_of_unequal_size(
    simulate: Simulate, order: str, strategy: str
) -> None:
    flags = (
        *("--partition", "dirichlet", "--alpha", "0.3", "--steps-per-round", "0"),
        *("--batch-size", "64", "--order", order, "--strategy", strategy),
    )
    run = simulate(*SMALL, *flags)
    sizes = {event["client"]: event["shard_size"] for event in events(run, "joined")}
    steps = {client: max(1, size // 64) for client, size in sizes.items()}
    assert len(set(steps.values())) > 1
    assert sum(sizes.values()) == 1433
    rounds = events(run, "round")
    assert [(e["round"], e["client"], e["samples"]) for e in rounds] == [
        (round_, client, min(64, sizes[client]) * steps[client])
        for round_ in range(2)
        for client in sizes
    ]


def test_more_clients_than_cut_layers_share_them_in_turn(simulate: Simulate) -> None:
    run = simulate(*SMALL, "--clients", "5", "--cut-layers", "2,4", "--exits", "last")
    assert [e["cut_layer"] for e in events(run, "joined")] == [2, 4, 2, 4, 2]
    whole = load_file(run / MODEL_FILE)
    assert {name.split(".")[1] for name in whole if name.startswith("layers")} == set("123456")
    assert {name.split(".")[1] for name in whole if name.startswith("exits")} == set("24")
    with_cut_2 = [bits(run / f"client-{n}.safetensors") for n in (1, 3, 5)]
    assert with_cut_2[0] == with_cut_2[1] == with_cut_2[2], "they share what they have averaged"


@pytest.mark.parametrize("wire", ["bf16", "int8"])
def test_a_narrow_wire_changes_what_the_server_learns_and_nothing_on_the_client(
    simulate: Simulate, baseline: Path, wire: str
) -> None:
    full, narrow = baseline, simulate(*SMALL, *BASELINE, "--wire", wire)
    for number in (1, 2, 3):
        client = f"client-{number}.safetensors"
        assert bits(full / client) == bits(narrow / client)
    whole, other = load_file(full / MODEL_FILE), load_file(narrow / MODEL_FILE)
    differ = {name.split(".")[1] for name in whole if (whole[name] != other[name]).any()}
    assert differ == {"3", "4", "5", "6"}, "the server's layers, and only those"
    item_bytes = {"bf16": 2, "int8": 1}[wire]
    for at_full, at_narrow in zip(events(full, "round"), events(narrow, "round"), strict=True):
        assert at_narrow["bytes_received"] * 4 == at_full["bytes_received"] * item_bytes


@pytest.mark.parametrize("feedback", ["gradient", "logits"])
def test_feedback_reaches_the_clients(simulate: Simulate, baseline: Path, feedback: str) -> None:
    run = simulate(*SMALL, *BASELINE, "--feedback", feedback)
    for number in (1, 2, 3):
        client = f"client-{number}.safetensors"
        assert bits(run / client) != bits(baseline / client)


# --- learning -------------------------------------------------------------------------------------

LEARNING = (
    *("--width", "8", "--batch-size", "16", "--rounds", "15", "--steps-per-round", "4"),
    *("--client-lr", "0.2", "--server-lr", "0.2", "--augment", "none"),
)
"""Without flips: a mirrored digit is another sign."""


def test_centralized_training_learns(simulate: Simulate) -> None:
    run = simulate(*SMALL, *LEARNING, "--method", "centralized")
    rounds, (evaluation,) = events(run, "round"), events(run, "evaluation")
    assert [e["samples"] for e in rounds] == [3 * 4 * 16 * (r + 1) for r in range(15)]
    assert rounds[-1]["loss"] < 0.3 * rounds[0]["loss"]
    assert (evaluation["round"], evaluation["samples"]) == (14, 364)
    assert evaluation["accuracy"] > 0.85


@pytest.mark.parametrize("strategy", ["sequential", "averaging"])
def test_split_training_learns_on_both_sides(simulate: Simulate, strategy: str) -> None:
    flags = ("--strategy", strategy, "--order", "interleaved", "--eval-every", "5")
    run = simulate(*SMALL, *LEARNING, *flags, "--exit-head", "conv", "--wire", "fp32")
    evaluations = events(run, "evaluation")
    assert [(e["round"], e["samples"]) for e in evaluations] == [
        *([(4, 50)] * 3 + [(9, 50)] * 3 + [(14, 364)] * 3)
    ]
    for evaluation in evaluations[6:]:
        assert evaluation["server_accuracy"] > 0.65
        assert evaluation["exit_accuracy"] > 0.25, "well above chance, after two layers"


def test_a_client_whose_training_explodes_ends_the_run_with_a_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*SMALL, "--client-lr", "1e30", "--run-dir", str(tmp_path)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "hetero-sim: the exit's loss on this batch holds NaN or infinity: lower the"
    )

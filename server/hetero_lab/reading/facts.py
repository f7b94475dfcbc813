"""What was run, in words: the header of a report, and what tells runs apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone

from hetero_client.data.settings import DataSettings
from hetero_client.exits.settings import ExitSettings
from hetero_lab.method import METHODS
from hetero_lab.reading.run import Run, Source
from hetero_server.learning.strategies import STRATEGIES
from hetero_server.settings import StrategySettings

OF_EACH_RUN = ("Rounds", "Seed", "Started", "Took")
"""Headings of what differs between repetitions of an experiment."""
_NO_EXPERIMENT = frozenset({"data_dir", "eval_samples", "preset"})
"""Strategy and data settings that make no other experiment; a preset is in those that it sets."""


def title(method: str) -> str:
    """Return what a method does, in a few words."""
    if method == "client":
        return "Split training, as one client has recorded it"
    if method in METHODS.names():
        summary = METHODS.entry(method).summary
        return f"{summary[0].upper()}{summary[1:]} ({method})"
    if method in STRATEGIES.names():
        return f"Split training, {STRATEGIES.entry(method).summary} ({method})"
    return method


def _minds_order(method: str) -> bool:
    is_known = method in STRATEGIES.names()
    return is_known and bool(getattr(STRATEGIES[method], "minds_order", True))


def facts(run: Run) -> dict[str, str]:
    """Everything about a run that its reader may ask for, by headings."""
    plan = run.plan
    is_divided = run.about.has_server
    told = {
        "Method": title(run.method),
        "Model": f"{plan.model}, width {plan.width}, {plan.stem} stem",
        "Input": f"{plan.image_size} x {plan.image_size} pixels, {plan.classes} classes",
        "Data": _data(run),
        "Augmentation": plan.augment,
        "Clients": _clients(run),
        "Cut layers": _cuts(run),
        "Order": str(run.settings.get("order", "")) if _minds_order(run.method) else "",
        "Rounds": _rounds(run),
        "Steps": f"{_steps(plan.steps_per_round)}, batches of {plan.batch_size}",
        "Optimizer": _optimizer(run),
        "Exits": _exits(run),
        "Logit adjustment": f"{plan.logit_adjustment:g}" if plan.logit_adjustment else "",
        "Feedback": plan.feedback if is_divided else "",
        "Client aggregation": plan.client_aggregation if is_divided else "",
        "Wire": f"{plan.wire} activations, {plan.push_dtype} weights" if is_divided else "",
        "Arithmetic": plan.precision,
        "Seed": str(plan.seed),
        "Recorded by": run.source.value,
        "Versions": ", ".join(f"{name} {number}" for name, number in run.versions.items()),
        "Started": f"{datetime.fromtimestamp(run.started, timezone.utc):%Y-%m-%d %H:%M:%S} UTC",
        "Took": str(timedelta(seconds=round(run.seconds))),
    }
    return {heading: text for heading, text in told.items() if text}


def common(runs: Sequence[Run]) -> dict[str, str]:
    """Return what holds for all runs, beside what each run has of its own."""
    each = [facts(run) for run in runs]
    shared = {h: text for h, text in each[0].items() if all(told.get(h) == text for told in each)}
    return {heading: text for heading, text in shared.items() if heading not in OF_EACH_RUN}


def setup(run: Run) -> Mapping[str, str]:
    """Return what makes a run another one, apart from its seed."""
    agreed = {name: str(value) for name, value in run.plan if name != "seed"}
    models = (StrategySettings, DataSettings, ExitSettings)
    names = dict.fromkeys(name for model in models for name in model.model_fields)
    given = {
        name: str(run.settings[name])
        for name in names
        if name in run.settings and name not in _NO_EXPERIMENT
    }
    return agreed | given | {"clients": _clients(run), "cut_layers": _cuts(run)}


def _clients(run: Run) -> str:
    if run.source is Source.CLIENT:
        return ""
    if run.has_clients:
        return str(len(run.participants))
    return str(run.settings.get("clients", ""))


def _cuts(run: Run) -> str:
    """`3, 4, 5`, or `3 (34 clients), 4 (33 clients)` where some share one."""
    counts = Counter(p.cut_layer for p in run.participants if p.cut_layer is not None)
    if all(count == 1 for count in counts.values()):
        return ", ".join(str(cut) for cut in sorted(counts))
    named = {cut: f"{count} client{'s' if count > 1 else ''}" for cut, count in counts.items()}
    return ", ".join(f"{cut} ({named[cut]})" for cut in sorted(counts))


def _data(run: Run) -> str:
    settings = run.settings
    if "dataset" not in settings:
        return f"known to the clients alone; normalized as {run.plan.normalization}"
    dealt = str(settings.get("partition", "iid"))
    if dealt == "dirichlet":
        dealt += f", alpha {settings.get('alpha')}"
    for name in ("size_spread", "cut_skew", "validation"):
        if settings.get(name):
            dealt += f", {name.replace('_', ' ')} {settings[name]}"
    return f"{settings['dataset']}, dealt out {dealt}"


def _rounds(run: Run) -> str:
    planned = run.plan.rounds
    if run.is_finished:
        return str(planned)
    return f"{run.rounds} of {planned}, not finished"


def _steps(steps_per_round: int) -> str:
    return f"{steps_per_round} a round" if steps_per_round else "one pass over the data a round"


def _optimizer(run: Run) -> str:
    plan = run.plan
    rates = f"{plan.client_lr:g} on clients, {plan.server_lr:g} on the server"
    if not run.has_clients:
        rates = f"{plan.server_lr:g}"
    return f"{plan.optimizer}, learning rate {rates}, {plan.lr_schedule}"


def _exits(run: Run) -> str:
    plan = run.plan
    if not run.about.has_exits:
        return ""
    if plan.exit_weight == 0:
        return "not trained"
    return f"{plan.exits}, {plan.exit_head} head"

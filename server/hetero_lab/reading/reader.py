"""A run directory as a `Run`: checked, and free of what this version does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hetero_common.agreement.plan import Plan
from hetero_common.errors import HeteroError, SettingsError
from hetero_common.records.events import (
    DeviceEvaluated,
    DeviceFinished,
    DeviceJoined,
    DeviceRound,
    Evaluated,
    Event,
    Finished,
    Joined,
    Resumed,
    RoundClosed,
    Started,
)
from hetero_common.records.history import Recorded, last_run, read_history
from hetero_common.records.rundir import METRICS_FILE, SETTINGS_FILE, read_plan
from hetero_lab.reading.incidents import read_incidents
from hetero_lab.reading.participants import read_participants
from hetero_lab.reading.run import Participant, Run, Source


def read_run(directory: Path) -> Run:
    """Return what a run directory holds of its last run, which may still be going on.

    Raises:
        HeteroError: It is no run directory, or it is damaged; one sentence.
    """
    try:
        plan = read_plan(directory)
        recorded = last_run(read_history(directory).whole())
    except SettingsError as error:
        raise HeteroError(str(error)) from None
    settings = _read_settings(directory)
    if not recorded:
        raise HeteroError(f"{directory / METRICS_FILE} is empty: wait for the end of a round")
    try:
        run = run_from("/".join(directory.resolve().parts[-2:]), plan, settings, recorded)
    except (ValueError, KeyError, TypeError):
        raise HeteroError(
            f"{directory / METRICS_FILE} is damaged: an event lacks what docs/runs.md says it has"
        ) from None
    if not any(participant.training or participant.tests for participant in run.participants):
        raise HeteroError(f"{directory} has measured nothing yet: wait for the end of a round")
    return run


def _read_settings(directory: Path) -> Mapping[str, Any]:
    path = directory / SETTINGS_FILE
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        raise HeteroError(f"{path} is missing or damaged: name a whole run directory") from None
    if not isinstance(settings, dict) or not {"strategy", "cut_layer"} & set(settings):
        raise HeteroError(f"{path} holds the settings of no command that trains")
    return settings


def run_from(
    name: str, plan: Plan, settings: Mapping[str, Any], recorded: Sequence[Recorded]
) -> Run:
    """Return what was recorded of one run.

    Args:
        name: Of the run, in reports.
        plan: Its agreement.
        settings: As its command has written them down.
        recorded: Its events, in their order.

    Raises:
        ValueError: An event contradicts what such an event says.
    """
    source = _source(settings)
    participants = read_participants(recorded, has_trained_exits=plan.exit_weight > 0)
    started, ended = recorded[0].time, recorded[-1].time
    events = [each.event for each in recorded]
    return Run(
        name=name,
        source=source,
        method=_method(settings),
        plan=plan,
        settings=settings,
        participants=participants,
        incidents=read_incidents(recorded, started),
        versions=_versions(events),
        started=started,
        seconds=max(0.0, ended - started),
        is_finished=_is_finished(plan, participants, events),
        notes=_notes(plan, source, participants, events),
    )


def _source(settings: Mapping[str, Any]) -> Source:
    if "method" in settings:
        return Source.SIMULATOR
    return Source.SERVER if "strategy" in settings else Source.CLIENT


def _method(settings: Mapping[str, Any]) -> str:
    method = str(settings.get("method", "split"))
    return str(settings.get("strategy", "client")) if method == "split" else method


def _versions(events: Sequence[Event]) -> Mapping[str, str]:
    """The newest ones, should the run have been resumed with others."""
    found: dict[str, str] = {}
    for event in events:
        if isinstance(event, Started | DeviceJoined):
            told = {"hetero-splitee": event.version, "torch": event.torch}
            found |= {name: number for name, number in told.items() if number}
    return found


def _is_finished(plan: Plan, participants: Sequence[Participant], events: Sequence[Event]) -> bool:
    if any(isinstance(event, Joined | DeviceJoined) for event in events):
        ends = Finished | DeviceFinished | Resumed
        after = [event for event in events if isinstance(event, ends)]
        return bool(after) and not isinstance(after[-1], Resumed)
    lasts = [participant.last for participant in participants]
    return bool(lasts) and all(last and plan.is_last(last.round) for last in lasts)


def _notes(
    plan: Plan, source: Source, participants: Sequence[Participant], events: Sequence[Event]
) -> tuple[str, ...]:
    notes = []
    if plan.exit_weight == 0:
        notes.append("Its exits are not trained (exit weight 0), so nothing is shown of them.")
    if source is Source.CLIENT:
        notes.append("Bytes are what the client itself has counted, evaluations included.")
    counted = [event for event in events if isinstance(event, RoundClosed | Evaluated)]
    if any(e.bytes_received is not None and e.bytes_pushed is None for e in counted):
        notes.append("This run is of a version that has not counted the bytes of weights.")
    own = [event for event in events if isinstance(event, DeviceRound | DeviceEvaluated)]
    if any(event.bytes_received is None for event in own):
        notes.append("This run is of a version that has not counted what a client receives.")
    lasts = [participant.last for participant in participants]
    if any(last and last.combined is not None and last.curve is None for last in lasts):
        notes.append("This run has recorded no curve of accuracy versus offload.")
    return tuple(notes)

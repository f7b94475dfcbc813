"""A run directory as a `Run`: checked, and free of what this version does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hetero_common.agreement.plan import Plan
from hetero_common.errors import HeteroError, SettingsError
from hetero_common.records.rundir import METRICS_FILE, SETTINGS_FILE, read_plan
from hetero_lab.reading.history import Event, last_run, read_history
from hetero_lab.reading.incidents import read_incidents
from hetero_lab.reading.participants import read_participants
from hetero_lab.reading.run import Participant, Run, Source

_LAST_SECOND = 253402300799.0  # of the year 9999
_VERSIONS = {"version": "hetero-splitee", "torch": "torch"}


def read_run(directory: Path) -> Run:
    """What a run directory holds of its last run, which may still be going on.

    Raises:
        HeteroError: It is no run directory, or it is damaged; one sentence.
    """
    try:
        plan = read_plan(directory)
        events = last_run(read_history(directory))
    except SettingsError as error:
        raise HeteroError(str(error)) from None
    settings = _read_settings(directory)
    try:
        return _run(directory, plan, settings, events)
    except (ValueError, KeyError, TypeError):
        raise HeteroError(
            f"{directory / METRICS_FILE} is damaged: an event lacks what docs/runs.md says it has"
        ) from None


def _read_settings(directory: Path) -> Mapping[str, Any]:
    path = directory / SETTINGS_FILE
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        raise HeteroError(f"{path} is missing or damaged: name a whole run directory") from None
    if not isinstance(settings, dict) or not {"strategy", "cut_layer"} & set(settings):
        raise HeteroError(f"{path} holds the settings of no command that trains")
    return settings


def _run(directory: Path, plan: Plan, settings: Mapping[str, Any], events: Sequence[Event]) -> Run:
    if not events:
        raise HeteroError(f"{directory / METRICS_FILE} is empty: wait for the end of a round")
    source = _source(settings)
    participants = read_participants(events, source, has_trained_exits=plan.exit_weight > 0)
    if not any(participant.training or participant.tests for participant in participants):
        raise HeteroError(f"{directory} has measured nothing yet: wait for the end of a round")
    started, ended = _time(events[0]), _time(events[-1])
    return Run(
        name="/".join(directory.resolve().parts[-2:]),
        source=source,
        method=_method(settings),
        plan=plan,
        settings=settings,
        participants=participants,
        incidents=read_incidents(events, started),
        versions=_versions(events),
        started=started,
        seconds=max(0.0, ended - started),
        is_finished=_is_finished(plan, participants, events),
        notes=_notes(plan, source, participants, events),
    )


def _time(event: Event) -> float:
    seconds = float(event["time"])
    if not 0 <= seconds <= _LAST_SECOND:  # NaN neither
        raise ValueError("it is no time that can be")
    return seconds


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
        found |= {name: str(event[key]) for key, name in _VERSIONS.items() if key in event}
    return found


def _is_finished(plan: Plan, participants: Sequence[Participant], events: Sequence[Event]) -> bool:
    if any(event["event"] == "joined" for event in events):
        after = [event["event"] for event in events if event["event"] in ("finished", "resumed")]
        return after[-1:] == ["finished"]
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
    measured = [event for event in events if event["event"] in ("round", "evaluation")]
    if any("bytes_received" in e and "bytes_pushed" not in e for e in measured):
        if source is not Source.CLIENT:
            notes.append("This run is of a version that has not counted the bytes of weights.")
    elif source is Source.CLIENT and any("bytes_received" not in e for e in measured):
        notes.append("This run is of a version that has not counted what a client receives.")
    lasts = [participant.last for participant in participants]
    if any(last and last.combined is not None and last.curve is None for last in lasts):
        notes.append("This run has recorded no curve of accuracy versus offload.")
    return tuple(notes)

"""Things by name: ours, and those of users."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, Field, ValidationError

from hetero_common.errors import SettingsError
from hetero_common.registry import Registry, is_own, registry_of

Rule = Callable[[int], int]


class Options(BaseModel):
    """What doubling can be told."""

    times: int = 2
    """How often."""


def rules() -> Registry[Rule]:
    registry: Registry[Rule] = Registry("rule")

    @registry.add("double", "twice as much", options=Options)
    def double(number: int) -> int:
        return 2 * number

    @registry.add("negate", "less", refuses=lambda settings: "no" if settings == "odd" else None)
    def negate(number: int) -> int:
        return -number

    return registry


OWN = '''
"""A user's module."""
from hetero_common.registry import Registry

def triple(number):
    """Three times as much.

    And more of it.
    """
    return 3 * number
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module where the user stands."""
    (tmp_path / "own_rules.py").write_text(OWN)
    (tmp_path / "needy_rules.py").write_text("import no_such_dependency")
    monkeypatch.chdir(tmp_path)
    for name in ("own_rules", "needy_rules"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_thing_stays_what_it_is_and_is_found_by_its_name() -> None:
    registry = rules()
    assert registry["double"](4) == 8
    assert list(registry) == ["double", "negate"]
    assert registry.entry("double").options is Options
    assert registry.options() == (Options,)


def test_a_thing_says_what_it_refuses() -> None:
    refuses = rules().entry("negate").refuses
    assert (refuses("odd"), refuses("even")) == ("no", None)
    assert rules().entry("double").refuses("odd") is None


@pytest.mark.usefixtures("own")
def test_a_users_own_thing_is_imported_when_it_is_looked_up() -> None:
    registry, path = rules(), list(sys.path)
    assert registry.checked("own_rules:triple") == "own_rules:triple"
    assert "own_rules" not in sys.modules
    entry = registry.entry("own_rules:triple")
    assert entry.thing(4) == 12
    assert entry.summary == "Three times as much."
    assert sys.path == path


@pytest.mark.usefixtures("own")
def test_a_users_own_thing_may_declare_itself_like_ours() -> None:
    registry = rules()
    registry.add("triple", "thrice as much", options=Options)(registry["own_rules:triple"])
    assert registry.entry("own_rules:triple") is registry.entry("triple")
    assert registry.entry("own_rules:triple").options is Options


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("dubble", r"^unknown rule 'dubble': choose .* your own .*\(did you mean double\?\)$"),
        ("", r"^unknown rule '': choose one of double, negate or your own as package.module:name$"),
        ("own_rules:quadruple", r"^rule 'own_rules:quadruple' was not found: own_rules has no"),
        ("no_such_module:rule", r"^rule 'no_such_module:rule' cannot be imported \(No module"),
        ("needy_rules:rule", r"^rule 'needy_rules:rule' cannot be imported .*no_such_dependency"),
    ],
)
@pytest.mark.usefixtures("own")
def test_what_is_not_there_is_told_in_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        rules()[name]


def test_a_kind_may_have_none_of_the_users_own() -> None:
    registry: Registry[int] = Registry("number", takes_own=False)
    registry.add("one", "the first")(1)
    with pytest.raises(ValueError, match=r"^choose one$"):
        registry.checked("module:two")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.b:c", True),
        ("a:c", True),
        ("a.b", False),
        ("a:", False),
        (":c", False),
        ("a-b:c", False),
    ],
)
def test_a_name_of_the_users_own_is_a_module_and_what_is_in_it(name: str, expected: bool) -> None:
    assert is_own(name) is expected


RULES = rules()


class Settings(BaseModel):
    rule: Annotated[str, RULES] = "double"
    other: Annotated[str, RULES] | None = None
    number: int = Field(1, ge=0)


def test_a_settings_field_takes_names_of_its_registry_only() -> None:
    assert Settings(rule="negate", other="a.b:c").rule == "negate"
    for field in ("rule", "other"):
        with pytest.raises(ValidationError, match="did you mean negate"):
            Settings.model_validate({field: "negated"})


def test_the_registry_of_a_settings_field_is_found() -> None:
    fields = Settings.model_fields
    assert registry_of(fields["rule"]) is registry_of(fields["other"]) is RULES
    assert registry_of(fields["number"]) is None


def test_all_choices_are_told_with_what_they_are() -> None:
    assert RULES.told() == "double (twice as much); negate (less); your own as package.module:name"


def test_names_may_have_a_form_of_their_own() -> None:
    registry: Registry[str] = Registry(
        "place", takes_own=False, takes=lambda name: name.startswith("at:"), takes_form="at:WHERE"
    )
    registry.add("here", "where you are")("here")
    assert registry.checked("at:home") == "at:home"
    with pytest.raises(
        ValueError, match=r"^choose one of here or at:WHERE \(did you mean here\?\)$"
    ):
        registry.checked("there")

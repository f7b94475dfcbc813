from __future__ import annotations

import pytest
from pydantic import ValidationError

from hetero_client.exits.rule import DEFAULT_RULE, ExitRule
from hetero_client.exits.settings import ExitSettings


def test_the_rule_is_the_threshold_and_the_criterion() -> None:
    assert ExitSettings().exit_rule == DEFAULT_RULE
    settings = ExitSettings(threshold=0.2, criterion="confidence")
    assert settings.exit_rule == ExitRule(0.2, "confidence")


@pytest.mark.parametrize(
    ("name", "value"), [("threshold", 1.01), ("threshold", -1.01), ("criterion", "margin")]
)
def test_what_is_no_rule_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        ExitSettings.model_validate({name: value})

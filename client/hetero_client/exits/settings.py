"""Settings of when an exit answers, and of how that is tested; the simulator has them too."""

from __future__ import annotations

from pydantic import BaseModel, Field

from hetero_client.exits.rule import DEFAULT_RULE, Criterion, ExitRule


class ExitSettings(BaseModel, frozen=True, use_attribute_docstrings=True):
    """When an exit answers, and on how many images that is tested."""

    threshold: float = Field(DEFAULT_RULE.threshold, ge=-1, le=1)
    """Largest uncertainty that the exit answers at; 1: always, negative: never."""
    criterion: Criterion = DEFAULT_RULE.criterion
    """What an exit's uncertainty is: its normalized entropy, or what its largest probability lacks
    to 1; both from 0 to 1."""
    eval_samples: int = Field(1000, ge=1)
    """Test images of an evaluation; the last one takes the whole test split."""

    @property
    def exit_rule(self) -> ExitRule:
        """The rule by which an exit answers."""
        return ExitRule(self.threshold, self.criterion)

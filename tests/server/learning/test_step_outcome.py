from __future__ import annotations

from hetero_server.learning.step_outcome import StepOutcome

FIRST = StepOutcome(2.0, 3, gradient_norm=1.0, activation_peak=5.0)


def test_a_step_of_one_client_tells_everything_of_it() -> None:
    assert FIRST.statistics() == {
        "server_loss": 2.0,
        "gradient_norm": 1.0,
        "activation_peak": 5.0,
    }


def test_a_joint_step_tells_only_what_the_client_itself_has_sent() -> None:
    joint = StepOutcome(2.0, 3, gradient_norm=1.0, activation_peak=5.0, is_joint=True)
    assert joint.statistics() == {"activation_peak": 5.0}

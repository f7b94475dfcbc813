from __future__ import annotations

import pytest

from hetero_common.agreement.heartbeats import heartbeat_seconds, is_lost


@pytest.mark.parametrize("stall_timeout", [0.3, 30.0, 100.0])
def test_a_side_is_lost_after_the_timeout_and_not_before(stall_timeout: float) -> None:
    heartbeat = heartbeat_seconds(stall_timeout)
    assert not is_lost(0.99 * stall_timeout, heartbeat)
    assert is_lost(1.01 * stall_timeout, heartbeat)


def test_two_heartbeats_may_fail_to_come() -> None:
    assert [is_lost(beats * 10.0 + 5.0, 10.0) for beats in (1, 2, 3)] == [False, False, True]

"""What surrounds the RPCs, against a real server."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from hetero_common import rpc
from server.doors import SECONDS, House, visit

UNARY = [method.name for method in rpc.SERVICE.methods if not method.client_streaming]


@pytest.mark.parametrize("name", UNARY)
def test_a_call_that_ends_before_its_message_is_refused(name: str) -> None:
    """grpc.aio by itself would leave it open, and the caller waiting, for good."""

    def scene(house: House) -> None:
        with grpc.insecure_channel(house.address) as channel:
            method: Any = channel.stream_stream(f"/{rpc.SERVICE.full_name}/{name}")
            with pytest.raises(grpc.RpcError) as caught:
                list(method(iter(()), timeout=SECONDS))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == "a call came without its message"

    visit(scene)

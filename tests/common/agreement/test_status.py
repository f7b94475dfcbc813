from __future__ import annotations

from dataclasses import fields

from hetero_common.agreement.status import MemberStatus
from hetero_splitee.v1 import service_pb2 as pb


def test_a_members_status_is_the_message_of_the_same_name() -> None:
    message = pb.MemberStatus.DESCRIPTOR.fields_by_name
    assert sorted(field.name for field in fields(MemberStatus)) == sorted(message)


def test_what_may_be_unknown_may_be_unset_in_the_message() -> None:
    message = pb.MemberStatus.DESCRIPTOR.fields_by_name
    may_be_none = {field.name for field in fields(MemberStatus) if "None" in str(field.type)}
    assert may_be_none == {name for name, field in message.items() if field.has_presence}

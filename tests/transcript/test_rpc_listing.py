"""The list of calls, through a real gRPC server and channel (integration)."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from asheard.v1.transcript_pb2 import CallState
from tests.transcript.call_facts import START_S
from tests.transcript.running_server import (
    Client,
    listed,
    refused,
    sids,
    three_calls,
)


async def test_calls_are_listed_newest_first_in_pages(client: Client) -> None:
    await three_calls(client)
    first = await listed(client, page_size=2)
    assert sids(first) == ["CA3", "CA2"]
    second = await listed(client, page_size=2, page_token=first.next_page_token)
    assert sids(second) == ["CA1"]
    assert second.next_page_token == ""
    newest = first.calls[0]
    assert newest.from_number == "+1"
    assert newest.start_time.seconds == START_S + 20
    assert newest.end_time.seconds == START_S + 22
    assert newest.state == CallState.CALL_STATE_FAILED
    assert not newest.final  # Twilio may still ask for a new stream
    assert second.calls[0].final
    assert not first.calls[1].HasField("end_time")


async def test_calls_are_filtered(client: Client) -> None:
    await three_calls(client)
    assert sids(await listed(client, number="+1")) == ["CA3", "CA1"]
    assert sids(await listed(client, number="+15550199")) == ["CA3", "CA2", "CA1"]
    assert sids(await listed(client, number="+9")) == []
    assert sids(await listed(client, state=CallState.CALL_STATE_ACTIVE)) == ["CA2"]
    within = await listed(
        client,
        started_after=Timestamp(seconds=START_S + 10),
        started_before=Timestamp(seconds=START_S + 20),
    )
    assert sids(within) == ["CA2"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_size": 1001}, "page_size"),
        ({"page_token": "nonsense"}, "page_token"),
        ({"page_token": "bnVsbA=="}, "page_token"),
        ({"state": 77}, "state"),
        ({"started_after": Timestamp(nanos=-5)}, "started_after"),
    ],
)
async def test_a_bad_list_request_names_its_field(
    client: Client, fields: dict[str, object], named: str
) -> None:
    status, details = await refused(listed(client, **fields))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith(f"{named}:")


async def test_a_page_token_belongs_to_its_filters(client: Client) -> None:
    await three_calls(client)
    token = (await listed(client, page_size=1, number="+1")).next_page_token
    status, details = await refused(listed(client, page_size=1, number="+2", page_token=token))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert "other filters" in details
    # The size of pages may change on the way.
    assert sids(await listed(client, page_size=5, number="+1", page_token=token)) == ["CA1"]

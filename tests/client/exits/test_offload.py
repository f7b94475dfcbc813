"""Who answers which image on a device, with an exit and a server whose answers are given."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from hetero_client.device_model import DeviceModel
from hetero_client.exits.offload import Inference, Source, in_batches
from hetero_client.exits.rule import ExitRule
from hetero_common.errors import ServerUnreachable

SURE, UNSURE = [0.98, 0.01, 0.01], [0.4, 0.3, 0.3]
IMAGES = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)


class Server:
    """Answers class 2 always, while it is there; remembers what was sent."""

    def __init__(self) -> None:
        self.is_there = True
        self.sent: list[list[float]] = []

    def __call__(self, activations: Iterator[Tensor]) -> Iterator[Tensor]:
        if not self.is_there:
            raise ServerUnreachable("it is gone")
        for activation in activations:
            self.sent.append(activation.flatten().tolist())
            yield torch.tensor([[0.1, 0.1, 0.8]] * len(activation))


def device(server: Server, exits: list[list[float]]) -> Inference:
    """Its activations are the numbers of the images."""
    model = Mock(spec=DeviceModel)
    numbers = torch.arange(float(len(exits))).unsqueeze(1)
    model.infer.side_effect = lambda _: (numbers, torch.tensor(exits))
    return Inference(model, server, ExitRule(0.5))


def test_only_what_the_exit_is_not_sure_of_is_sent_and_answers_keep_their_places() -> None:
    server = Server()
    answers = device(server, [SURE, UNSURE, SURE, UNSURE]).answer(IMAGES)
    assert server.sent == [[1.0, 3.0]], "one request"
    assert [(a.label, a.source) for a in answers] == [
        (0, Source.EXIT),
        (2, Source.SERVER),
        (0, Source.EXIT),
        (2, Source.SERVER),
    ]
    assert [a.confidence for a in answers] == pytest.approx([0.98, 0.8, 0.98, 0.8])
    assert answers[1].uncertainty > 0.5 > answers[0].uncertainty, "the exit's, whoever answers"


def test_nothing_is_sent_where_the_exit_is_sure_of_all() -> None:
    server = Server()
    answers = device(server, [SURE] * 4).answer(IMAGES)
    assert server.sent == []
    assert {a.source for a in answers} == {Source.EXIT}


def test_without_a_server_the_exit_answers_all_and_says_so() -> None:
    server = Server()
    server.is_there = False
    answers = device(server, [SURE, UNSURE, SURE, UNSURE]).answer(IMAGES)
    assert [a.label for a in answers] == [0, 0, 0, 0]
    assert [a.source for a in answers[:2]] == [Source.EXIT, Source.DEGRADED]


def test_a_server_that_is_gone_is_told_once_until_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    server = Server()
    inference = device(server, [SURE, UNSURE, SURE, UNSURE])
    counts = []
    for is_there in (True, False, False, True, False):
        server.is_there = is_there
        inference.answer(IMAGES)
        counts.append(len(caplog.messages))
    assert counts == [0, 1, 1, 1, 2]


def test_images_come_in_batches_of_at_most_so_many() -> None:
    assert [len(part) for part in in_batches(IMAGES, 3)] == [3, 1]

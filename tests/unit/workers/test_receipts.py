"""When a delivery is acknowledged or rejected: once, when the last of its jobs is over."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from workers.held import Settlement, Tag
from workers.receipts import AmqpReceipts, Receipts, RedisReceipts


class Channel:
    """A channel that notes what it is told; so is its QoS, which Redis acknowledges by."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Tag]] = []
        self.qos = self

    def basic_ack(self, tag: Tag, *, multiple: bool = False) -> None:
        self.told.append(("ack up to" if multiple else "ack", tag))

    def basic_reject(self, tag: Tag, *, requeue: bool) -> None:
        self.told.append(("requeue" if requeue else "reject", tag))

    def ack_all(self, tags: Sequence[Tag]) -> None:
        self.told += [("ack", tag) for tag in tags]


class Counter:
    """Receipts, and what the broker heard since it was asked last."""

    def __init__(self, make: Callable[[Any], Receipts]) -> None:
        self._channel = Channel()
        self.receipts = make(self._channel)

    def over(self, *ack: Tag, reject: Sequence[Tag] = ()) -> list[tuple[str, Tag]]:
        self.receipts.settle(Settlement(ack=list(ack), reject=list(reject)))
        self.receipts.flush()
        told, self._channel.told = self._channel.told, []
        return [(what.removesuffix(" up to"), tag) for what, tag in told]


@pytest.fixture(params=[AmqpReceipts, RedisReceipts])
def counter(request: pytest.FixtureRequest) -> Counter:
    return Counter(request.param)


def test_a_delivery_of_one_job_is_settled_with_it(counter: Counter) -> None:
    for tag in (1, 2, 3):
        counter.receipts.received(tag)

    assert counter.over(2, reject=[3]) == [("reject", 3), ("ack", 2)]
    assert counter.over(1) == [("ack", 1)]


def test_a_bundle_is_acknowledged_when_the_last_of_its_jobs_is_over(counter: Counter) -> None:
    counter.receipts.received(1, 3)
    counter.receipts.received(2)

    assert counter.over(1, 1) == []
    assert counter.over(2) == [("ack", 2)]
    assert counter.over(1) == [("ack", 1)]
    assert counter.over() == []


def test_a_bundle_of_which_a_job_was_rejected_is_rejected_when_the_last_is_over(counter: Counter) -> None:
    counter.receipts.received(1, 4)

    assert counter.over(reject=[1]) == []
    assert counter.over(1, reject=[1]) == []
    assert counter.over(1) == [("reject", 1)]


def test_whose_last_job_is_rejected_is_rejected_at_once(counter: Counter) -> None:
    counter.receipts.received(1, 2)
    counter.receipts.received(2, 2)

    assert counter.over(1, 2, 2, reject=[1]) == [("reject", 1), ("ack", 2)]


def test_the_jobs_of_a_bundle_that_is_handed_out_twice_add_up() -> None:
    counter = Counter(RedisReceipts)
    counter.receipts.received("a", 3)
    assert counter.over("a") == []

    counter.receipts.received("a", 3)

    assert counter.over("a", "a", "a", "a") == []
    assert counter.over("a") == [("ack", "a")]


def test_a_delivery_counts_until_it_is_settled(counter: Counter) -> None:
    receipts = counter.receipts
    receipts.received(1)
    receipts.received(2, 100)
    receipts.received(3, 2)
    receipts.received(4)
    assert receipts.deliveries == 4

    counter.over(2, 3, 4)
    assert receipts.deliveries == 3

    receipts.settle(Settlement(ack=[3], reject=[1]))
    assert receipts.deliveries == 1
    receipts.flush()
    assert receipts.deliveries == 1

    counter.over(*[2] * 99)
    assert receipts.deliveries == 0


def test_a_delivery_that_is_handed_out_twice_is_one() -> None:
    receipts = RedisReceipts(Channel())
    receipts.received("a")
    receipts.received("a")
    assert receipts.deliveries == 1

    for _ in range(2):
        receipts.settle(Settlement(ack=["a"]))
        assert receipts.deliveries == 0

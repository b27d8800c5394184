"""Which tags one acknowledgement covers."""

from hypothesis import given
from hypothesis import strategies as st

from workers.acks import Acks, Settled


def acks_of(*tags: int) -> Acks:
    acks = Acks()
    for tag in tags:
        acks.received(tag)
    return acks


def test_a_prefix_of_settled_tags_takes_one_acknowledgement() -> None:
    acks = acks_of(1, 2, 3, 4)
    for tag in (2, 1, 3):
        acks.settle(tag)

    assert acks.take() == Settled(up_to=3, singles=())


def test_tags_above_an_open_one_are_acknowledged_singly() -> None:
    acks = acks_of(1, 2, 3, 4)
    for tag in (1, 3, 4):
        acks.settle(tag)

    assert acks.take() == Settled(up_to=1, singles=(3, 4))


def test_a_tag_acknowledged_singly_is_never_named_again() -> None:
    acks = acks_of(1, 2, 3)
    acks.settle(3)
    acks.take()
    acks.settle(1)
    acks.settle(2)

    assert acks.take() == Settled(up_to=2, singles=())
    assert len(acks) == 0


def test_a_rejected_tag_is_never_acknowledged() -> None:
    acks = acks_of(1, 2, 3)
    acks.settle(1)
    acks.rejected(2)

    assert len(acks) == 1
    assert acks.take() == Settled(up_to=1, singles=())
    assert len(acks) == 1


@given(st.data())
def test_every_settled_tag_is_acknowledged_exactly_once(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    order = data.draw(st.permutations(range(1, count + 1)))
    rejected = data.draw(st.sets(st.sampled_from(order)))
    acks = acks_of(*range(1, count + 1))
    open_tags = set(range(1, count + 1))
    acknowledged: list[int] = []

    for tag in order:
        if tag in rejected:
            acks.rejected(tag)
            open_tags.remove(tag)
        else:
            acks.settle(tag)
        if data.draw(st.booleans()) or tag == order[-1]:
            settled = acks.take()
            if settled.up_to is not None:
                assert settled.up_to in open_tags
                covered = sorted(one for one in open_tags if one <= settled.up_to)
                acknowledged += covered
                open_tags -= set(covered)
            acknowledged += settled.singles
            open_tags -= set(settled.singles)

    assert sorted(acknowledged) == sorted(set(order) - rejected)
    assert len(acks) == 0

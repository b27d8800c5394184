"""Which cluster is asked where any may answer, and for how long."""

import asyncio
from typing import cast

import pytest

from taskplatform.errors import OutcomeUnknown, ShardUnavailable, StoreUnavailable
from taskplatform.store import clusters
from taskplatform.store.clusters import Cluster, Clusters


class _Member:
    def __init__(self, answer: str, *, frozen: bool = False, away: bool = False) -> None:
        self.answer = answer
        self.frozen = frozen
        self.away = away

    async def ask(self) -> str:
        if self.away:
            raise StoreUnavailable("gone")
        if self.frozen:
            await asyncio.Event().wait()
        return self.answer


async def _anyone(*members: _Member) -> str:
    return await Clusters([cast("Cluster", member) for member in members]).anyone(
        lambda member: cast("_Member", member).ask()
    )


def test_a_cluster_that_hangs_leaves_time_to_ask_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # The next one is asked although nothing but the shorter of the two waits ever ends.
    monkeypatch.setattr(clusters, "ANSWER_SECONDS", 3600.0)
    monkeypatch.setattr(clusters, "ASK_NEXT_SECONDS", 0.01)

    assert asyncio.run(_anyone(_Member("first", frozen=True), _Member("second"))) == "second"


def test_when_nobody_answers_all_are_named() -> None:
    with pytest.raises(ShardUnavailable, match="clusters 0, 1"):
        asyncio.run(_anyone(_Member("first", away=True), _Member("second", away=True)))


@pytest.mark.parametrize(("writes", "error"), [(True, OutcomeUnknown), (False, ShardUnavailable)])
def test_only_a_write_that_is_cut_off_may_have_happened(
    monkeypatch: pytest.MonkeyPatch, *, writes: bool, error: type[Exception]
) -> None:
    monkeypatch.setattr(clusters, "ANSWER_SECONDS", 0.01)
    members = [cast("Cluster", _Member("first")), cast("Cluster", _Member("second", frozen=True))]

    with pytest.raises(error):
        asyncio.run(Clusters(members).all(lambda member: cast("_Member", member).ask(), writes=writes))

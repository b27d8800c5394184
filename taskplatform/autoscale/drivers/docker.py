"""Workers as containers of one engine, through the agent that holds its socket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import httpx2

from taskplatform.autoscale.contract import KILL_AFTER_SECONDS, Member
from taskplatform.errors import DriverUnavailable

ANSWER_SECONDS = 30.0
"""How long the agent may take: to create a container is the longest of what it does before it answers."""


class Containers:
    """Asks the agent for members, starts and stops. `service` is the Compose service of a pool, with `{pool}` in it."""

    def __init__(self, agent_url: str, token: str, *, service: str, grace_seconds: float) -> None:
        self._service = service
        self._grace_seconds = grace_seconds
        self._agent = httpx2.AsyncClient(
            base_url=agent_url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=ANSWER_SECONDS,
            trust_env=False,
        )

    async def members(self, pool: str) -> list[Member]:
        """Give the containers of the pool's service that have not ended."""
        answer = await self._ask("GET", self._path(pool))
        return [
            Member(
                id=one["id"],
                pool=pool,
                host=one["host"],
                pid=None,
                age_seconds=one["age_seconds"],
                draining=one["draining"],
            )
            for one in answer["members"]
        ]

    async def grow(self, pool: str, size: int) -> None:
        """Start containers like those that are there."""
        active = sum(not member.draining for member in await self.members(pool))
        for _ in range(size - active):
            await self._ask("POST", self._path(pool))

    async def shrink(self, pool: str, victims: Sequence[Member], size: int) -> None:
        """Have the engine stop these containers, in the time that a drain may take."""
        for victim in victims:
            path = f"{self._path(pool)}/{quote(victim.id, safe='')}/stop"
            await self._ask("POST", path, grace_seconds=self._grace_seconds + KILL_AFTER_SECONDS)

    async def close(self) -> None:
        """Hang up; the containers are the engine's."""
        await self._agent.aclose()

    def _path(self, pool: str) -> str:
        return f"/v1/services/{quote(self._service.format(pool=pool), safe='')}/members"

    async def _ask(self, method: str, path: str, **body: Any) -> Any:
        try:
            answer = await self._agent.request(method, path, json=body or None)
        except httpx2.HTTPError as error:
            raise DriverUnavailable(f"the agent does not answer: {type(error).__name__}") from error
        if answer.is_error:
            raise DriverUnavailable(f"the agent answers {answer.status_code}: {answer.text[:200].strip()}")
        return answer.json()

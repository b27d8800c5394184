"""Workers as pods of one Deployment per pool: its scale is patched, and who goes first is written on the pods."""

from __future__ import annotations

import ssl
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

from taskplatform.autoscale.contract import Member
from taskplatform.errors import DriverUnavailable

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SERVER = "https://kubernetes.default.svc"
POOL_LABEL = "taskplatform/pool"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_FIRST_TO_GO = "-1000"
_ANSWER_SECONDS = 10.0
_ENDED = ("Succeeded", "Failed")


class Pods:
    """Speaks to the API server as the pod's service account, whose token is read anew for each request: it changes.

    A drain is what Kubernetes does to a pod that goes: SIGTERM, and `terminationGracePeriodSeconds` of the Deployment.
    """

    def __init__(self, *, deployment: str, account: Path = ACCOUNT, server: str = SERVER) -> None:
        self._deployment = deployment
        self._account = account
        certificates = account / "ca.crt"
        verify: Any = True
        if certificates.exists():
            verify = ssl.create_default_context(cafile=str(certificates))
        self._server = httpx2.AsyncClient(base_url=server, verify=verify, timeout=_ANSWER_SECONDS, trust_env=False)

    async def members(self, pool: str) -> list[Member]:
        """Give the pods of a pool that have not ended."""
        return [_member(pool, pod) for pod in await self._pods(pool)]

    async def grow(self, pool: str, size: int) -> None:
        """Patch the scale of the pool's Deployment. Nobody is to go any more, who may have been marked before."""
        await self._resize(pool, size)
        await self._unmark(pool, keeping=frozenset())

    async def shrink(self, pool: str, victims: Sequence[Member], size: int) -> None:
        """Mark the victims, and nobody else, as the cheapest to delete, then patch the scale."""
        for victim in victims:
            await self._mark(victim.id, _FIRST_TO_GO)
        await self._unmark(pool, keeping={victim.id for victim in victims})
        await self._resize(pool, size)

    async def close(self) -> None:
        """Hang up; the pods are the cluster's."""
        await self._server.aclose()

    async def _pods(self, pool: str) -> list[Any]:
        answer = await self._ask("GET", "/api/v1", "/pods", params={"labelSelector": f"{POOL_LABEL}={pool}"})
        return [pod for pod in answer.get("items", ()) if pod.get("status", {}).get("phase") not in _ENDED]

    async def _mark(self, pod: str, cost: str | None) -> None:
        await self._ask("PATCH", "/api/v1", f"/pods/{pod}", body={"metadata": {"annotations": {DELETION_COST: cost}}})

    async def _unmark(self, pool: str, *, keeping: Collection[str]) -> None:
        # The mark of a scale-in that was taken back would choose for the next one, whoever is idle then.
        for pod in await self._pods(pool):
            metadata = pod["metadata"]
            marked = metadata.get("annotations", {}).get(DELETION_COST) == _FIRST_TO_GO
            if marked and metadata["name"] not in keeping and "deletionTimestamp" not in metadata:
                await self._mark(metadata["name"], None)

    async def _resize(self, pool: str, size: int) -> None:
        name = self._deployment.format(pool=pool)
        await self._ask("PATCH", "/apis/apps/v1", f"/deployments/{name}/scale", body={"spec": {"replicas": size}})

    async def _ask(self, method: str, group: str, path: str, *, body: Any = None, params: Any = None) -> Any:
        try:
            token = (self._account / "token").read_text(encoding="ascii").strip()
            namespace = (self._account / "namespace").read_text(encoding="ascii").strip()
        except OSError as error:
            raise DriverUnavailable(f"no service account in {self._account}: {error.strerror}") from error
        headers = {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        try:
            answer = await self._server.request(
                method, f"{group}/namespaces/{namespace}{path}", json=body, params=params, headers=headers
            )
        except httpx2.HTTPError as error:
            raise DriverUnavailable(f"the API server does not answer: {type(error).__name__}") from error
        if answer.is_error:
            raise DriverUnavailable(f"the API server answers {answer.status_code} to {method} {path}")
        return answer.json()


def _member(pool: str, pod: Any) -> Member:
    began = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    name = pod["metadata"]["name"]
    return Member(
        id=name,
        pool=pool,
        # The host name in a pod is the pod's.
        host=name,
        pid=None,
        age_seconds=(datetime.now(UTC) - began).total_seconds(),
        draining="deletionTimestamp" in pod["metadata"],
    )

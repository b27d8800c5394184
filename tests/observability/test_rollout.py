"""A rollout watched through a real Prometheus: bad answers of the API end it, good ones let it go on."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.rollout import Prometheus as Asked
from compose.rollout import Verdict, watch
from tests.fixtures.answering import answering
from tests.fixtures.waiting import eventually
from tests.observability.prometheus import Prometheus


@contextlib.contextmanager
def an_api_that_answers(status: int) -> Iterator[str]:
    """Show metrics of an API whose answers, ten a look, all have this status; gives its address."""
    looks = itertools.count(1)

    def page(_: str) -> str:
        return f'tp_http_requests_total{{route="/v1/jobs",status="{status}"}} {10 * next(looks)}\n'

    with answering(page, content_type="text/plain; version=0.0.4") as port:
        yield f"127.0.0.1:{port}"


@pytest.mark.parametrize(("status", "verdict"), [(503, Verdict.GO_BACK), (202, Verdict.GO_ON)])
def test_the_answers_of_the_api_decide_about_a_rollout(status: int, verdict: Verdict, tmp_path: Path) -> None:
    # Bad answers end it as soon as they are seen; good ones are watched for as long as was asked.
    seconds = 90.0 if verdict is Verdict.GO_BACK else 2.0
    with an_api_that_answers(status) as address, Prometheus(tmp_path, {"api": [address]}) as prometheus:
        asked = Asked(prometheus.url)
        eventually(lambda: (look := asked.look()) is not None and look.measured, within_seconds=60)
        decided, reason = watch(asked, seconds=seconds, every_seconds=0.5, quiet_is_fine=False)

    assert decided is verdict, reason
    assert verdict is Verdict.GO_ON or "RequestsBurnFast" in reason

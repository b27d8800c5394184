"""The document and the service agree: generated requests meet no 5xx and no answer that is not in the document."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from taskplatform.auth import Scope
from tests.integration.api.conftest import Service

EXAMPLES = 12
CHECKS = (not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance)


@pytest.mark.timeout(300)
def test_generated_requests_are_answered_as_documented(service: Service) -> None:
    authorization = service.client("acme", Scope.ADMIN).headers["authorization"]
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")

    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        _ask(found.ok(), {"Authorization": authorization})


def _ask(operation: APIOperation[Any, Any, Any, Any], headers: dict[str, str]) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy())
    def ask(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(headers=headers, checks=[*CHECKS])

    ask()

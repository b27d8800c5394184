"""Bad input: refused with the right problem, and nothing of it is stored."""

import json
import re
import socket
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from api import protocol
from tests.integration.api.conftest import Service

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def service(empty_service: Service) -> Service:
    """One service for all tests of this file."""
    return empty_service


def body(arguments: str = "[]", **options: object) -> bytes:
    rest = "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in options.items())
    return f'{{"task":"anything","args":{arguments}{rest}}}'.encode()


MALFORMED = {
    "empty": b"",
    "truncated": b'{"task":"anything"',
    "trailing garbage": b'{"task":"anything"} x',
    "a byte order mark": b'\xef\xbb\xbf{"task":"anything"}',
    "UTF-16": '{"task":"anything"}'.encode("utf-16"),
    "invalid UTF-8": b'{"task":"anything","args":["\xff"]}',
    "overlong UTF-8": b'{"task":"anything","args":["\xc0\x80"]}',
    "a raw control character": b'{"task":"anything","args":["\x01"]}',
    "two values": b'{"task":"anything"}{}',
    "a comment": b'{"task":"anything"/**/}',
}
REFUSED = {
    "nested 33 deep": (body("[" * 32 + "]" * 32), "too_deep"),
    "nested 100,000 deep": (body("[" * 100_000 + "]" * 100_000), "too_deep"),
    "10,001 values": (body("[" + "1," * 10_000 + "1]"), "too_many_values"),
    "1,001 keys": (body(json.dumps([{str(n): n for n in range(1001)}])), "too_many_keys"),
    "a string over 64 KiB": (body(json.dumps(["x" * 65_537])), "string_too_long"),
    "a key over 256 bytes": (body(json.dumps([{"x" * 257: 1}])), "key_too_long"),
    "a key over 256 bytes in escapes": (body('[{"' + '\\"' * 257 + '":1}]'), "key_too_long"),
    "NUL": (body('["a\\u0000b"]'), "invalid_text"),
    "half a surrogate pair": (body('["\\ud800"]'), "invalid_text"),
    "half a surrogate pair in a key": (body('[{"\\udc00":1}]'), "invalid_text"),
    "NaN": (body("[NaN]"), "number_out_of_range"),
    "-Infinity": (body("[-Infinity]"), "number_out_of_range"),
    "1e999": (body("[1e999]"), "number_out_of_range"),
    "1e100000": (body("[1e100000]"), "number_out_of_range"),
    "an integer of 100,000 digits": (body("[" + "9" * 100_000 + "]"), "number_out_of_range"),
    "2^63": (body("[9223372036854775808]"), "number_out_of_range"),
    "-2^63-1": (body("[-9223372036854775809]"), "number_out_of_range"),
    "a repeated key": (body('[{"a":1,"a":2}]'), "duplicate_key"),
    "a key repeated in escapes": (body('[{"a":1,"\\u0061":2}]'), "duplicate_key"),
    "a repeated option": (b'{"task":"anything","task":"anything"}', "duplicate_key"),
    "an unknown task": (b'{"task":"photos.thumbnial"}', "unknown_task"),
    "no task": (b"{}", "invalid_input"),
    "an array": (b"[]", "invalid_input"),
    "a foreign field": (body(tenant_id="other"), "invalid_input"),
    "a state": (body(state="succeeded"), "invalid_input"),
    "an attempt": (body(attempts=3), "invalid_input"),
    "a key of a batch's item": (body(idempotency_key="k"), "invalid_input"),
    "args that are no array": (body('{"a":1}'), "invalid_input"),
    "an empty pool": (body(pool=""), "unknown_pool"),
    "an unknown pool": (body(pool="nowhere"), "unknown_pool"),
    "an unknown priority": (body(priority="urgent"), "invalid_input"),
    "a negative delay": (body(delay_seconds=-1), "invalid_input"),
    "a delay of years": (body(delay_seconds=1e10), "invalid_input"),
    "the year 9999": (body(run_at="9999-12-31T23:59:59Z"), "invalid_input"),
    "the end of time, west of it": (body(run_at="9999-12-31T23:59:59-23:00"), "invalid_input"),
    "a time without zone": (body(run_at="2026-01-01T00:00:00"), "invalid_input"),
    "a delay and a time": (body(delay_seconds=1, run_at="2026-01-01T00:00:00Z"), "invalid_input"),
    "a deadline before it is due": (body(delay_seconds=10, deadline_seconds=5), "invalid_input"),
    "a deadline of zero": (body(deadline_seconds=0), "invalid_input"),
    "no attempts": (body(max_attempts=0), "invalid_input"),
    "too many attempts": (body(max_attempts=10**9), "invalid_input"),
    "a soft limit above the hard one": (body(soft_limit_seconds=5, hard_limit_seconds=5), "invalid_input"),
    "a limit below zero": (body(hard_limit_seconds=-1), "invalid_input"),
    "too many tags": (body(tags=["x"] * 21), "invalid_input"),
    "a tag with a line break": (body(tags=["a\nb"]), "invalid_input"),
    "a missing argument": (b'{"task":"photos.thumbnail"}', "invalid_arguments"),
    "an argument of the wrong type": (b'{"task":"photos.thumbnail","args":["a",true]}', "invalid_arguments"),
    "too many arguments": (b'{"task":"photos.thumbnail","args":["a",1,2]}', "invalid_arguments"),
    "an argument given twice": (b'{"task":"photos.thumbnail","args":["a"],"kwargs":{"path":"b"}}', "invalid_arguments"),
    "an unknown argument": (b'{"task":"photos.thumbnail","args":["a"],"kwargs":{"color":1}}', "invalid_arguments"),
}


def test_a_body_that_is_no_json_is_answered_with_400(service: Service) -> None:
    client = service.client()

    answers = {name: client.post("/v1/jobs", content=sent, headers=JSON) for name, sent in MALFORMED.items()}

    said = {name: (answer.status_code, answer.json()["code"]) for name, answer in answers.items()}
    assert said == dict.fromkeys(MALFORMED, (400, "malformed_json"))
    assert all("byte" in answer.json()["detail"] for answer in answers.values())
    assert service.stored() == 0


def test_what_cannot_be_a_job_is_answered_with_422(service: Service) -> None:
    client = service.client()

    answers = {name: client.post("/v1/jobs", content=sent, headers=JSON) for name, (sent, _) in REFUSED.items()}

    said = {name: (answer.status_code, answer.json()["code"]) for name, answer in answers.items()}
    assert said == {name: (422, code) for name, (_, code) in REFUSED.items()}
    assert {answer.headers["content-type"] for answer in answers.values()} == {"application/problem+json"}
    assert service.stored() == 0


def test_a_refused_argument_is_pointed_at(service: Service) -> None:
    sent = {"task": "photos.thumbnail", "args": ["a.jpg", "big"], "kwargs": {"options": 3}}

    problem = service.client().post("/v1/jobs", json=sent).json()

    assert {error["pointer"] for error in problem["errors"]} == {"/args/1", "/kwargs/options"}


def test_the_nearest_task_is_named(service: Service) -> None:
    problem = service.client().post("/v1/jobs", json={"task": "photos.thumbnial"}).json()

    assert "did you mean 'photos.thumbnail'?" in problem["detail"]


def test_other_content_is_answered_with_415(service: Service) -> None:
    client = service.client()
    others: list[dict[str, str]] = [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        *({**JSON, "Content-Encoding": encoding} for encoding in ("gzip", "br", "deflate")),
    ]

    answers = [client.post("/v1/jobs", content=body(), headers=headers) for headers in others]

    assert {(one.status_code, one.json()["code"]) for one in answers} == {(415, "unsupported_media_type")}
    assert service.stored() == 0


def test_a_charset_of_utf_8_is_taken(service: Service) -> None:
    sent = {"Content-Type": "Application/JSON; charset=UTF-8"}

    assert service.client().post("/v1/jobs", content=body(), headers=sent).status_code == 202


@pytest.mark.parametrize(("path", "limit"), [("/v1/jobs", 262_144), ("/v1/jobs:batch", 5_242_880)])
def test_a_body_over_the_limit_is_refused_before_it_is_read(service: Service, path: str, limit: int) -> None:
    client = service.client()

    answer = _sent_only(service, client.headers["authorization"], path, f"Content-Length: {limit + 1}\r\n")

    assert answer.startswith("HTTP/1.1 413")
    assert "connection: close" in answer.lower()


def test_a_chunked_body_over_the_limit_is_refused(service: Service) -> None:
    chunk = b"x" * 65_536

    answer = service.client().post("/v1/jobs", content=iter([chunk] * 5), headers=JSON)

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_length_that_is_none_is_refused(service: Service) -> None:
    key = service.client().headers["authorization"]
    lengths = ["-1", "abc", "0x10", "99999999999999999999999", "1\r\nContent-Length: 2"]

    answers = [_sent_only(service, key, "/v1/jobs", f"Content-Length: {length}\r\n") for length in lengths]

    assert {answer[9:12] for answer in answers} <= {"400", "413"}
    assert service.stored() == 0


def test_too_many_headers_are_refused(service: Service) -> None:
    key = service.client().headers["authorization"]
    many, large = "X-A: b\r\n" * 500, f"X-A: {'b' * 100_000}\r\n"

    answers = [_sent_only(service, key, "/v1/jobs", f"Content-Length: 2\r\n{headers}") for headers in (many, large)]

    assert {answer[9:12] for answer in answers} == {"431"}
    assert {_problem_in(answer)["code"] for answer in answers} == {"headers_too_large"}


def test_a_header_without_end_is_refused(service: Service) -> None:
    answer = _exchange(service, b"GET / HTTP/1.1\r\nX-A: ", b"b" * 400_000)

    assert _problem_in(answer)["code"] == "headers_too_large"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v1/jobs\r\n\r\n",
        b"POST /v1/jobs HTTP/9.9\r\n\r\n",
        b"POST http:// HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost x\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)
def test_what_is_no_http_is_answered_with_a_problem(service: Service, sent: bytes) -> None:
    answer = _exchange(service, sent)

    assert answer.startswith("HTTP/1.1 400 ")
    assert "content-type: application/problem+json" in answer
    assert "x-content-type-options: nosniff" in answer
    assert _problem_in(answer)["code"] == "malformed_http"


def test_what_is_no_http_waits_for_the_answers_before_it(service: Service) -> None:
    asked = _request(service, body())

    answer = _exchange(service, asked + asked + b"what is this\r\n\r\n")

    assert re.findall(r"HTTP/1\.1 (\d+)", answer) == ["202", "202", "400"]
    assert service.stored() == 2


def test_a_head_that_comes_too_slowly_is_refused(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.2)

    answer = _exchange(service, b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\n")

    assert _problem_in(answer)["code"] == "request_timeout"


def test_a_body_that_comes_too_slowly_is_refused(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.2)
    asked = _request(service, body())

    answer = _exchange(service, asked[:-1])

    assert _problem_in(answer)["code"] == "request_timeout"
    assert service.stored() == 0


def test_a_connection_on_which_nothing_comes_is_closed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.2)

    assert _exchange(service, b"") == ""


def test_a_slow_body_is_taken_while_it_keeps_coming(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(protocol, "BODY_BYTES_PER_SECOND", 1)
    asked = _request(service, body(json.dumps(["x" * 1000])))

    with _connected(service) as connection:
        connection.sendall(asked[:-1])
        connection.settimeout(0.6)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(10)
        connection.sendall(asked[-1:])

        assert connection.recv(12) == b"HTTP/1.1 202"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("Idempotency-Key", "invalid_idempotency_key"),
        ("Authorization", "malformed_http"),
        ("Content-Type", "malformed_http"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs:batch"])
def test_a_header_that_may_come_once_is_refused_twice(service: Service, header: str, code: str, path: str) -> None:
    client = service.client()
    twice = [*client.headers.items(), *JSON.items(), (header, "application/json"), (header, "application/json")]

    answer = client.post(path, content=body(), headers=twice)

    assert answer.json()["code"] == code
    assert service.stored() == 0


def test_an_idempotency_key_that_is_none_is_refused(service: Service) -> None:
    client = service.client()
    keys = [b"", b"a b", b"x" * 256, b"k\x7f", b"k\xe9"]

    answers = [
        client.post(
            "/v1/jobs", content=body(), headers=[(b"content-type", b"application/json"), (b"idempotency-key", key)]
        )
        for key in keys
    ]

    assert {answer.status_code for answer in answers} <= {400, 422}
    assert service.stored() == 0


def test_a_refusal_does_not_echo_the_body(service: Service) -> None:
    sent = b'{"task":"anything","args":["very secret" oops]}'

    answer = service.client().post("/v1/jobs", content=sent, headers=JSON)

    assert "secret" not in answer.text


def _sent_only(service: Service, authorization: str, path: str, headers: str) -> str:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nContent-Type: application/json\r\n"
    return _exchange(service, f"{head}{headers}\r\n".encode())


def _request(service: Service, sent: bytes) -> bytes:
    authorization = service.client().headers["authorization"]
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent


def _exchange(service: Service, *pieces: bytes) -> str:
    with _connected(service) as connection:
        with suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        answer = b""
        with suppress(ConnectionResetError):
            while part := connection.recv(65_536):
                answer += part
    return answer.decode()


def _connected(service: Service) -> socket.socket:
    address = urlsplit(service.url)
    return socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10)


def _problem_in(answer: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(answer.rpartition("\r\n\r\n")[2])
    return found

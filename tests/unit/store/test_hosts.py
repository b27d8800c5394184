import pytest
from psycopg.conninfo import conninfo_to_dict

from taskplatform.store.postgres.hosts import each_host


@pytest.mark.parametrize(
    ("conninfo", "places"),
    [
        ("host=one port=1 dbname=x", [("one", "1")]),
        ("host=one,two,three port=1,2,3 dbname=x", [("one", "1"), ("two", "2"), ("three", "3")]),
        ("host=one,two port=1 dbname=x", [("one", "1"), ("two", "1")]),
        ("host=one,two dbname=x", [("one", None), ("two", None)]),
        ("dbname=x", [(None, None)]),
    ],
)
def test_each_host_gets_a_connection_string_of_its_own(conninfo: str, places: list[tuple[str | None, ...]]) -> None:
    found = [conninfo_to_dict(each) for each in each_host(conninfo)]

    assert [(one.get("host"), one.get("port")) for one in found] == places
    assert {one["dbname"] for one in found} == {"x"}


def test_addresses_go_with_their_hosts() -> None:
    found = [conninfo_to_dict(each) for each in each_host("host=one,two hostaddr=127.0.0.1,127.0.0.2")]

    assert [(one["host"], one["hostaddr"]) for one in found] == [("one", "127.0.0.1"), ("two", "127.0.0.2")]


def test_hosts_and_ports_that_do_not_fit_together_are_left_to_libpq() -> None:
    assert each_host("host=one,two,three port=1,2") == ["host=one,two,three port=1,2"]

"""What the decorator makes of a function."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from taskplatform import Fail, Retry, RetryLater, TaskplatformError, current_job, task
from taskplatform.errors import InvalidInput, SettingsError
from taskplatform.task import Announced, CoroutineTask, TaskSpec, announced, import_modules, tasks_in


@task(name="sample.resize", retry=Retry(max_attempts=7), soft_limit_seconds=1.0, hard_limit_seconds=2.0)
def resize(photo: str, width: int = 320, *, sharp: bool = False) -> str:
    return f"{photo} {width} {sharp}"


@task()
def gather(first: int, *more: int, **named: int) -> int:
    return first + sum(more) + sum(named.values())


def test_calling_a_task_runs_its_function() -> None:
    assert resize("a.jpg", 10, sharp=True) == "a.jpg 10 True"


def test_a_task_without_a_name_is_called_by_its_module_and_function() -> None:
    assert gather.name == f"{__name__}.gather"


def test_a_task_announces_its_bounds() -> None:
    spec = resize.spec

    assert (spec.max_attempts, spec.soft_limit_seconds, spec.hard_limit_seconds) == (7, 1.0, 2.0)


def test_the_schema_says_which_parameters_there_are_and_which_are_needed() -> None:
    assert resize.spec.schema is not None
    schema = resize.spec.schema["$defs"]["Arguments"]

    assert schema["required"] == ["photo"]
    assert schema["properties"]["width"] == {"type": "integer", "default": 320}
    assert schema["additionalProperties"] is False


def test_positional_and_named_arguments_are_joined() -> None:
    assert resize.spec.bind(["a.jpg", 3], {"sharp": True}) == {"photo": "a.jpg", "width": 3, "sharp": True}


def test_too_many_positional_arguments_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at most 2") as refused:
        resize.spec.bind(["a.jpg", 3, True], {})
    assert refused.value.pointer == "/args"


def test_an_argument_given_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="two values for 'photo'"):
        resize.spec.bind(["a.jpg"], {"photo": "b.jpg"})


def test_a_task_that_takes_more_takes_more() -> None:
    assert gather.spec.bind([1, 2, 3], {"x": 4}) == {"first": 1, "x": 4}


def test_options_leave_the_task_itself_alone() -> None:
    later = resize.options(delay_seconds=5.0)

    assert (later.chosen.delay_seconds, resize.chosen.delay_seconds) == (5.0, None)


def test_a_soft_limit_must_be_below_the_hard_one() -> None:
    with pytest.raises(SettingsError):
        task(soft_limit_seconds=2.0, hard_limit_seconds=2.0)


def test_tasks_are_collected_from_modules_by_name() -> None:
    module = ModuleType("sample")
    vars(module).update(resize=resize, again=resize, gather=gather, other=1)

    assert tasks_in([module]) == {resize.name: resize, gather.name: gather}


def test_two_tasks_of_one_name_are_refused() -> None:
    first, second = ModuleType("first"), ModuleType("second")
    vars(first)["resize"] = resize
    vars(second)["resize"] = task(name=resize.name)(len)

    with pytest.raises(SettingsError, match=resize.name):
        tasks_in([first, second])


def test_there_is_no_current_job_outside_of_one() -> None:
    with pytest.raises(TaskplatformError, match="outside"):
        current_job()


def test_what_a_task_may_say_has_a_reason() -> None:
    assert str(RetryLater(2.5)) == "retry after 2.5 s"
    assert str(Fail("no such picture")) == "no such picture"


def test_options_keep_what_kind_of_task_it_is() -> None:
    @task(name="sample.fetch")
    async def fetch(url: str) -> bytes:
        return url.encode()

    assert isinstance(fetch.options(delay_seconds=5), CoroutineTask)


def test_a_task_may_promise_to_be_short() -> None:
    @task(name="sample.short", inline=True)
    def short() -> None: ...

    assert short.inline
    assert not gather.inline


def test_a_module_that_cannot_be_imported_is_named_with_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unfinished_tasks.py").write_text("def task(:\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(SettingsError, match="cannot import 'unfinished_tasks': SyntaxError"):
        import_modules(["unfinished_tasks"])


@pytest.mark.parametrize("name", ["", "h.snow☃", "9lives", "a b", "x" * 201, "a\n"])
def test_a_name_that_cannot_be_asked_for_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="no task name"):
        task(name=name or " ")(len)


def test_a_task_has_a_version() -> None:
    assert resize.spec.version == 1
    assert task(name="shop.pay", version=3)(lambda: None).spec.version == 3


@pytest.mark.parametrize("version", [0, -1, 2**31, True])
def test_a_version_is_a_whole_number_from_one_on(version: int) -> None:
    with pytest.raises(SettingsError, match="whole number from 1"):
        task(name="shop.pay", version=version)


def test_a_task_says_how_many_of_its_jobs_may_travel_together() -> None:
    assert resize.spec.bundle_jobs == 1
    assert task(name="shop.count", bundle_jobs=100)(lambda: None).spec.bundle_jobs == 100


@pytest.mark.parametrize("jobs", [0, -1, 101, True, 2.5])
def test_a_bundle_holds_a_whole_number_of_jobs(jobs: Any) -> None:
    with pytest.raises(SettingsError, match="whole number from 1 to 100"):
        task(name="shop.count", bundle_jobs=jobs)


@pytest.mark.parametrize(
    ("versions", "live", "chosen"),
    [([1], [], 1), ([1, 2], [], 2), ([1, 2], [1], 1), ([1, 2], [2, 1], 2), ([1, 2, 3], [1, 2], 2), ([2], [1], 2)],
)
def test_the_newest_version_that_a_worker_runs_is_used_and_without_any_the_newest(
    versions: list[int], live: list[int], chosen: int
) -> None:
    specs = [TaskSpec(name="shop.pay", version=version) for version in versions]

    assert announced(specs, live) == Announced(spec=TaskSpec(name="shop.pay", version=chosen), live=tuple(sorted(live)))

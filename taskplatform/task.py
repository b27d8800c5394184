"""Tasks as users write them: the decorator, what a task announces about itself, and what it may say while it runs."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import ModuleType
from typing import Any, Generic, NoReturn, ParamSpec, Protocol, Self, TypeVar, get_type_hints, overload
from uuid import UUID

import msgspec

from taskplatform.errors import InvalidInput, SettingsError, TaskplatformError
from taskplatform.job import Priority
from taskplatform.retry import Retry

P = ParamSpec("P")
R = TypeVar("R")

NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.:-]{0,199}$"
POOL_PATTERN = r"^[a-z][a-z0-9_-]{0,62}$"

LAST_VERSION = 2**31 - 1
"""The highest version of a task."""

MOST_BUNDLE_JOBS = 100
"""How many jobs may travel together at most."""


class RetryLater(TaskplatformError):
    """Raised in a task: this attempt failed, try again after so many seconds (like HTTP's Retry-After)."""

    def __init__(self, after_seconds: float, reason: str = "") -> None:
        super().__init__(reason or f"retry after {after_seconds:g} s")
        self.after_seconds = float(after_seconds)

    def __reduce__(self) -> tuple[type[RetryLater], tuple[float, str]]:
        return RetryLater, (self.after_seconds, str(self))


class Fail(TaskplatformError):
    """Raised in a task: no retry will help, the job is dead."""


class HandBack(TaskplatformError):
    """Raised in a task while its worker drains: the job goes on elsewhere, and nobody is charged.

    At any other time it is a failure like others. See `taskplatform.checkpoint`.
    """


class Desk(Protocol):
    """How a process that runs jobs keeps their checkpoints; a text is JSON, None asks for what was kept last.

    Both calls return when the store has answered, and raise AttemptLost when the attempt no longer holds the job.
    """

    @property
    def draining(self) -> bool:
        """Whether the worker is about to end."""

    def ask(self, job: CurrentJob, text: str | None) -> str | None:
        """Keep a checkpoint, or give the last one; blocks."""

    async def ask_async(self, job: CurrentJob, text: str | None) -> str | None:
        """Do the same in a coroutine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentJob:
    """What a running task may know about its job; `attempt` is the fencing number of this run.

    `trace` is the W3C `traceparent` to go on with, None where the job was handed in without one. `desk` is for
    `taskplatform.checkpoint`.
    """

    id: UUID
    attempt: int
    tenant: str
    trace: str | None = None
    desk: Desk | None = field(default=None, repr=False, compare=False)


_running: ContextVar[CurrentJob | None] = ContextVar("taskplatform_current_job", default=None)


def current_job() -> CurrentJob:
    """Give the job that runs here. Raises TaskplatformError outside of one."""
    job = _running.get()
    if job is None:
        raise TaskplatformError("current_job() was called outside of a running job")
    return job


def find_current_job() -> CurrentJob | None:
    """Give the job that runs here, None outside of one."""
    return _running.get()


def enter_job(job: CurrentJob | None) -> None:
    """Tell `current_job()` which job runs here from now on; for those who run tasks."""
    _running.set(job)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a submission may ask for beside its arguments; None leaves the task's own value."""

    pool: str | None = None
    priority: Priority | None = None
    delay_seconds: float | None = None
    run_at: datetime | None = None
    deadline_seconds: float | None = None
    soft_limit_seconds: float | None = None
    hard_limit_seconds: float | None = None
    max_attempts: int | None = None
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """What a task announces, so that submissions can be checked without its code.

    `positional` names the parameters that may be given by position, `schema` is the JSON Schema (2020-12) of all
    parameters as one object, None for a task that takes anything. Up to `bundle_jobs` of its jobs may travel in one
    message.
    """

    name: str
    version: int = 1
    pool: str = "default"
    priority: Priority = Priority.NORMAL
    max_attempts: int = 5
    soft_limit_seconds: float | None = None
    hard_limit_seconds: float | None = None
    positional: tuple[str, ...] = ()
    takes_more_positional: bool = False
    schema: Mapping[str, Any] | None = None
    bundle_jobs: int = 1

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Join positional and named arguments into the object that `schema` describes.

        Raises InvalidInput for too many positional arguments and for one given twice.
        """
        if len(args) > len(self.positional) and not self.takes_more_positional:
            detail = f"{self.name} takes at most {len(self.positional)} positional arguments, not {len(args)}"
            raise InvalidInput(detail, code="invalid_arguments", pointer="/args")
        bound = dict(zip(self.positional, args, strict=False))
        for name, value in kwargs.items():
            if name in bound:
                detail = f"{self.name} got two values for {name!r}"
                raise InvalidInput(detail, code="invalid_arguments", pointer=f"/kwargs/{name}")
            bound[name] = value
        return bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What is known of a task: the `spec` that submissions are checked against, and the versions that workers run now.

    No worker that tells its versions lives where there are none.
    """

    spec: TaskSpec
    live: tuple[int, ...] = ()


def bundle_jobs_in(tasks: Mapping[str, Announced], name: str) -> int:
    """Tell how many jobs of a task may travel together; 1 for one that is not among the announced `tasks`."""
    found = tasks.get(name)
    return 1 if found is None else found.spec.bundle_jobs


def announced(specs: Iterable[TaskSpec], live: Iterable[int]) -> Announced:
    """Choose among the versions of a task that are remembered: the newest that a worker runs, else the newest of all.

    So a version is used from the moment its first worker has begun, and no longer than its last one takes jobs.
    """
    by_version = {spec.version: spec for spec in specs}
    running = tuple(sorted(live))
    usable = [version for version in running if version in by_version]
    return Announced(spec=by_version[max(usable or by_version)], live=running)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Generic[P, R]):
    """A function that can be run as a job and gives an R; `inline` says that it is short, see `task`."""

    function: Callable[P, Any]
    spec: TaskSpec
    retry: Retry
    chosen: Options = field(default_factory=Options)
    inline: bool = False

    @property
    def name(self) -> str:
        """The name under which it is submitted."""
        return self.spec.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the function here and now."""
        return self.function(*args, **kwargs)

    def options(self, **chosen: Any) -> Self:
        """Give the same task with options for one submission; the names are those of `Options`."""
        return replace(self, chosen=replace(self.chosen, **chosen))


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionTask(Task[P, R]):
    """A task that a call runs."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now."""
        result: R = self.function(*args, **kwargs)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class CoroutineTask(Task[P, R]):
    """A task whose function is `async def`; what calling it gives is to be awaited."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function here and now."""
        coroutine: Coroutine[Any, Any, R] = self.function(*args, **kwargs)
        return coroutine


class Decorator(Protocol):
    """What `task()` gives: it makes a function a task."""

    # What never returns, and a coroutine, are an R too: the first that fits is meant.
    @overload
    def __call__(  # type: ignore[overload-overlap]  # see above
        self, function: Callable[P, NoReturn], /
    ) -> FunctionTask[P, NoReturn]: ...

    @overload
    def __call__(  # type: ignore[overload-overlap]  # see above
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> CoroutineTask[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> FunctionTask[P, R]: ...


def task(
    *,
    name: str | None = None,
    version: int = 1,
    pool: str = "default",
    priority: Priority = Priority.NORMAL,
    retry: Retry | None = None,
    soft_limit_seconds: float | None = None,
    hard_limit_seconds: float | None = None,
    inline: bool = False,
    bundle_jobs: int = 1,
) -> Decorator:
    """Make a function, or an `async def`, a task; its name defaults to `module.function`.

    The annotations of its parameters become the schema that submissions are checked against. `inline` promises that the
    function takes at most a few milliseconds and waits for nothing: an async worker then runs it on its event loop.
    A `version` promises that the function also takes the arguments of all versions below it; workers that know only
    those run none of its jobs. `bundle_jobs` says that the jobs are so short, or on an async worker so idle, that up to
    so many of them may travel, and be fetched by one worker, together. Raises SettingsError for a version, limits or
    `bundle_jobs` that make no sense and for annotations without a JSON form.
    """
    _check(version, bundle_jobs, soft_limit_seconds, hard_limit_seconds)
    policy = retry or Retry()

    def decorate(function: Callable[..., Any]) -> Any:
        full_name = name or f"{function.__module__}.{function.__name__}"
        if not re.fullmatch(NAME_PATTERN, full_name):
            raise SettingsError(f"{full_name!r} is no task name: letters, digits and _.:- of ASCII, at most 200")
        signature = inspect.signature(function)
        spec = TaskSpec(
            name=full_name,
            version=version,
            pool=pool,
            priority=Priority(priority),
            max_attempts=policy.max_attempts,
            soft_limit_seconds=soft_limit_seconds,
            hard_limit_seconds=hard_limit_seconds,
            positional=tuple(p.name for p in signature.parameters.values() if p.kind in _BY_POSITION),
            takes_more_positional=any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values()),
            schema=_schema(function, signature, full_name),
            bundle_jobs=bundle_jobs,
        )
        if inspect.iscoroutinefunction(function):
            return CoroutineTask(function=function, spec=spec, retry=policy)
        return FunctionTask(function=function, spec=spec, retry=policy, inline=inline)

    return decorate


def tasks_in(modules: Iterable[ModuleType]) -> dict[str, Task[..., Any]]:
    """Collect the tasks of modules by name. Raises SettingsError when two different ones share a name."""
    found: dict[str, Task[..., Any]] = {}
    for module in modules:
        for value in vars(module).values():
            if not isinstance(value, Task):
                continue
            other = found.setdefault(value.name, value)
            if other.function is not value.function:
                raise SettingsError(f"two tasks are called {value.name!r}")
    return found


def import_modules(names: Iterable[str]) -> list[ModuleType]:
    """Import modules by name. Raises SettingsError for one that cannot be imported, whatever its code raises."""
    modules = []
    for name in names:
        try:
            modules.append(importlib.import_module(name))
        except Exception as error:
            raise SettingsError(f"task_modules: cannot import {name!r}: {type(error).__name__}: {error}") from error
    return modules


def load_tasks(names: Iterable[str]) -> dict[str, Task[..., Any]]:
    """Import modules by name and collect their tasks. Raises SettingsError for one that cannot be imported."""
    return tasks_in(import_modules(names))


def _check(version: int, bundle_jobs: int, soft_seconds: float | None, hard_seconds: float | None) -> None:
    if isinstance(version, bool) or not 1 <= version <= LAST_VERSION:
        raise SettingsError(f"a task's version is a whole number from 1 to {LAST_VERSION}, not {version!r}")
    if type(bundle_jobs) is not int or not 1 <= bundle_jobs <= MOST_BUNDLE_JOBS:
        raise SettingsError(f"bundle_jobs is a whole number from 1 to {MOST_BUNDLE_JOBS}, not {bundle_jobs!r}")
    if soft_seconds is not None and hard_seconds is not None and soft_seconds >= hard_seconds:
        raise SettingsError("soft_limit_seconds must be below hard_limit_seconds")


_PLAIN = (str, int, float, bool)
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _schema(function: Callable[..., Any], signature: inspect.Signature, name: str) -> Mapping[str, Any]:
    hints = get_type_hints(function, include_extras=True)
    fields: list[Any] = []
    takes_any = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            takes_any = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            kind = hints.get(parameter.name, Any)
            if parameter.default is parameter.empty:
                fields.append((parameter.name, kind))
            else:
                shown = parameter.default if isinstance(parameter.default, _PLAIN) else None
                fields.append((parameter.name, kind, msgspec.field(default=shown)))
    try:
        shape = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=not takes_any)
        return msgspec.json.schema(shape)
    except TypeError as error:
        raise SettingsError(f"task {name}: its parameters have no JSON form: {error}") from None

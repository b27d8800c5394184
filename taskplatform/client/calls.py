"""A submission before it is sent: a task or its name, its arguments, and what was chosen for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar, get_type_hints, overload
from uuid import uuid4

import msgspec

from taskplatform.errors import InvalidInput, SettingsError, TaskplatformError
from taskplatform.retry import Retry
from taskplatform.task import Options, Task, TaskSpec

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[R]):
    """One submission: `task` is to run with these arguments and will give an R.

    Its `key` makes every repetition of the request name the same job.
    """

    task: Task[..., R]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    key: str

    def body(self) -> dict[str, Any]:
        """Give the JSON object that the API takes, without the key. Raises InvalidInput for a `run_at` without zone."""
        chosen = self.task.chosen
        if chosen.run_at is not None and chosen.run_at.tzinfo is None:
            raise InvalidInput("run_at needs a time zone", pointer="/run_at")
        wanted = {name: getattr(chosen, name) for name in _SENT}
        body = {name: value for name, value in wanted.items() if value is not None and value != ()}
        return {"task": self.task.name, "args": self.args, "kwargs": self.kwargs, **body}


@overload
def call(task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Call[R]: ...


@overload
def call(task: str, /, *args: Any, **kwargs: Any) -> Call[Any]: ...


def call(task: Task[..., Any] | str, /, *args: Any, **kwargs: Any) -> Call[Any]:
    """Prepare a submission for `submit_many`, `send` or a batch."""
    found = named(task) if isinstance(task, str) else task
    return Call(task=found, args=args, kwargs=kwargs, key=found.chosen.idempotency_key or str(uuid4()))


def named(name: str, **chosen: Any) -> Task[..., Any]:
    """Give a task whose code is elsewhere by its name, with options as `Task.options` takes them.

    Raises SettingsError for an option that does not exist.
    """
    for option in chosen:
        if option not in Options.__dataclass_fields__:
            raise SettingsError(
                f"{option!r} is no option of a submission; there are {', '.join(Options.__dataclass_fields__)}"
            )

    def elsewhere(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise TaskplatformError(f"the code of {name} is not here: submit it")

    return Task(function=elsewhere, spec=TaskSpec(name=name), retry=Retry(), chosen=Options(**chosen))


def batch_item(prepared: Call[Any]) -> bytes:
    """Write a submission as one item of a batch. Raises InvalidInput as `encode` does."""
    return encode({**prepared.body(), "idempotency_key": prepared.key})


def encode(body: Mapping[str, Any]) -> bytes:
    """Write a submission as JSON. Raises InvalidInput for arguments without a JSON form."""
    try:
        written = msgspec.json.encode(body)
        # NaN and infinity are written as null, which is another value: looked for only where there is a null.
        changed = b"null" in written and not _is_finite(msgspec.to_builtins(body))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(
            f"the arguments have no JSON form: {error}", code="invalid_arguments", pointer="/args"
        ) from None
    if changed:
        raise InvalidInput("NaN and infinity are no JSON numbers", code="invalid_arguments", pointer="/args")
    return written


def _is_finite(value: Any) -> bool:
    match value:
        case float():
            return isfinite(value)
        case dict():
            return all(_is_finite(part) for pair in value.items() for part in pair)
        case list() | tuple() | set() | frozenset():
            return all(_is_finite(part) for part in value)
        case _:
            return True


def result_type(function: Callable[..., Any]) -> Any:
    """Tell what a task's function promises to return, Any where it does not say."""
    try:
        return get_type_hints(function).get("return", Any)
    except (NameError, TypeError, AttributeError):
        return Any


_SENT = tuple(option.name for option in fields(Options) if option.name != "idempotency_key")

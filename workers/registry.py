"""The tasks a worker runs: the platform's own as Celery tasks, plain ones beside them, and what is known of each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec

from taskplatform import builtin
from taskplatform.errors import InvalidInput
from taskplatform.retry import Retry
from taskplatform.task import CoroutineTask, Task, TaskSpec, tasks_in
from workers.app import PlatformApp, import_tasks
from workers.coroutines import completing
from workers.endings import MOST_ATTEMPTS, Traits

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """What can run here: traits by task name, and the specs to announce.

    `coroutines` and `inline` are the functions of tasks that may run on an event loop, by task name.
    """

    traits: Mapping[str, Traits]
    specs: list[TaskSpec]
    coroutines: Mapping[str, Callable[..., Coroutine[Any, Any, Any]]]
    inline: Mapping[str, Callable[..., Any]]

    @property
    def versions(self) -> dict[str, int]:
        """The version of each task."""
        return {spec.name: spec.version for spec in self.specs}


def register_tasks(app: PlatformApp) -> Registry:
    """Import the task modules and make each task of theirs a Celery task of the same name. Raises SettingsError."""
    traits: dict[str, Traits] = {}
    specs: list[TaskSpec] = []
    coroutines: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {}
    inline: dict[str, Callable[..., Any]] = {}
    for name, task in tasks_in([builtin, *import_tasks(app)]).items():
        function = typed(task)
        if isinstance(task, CoroutineTask):
            coroutines[name] = function
            function = completing(function)
        elif task.inline:
            inline[name] = function
        registered: Any = app.task(name=name, typing=False)(function)
        registered.spec = task.spec
        traits[name] = _traits_of(task)
        specs.append(task.spec)
    app.finalize()
    for name, plain in app.tasks.items():
        if name not in traits:
            traits[name] = _traits_of_plain(plain)
            if not name.startswith("celery."):
                specs.append(_spec_of_plain(name, traits[name]))
    return Registry(traits=traits, specs=specs, coroutines=coroutines, inline=inline)


def typed(task: Task[..., Any]) -> Callable[..., Any]:
    """Give a function that converts JSON arguments to the annotated types, then calls the task's own.

    It raises InvalidInput for arguments that do not fit.
    """
    function = task.function
    signature = inspect.signature(function)
    hints = get_type_hints(function, include_extras=True)
    kinds = {name: hints[name] for name in signature.parameters if name in hints and hints[name] is not Any}
    parameters = list(signature.parameters.values())
    plain = all(parameter.kind in _BY_POSITION for parameter in parameters)

    def run(*args: Any, **kwargs: Any) -> Any:
        if plain and not kwargs and len(args) == len(parameters):
            # Nothing is left to bind, which would cost more than many a job.
            return function(
                *[
                    _converted(task.name, parameter, value, kinds[parameter.name]) if parameter.name in kinds else value
                    for parameter, value in zip(parameters, args, strict=True)
                ]
            )
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidInput(f"{task.name}: {error}", code="invalid_arguments") from None
        for name, value in bound.arguments.items():
            if name in kinds:
                bound.arguments[name] = _converted(task.name, signature.parameters[name], value, kinds[name])
        return function(*bound.args, **bound.kwargs)

    return run


def _converted(task: str, parameter: inspect.Parameter, value: Any, kind: Any) -> Any:
    if parameter.kind is parameter.VAR_POSITIONAL:
        kind = tuple[kind, ...]
    elif parameter.kind is parameter.VAR_KEYWORD:
        kind = dict[str, kind]
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{task}: argument {parameter.name!r}: {error}", code="invalid_arguments") from None


def _traits_of(task: Task[..., Any]) -> Traits:
    return Traits(
        policy=task.retry,
        max_attempts=task.spec.max_attempts,
        version=task.spec.version,
        soft_limit_seconds=task.spec.soft_limit_seconds,
        hard_limit_seconds=task.spec.hard_limit_seconds,
    )


def _traits_of_plain(task: Any) -> Traits:
    # As in Celery, what a plain task raises is final; only its own retry() asks for another attempt.
    most = MOST_ATTEMPTS if task.max_retries is None else min(task.max_retries + 1, MOST_ATTEMPTS)
    return Traits(
        policy=Retry(max_attempts=most, give_up_on=(Exception, SystemExit, KeyboardInterrupt)),
        max_attempts=most,
        counts_retries=True,
        soft_limit_seconds=task.soft_time_limit,
        hard_limit_seconds=task.time_limit,
    )


def _spec_of_plain(name: str, traits: Traits) -> TaskSpec:
    return TaskSpec(
        name=name,
        max_attempts=traits.max_attempts,
        soft_limit_seconds=traits.soft_limit_seconds,
        hard_limit_seconds=traits.hard_limit_seconds,
        takes_more_positional=True,
    )

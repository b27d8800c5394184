"""Every error that taskplatform raises on purpose, as one tree.

TaskplatformError
├── SettingsError            a setting is missing, misspelt or out of range
├── InvalidInput             what a caller handed in is refused before anything is stored
│   └── UnknownTask          no worker ever announced that task
├── Refused                  the caller may not do this
│   ├── NotAuthenticated     no key, an unknown key, an expired or revoked one
│   └── NotAllowed           the key lacks the scope
├── NotFound                 no such thing, or none that the caller may see
├── Conflict                 the state of things forbids it
│   ├── KeyReused            the idempotency key names a job with another body
│   └── AttemptLost          the attempt no longer holds its job
├── Unavailable              a part is away: nothing happened, try again later
│   ├── StoreUnavailable
│   │   ├── ShardUnavailable the cluster that is asked for is away, others are not
│   │   └── ShardMoved       the shard has another home than whoever asked believed
│   ├── BrokerUnavailable
│   ├── ArchiveUnavailable
│   └── Overloaded           more is waiting than can be taken on
└── OutcomeUnknown           the answer was cut off: it may or may not have happened
"""

from __future__ import annotations


class TaskplatformError(Exception):
    """The root of all errors that taskplatform raises on purpose."""


class SettingsError(TaskplatformError):
    """A setting is missing, misspelt or out of range."""


class InvalidInput(TaskplatformError):
    """What a caller handed in is refused before anything is stored.

    `code` is a stable word for programs, `pointer` a JSON Pointer (RFC 6901) to the offending value.
    """

    def __init__(self, detail: str, *, code: str = "invalid_input", pointer: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.pointer = pointer


class UnknownTask(InvalidInput):
    """No worker ever announced a task of that name."""

    def __init__(self, name: str, *, nearest: str | None = None) -> None:
        hint = f"; did you mean {nearest!r}?" if nearest else ""
        super().__init__(f"unknown task {name!r}{hint}", code="unknown_task", pointer="/task")


class Refused(TaskplatformError):
    """The caller may not do this."""


class NotAuthenticated(Refused):
    """No key was given, or an unknown, expired or revoked one."""


class NotAllowed(Refused):
    """The key lacks the scope that this call needs."""


class NotFound(TaskplatformError):
    """No such thing, or none that the caller may see."""


class Conflict(TaskplatformError):
    """The state of things forbids it."""


class KeyReused(Conflict):
    """The idempotency key already names a job with another body."""


class AttemptLost(Conflict):
    """This attempt no longer holds its job, which was cancelled or went to another worker: what it does is not kept."""


class Unavailable(TaskplatformError):
    """A part of the platform is away: nothing happened, try again later."""


class StoreUnavailable(Unavailable):
    """Postgres cannot be reached or takes no writes."""


class ShardUnavailable(StoreUnavailable):
    """The Postgres cluster that keeps this is away; what others keep is not touched by that."""


class ShardMoved(StoreUnavailable):
    """A cluster refused a job whose shard is at home in another one: whoever sent it knows an old map."""


class BrokerUnavailable(Unavailable):
    """The broker cannot be reached or refuses messages."""


class ArchiveUnavailable(Unavailable):
    """The object store of the archive cannot be reached, is full, or refuses."""


class DriverUnavailable(Unavailable):
    """Whoever starts and stops workers cannot be reached or refuses."""


class AutoscalerSilent(Unavailable):
    """No autoscaler has decided lately: what it said last may be wrong by now."""


class Overloaded(Unavailable):
    """More is waiting already than can be taken on."""


class OutcomeUnknown(TaskplatformError):
    """The answer was cut off: it may or may not have happened, and the same call with the same id is safe."""

"""The highly available platform: two API processes behind HAProxy, two workers and two dispatchers on clusters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from taskplatform.servers import HAProxy, free_ports, started
from tests.native.part import Part
from tests.native.stack import Stack


@dataclass
class HaStack(Stack):
    """A stack with two of everything; `settings.api_port` is the load balancer's."""

    balancer: HAProxy = field(init=False)
    second_api: Part = field(init=False)
    second_worker: Part = field(init=False)
    second_dispatcher: Part = field(init=False)

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self._cleanup.enter_context(started(self.balancer))
        except BaseException:
            self._cleanup.close()
            raise
        return self

    @property
    def parts(self) -> tuple[Part, ...]:
        """All processes of the platform, but for the load balancer."""
        return (*super().parts, self.second_worker, self.second_dispatcher, self.second_api)

    def prepare(self) -> None:
        """Make the tables, the queues and a key, without starting anything."""
        super().prepare()
        first, second = free_ports(2)
        self.api = self.new_api(first, "api-1")
        self.second_api = self.new_api(second, "api-2")
        self.worker = self.new_worker("worker-1")
        self.second_worker = self.new_worker("worker-2")
        self.dispatcher = self.new_dispatcher("dispatcher-1")
        self.second_dispatcher = self.new_dispatcher("dispatcher-2")
        self.balancer = HAProxy(self.servers.folder, (first, second), self.settings.api_port)

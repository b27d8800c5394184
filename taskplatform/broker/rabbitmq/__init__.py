"""The RabbitMQ driver: AMQP 0-9-1 spoken on the service's own event loop."""

from taskplatform.broker.rabbitmq.broker import RabbitMQBroker

__all__ = ["RabbitMQBroker"]

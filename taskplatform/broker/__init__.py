"""What carries the work: the contract, RabbitMQ, and Redis for the embedded platform."""

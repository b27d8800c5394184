"""The store on Postgres: asyncio for services, blocking calls for a worker's parent, and the migrations."""

"""The Celery side of taskplatform: worker processes that claim, run and finish jobs in batches."""

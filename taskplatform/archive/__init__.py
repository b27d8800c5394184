"""Ended jobs that the database no longer keeps, as compressed lines in an object store."""

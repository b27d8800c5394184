"""Named SQL statements, grouped by who asks."""

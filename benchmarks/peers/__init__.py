"""One module a side: its worker as its own documentation advises, its client, and where its results are."""

"""The cache of reads: what an entry holds, who may be shown it, and the server that keeps it."""

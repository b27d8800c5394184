"""Measurements of the platform beside its peers, all on the same servers in the same run."""

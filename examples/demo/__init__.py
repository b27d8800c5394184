"""The demo: some three hundred jobs on a platform of its own, and a verdict on how each ended."""

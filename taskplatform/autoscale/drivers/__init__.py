"""Those who start and stop workers: one module for each place where workers run."""

"""Job packs that do real work on real input, and a demo that runs them."""

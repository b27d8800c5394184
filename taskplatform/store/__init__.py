"""Where jobs are kept: the contract, the statements, and Postgres behind them."""

"""What pkgjail keeps between runs: where, how it is written, locked, compared and pruned."""

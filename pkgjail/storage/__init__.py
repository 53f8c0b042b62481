"""Data that pkgjail stores between runs: locations, writing, locks, fingerprints, baselines and pruning."""

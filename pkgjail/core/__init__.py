"""Modules that all packages of pkgjail share: types, errors, text, bounded reads. Standard library only."""

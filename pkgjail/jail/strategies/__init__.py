"""The ways to show one top directory of a jail; `pkgjail.jail.strategy` chooses."""

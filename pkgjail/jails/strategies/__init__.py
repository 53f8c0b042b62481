"""The strategies: the ways to show one top directory of a jail. `pkgjail.jails.strategy` chooses one."""

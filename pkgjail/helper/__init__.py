"""`pkgjaild`, a service of root that makes jails for users of hosts without user namespaces."""

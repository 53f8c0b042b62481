"""A whole Debian of its own that is changed for real while its jails are entered."""

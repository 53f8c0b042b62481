"""The settings of the site and of the user: which stage is the default, and which may be used."""

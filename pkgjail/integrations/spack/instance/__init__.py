"""What a Spack needs in the jail, by its own configuration, and what the jail lacks of it."""

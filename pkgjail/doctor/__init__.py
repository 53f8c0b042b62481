"""What this host offers, found by trying: stages, directories, kernel, package database, Spack."""

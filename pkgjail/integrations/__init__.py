"""Other programs that use pkgjail as a library."""

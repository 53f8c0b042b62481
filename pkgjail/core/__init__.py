"""What every room shares: types, errors, text, and bounded reads. Standard library only."""

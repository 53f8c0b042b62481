"""The verbs of the command line: each a thin shell over a public function."""

"""The command line: `main` parses and dispatches, `verbs` has one module a verb."""

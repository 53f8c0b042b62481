"""Commands without namespaces: Landlock refuses content, and a process beside the command hides names."""

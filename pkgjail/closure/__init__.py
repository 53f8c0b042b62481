"""The closure of a policy: every package that it needs, with a reason for each."""

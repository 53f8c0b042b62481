"""What a command looked for in its jail, as evidence: recorded, reported, and tried out by building again."""

"""Settings of a site and of a user: which stage commands run in, and which they may run in.

files   where the settings are, and whether they have changed; imported by every entry, and so light
model   settings, with the place that each value came from
read    reads and checks the files
"""

"""What a host offers for jails, found by trying, and what to do about what it does not.

model        the records of an examination
stages       each stage: what it promises, whether it works here, and if not, why
remedies     what an administrator or the user can do about a cause
kernel       the kernel, its settings, and how this process is confined
directories  the directories that pkgjail writes to
software     the package database, and Spack
examine      all of it
request      a text for the administrators of a site
"""

"""Commands without namespaces: Landlock keeps content away, and a supervisor answers for names.

The weakest way, for hosts that allow no other. docs/supervised.md says what it promises.

calls        the system calls that the supervisor answers, and those that nobody may make
view         the names that the command sees, and where a path leads among them
rules        Landlock's rules for them
processes    the processes of a run
opening      open(2) and stat(2), done by the supervisor
metadata     chmod(2) and the like, done by the supervisor
listing      directories, without the names that are not in the view
sockets      Unix sockets
supervisor   answers each call
launch       the processes of a run, from the start to the end
run          from a manifest to an exit status
"""

"""pkgjaild: a small service of root's that makes jails for users on hosts without user namespaces.

    client ── socket ──> daemon         accepts, counts, forks; reads nothing that a client sends
                           └──> keeper  one for each connection: root; reads and judges the request
                                  └──> worker   enters a mount namespace of its own, becomes the user,
                                                and makes the jail as `pkgjail run` does

A client sends its standard descriptors and a sealed file in memory with the manifest and the options. No
process of root's looks up a path that a client named: the worker does that, with the user's own rights. Each
process dies with the one before it, and all mounts are in namespaces that end with it. Read it in this order:

protocol    messages, descriptors, and sealed files in memory
peers       who is at the other end of a connection, and where that process lives
policy      what the administrator allows: /etc/pkgjaild.toml
signers     whether somebody whom the policy names signed a manifest
wishes      the options of a jail as data, checked when they are read
surroundings
            what a jail takes over from the process that asks: control group, limits, priorities
places      the directories of the service, and the caches of its users
server      the daemon
keeper      the process of a connection
worker      the process that becomes the user
client      the other end, for users' own processes
errors      the daemon's own errors
command     the command line of `pkgjaild`
"""

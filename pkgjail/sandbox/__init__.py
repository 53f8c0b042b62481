"""The sandbox: set up the namespaces and the root of a jail, and run a command in it.

This is the trust boundary. It uses only the standard library and nothing else of pkgjail. It takes plain
steps and returns the command's exit status. Read it in this order: `steps` is the data; `launch.run` starts
the processes; `rootfs` and `pseudo_filesystems` build the root; `seccomp` filters system calls; `proc_links`
refuses commands outside of the jail; `signals` and `terminal` connect the caller; `limits` and `cgroups`
limit what the jail uses. `syscalls` has the system calls that Python does not wrap.
"""

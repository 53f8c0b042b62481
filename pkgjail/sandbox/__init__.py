"""The sandbox: set up the namespaces and the root of a jail, and run a command in it.

This is the trust boundary. It uses only the standard library and nothing else of pkgjail. It takes plain
steps and returns the command's exit status. Read it in this order: `steps` is the data; `launch.run` starts
the processes, and `job` has what they share; `init` is the first process in the jail, which starts the
`command`; `rootfs` and `pseudo_filesystems` build the root; `id_maps` and `capabilities` decide what the jail
may do, `seccomp` and `id_calls` what its system calls answer; `proc_links` refuses commands outside of the
jail, and `executables` finds out why one cannot be executed; `signals` and `terminal` connect the caller;
`limits` and `cgroups` limit what the jail uses. `syscalls` has the system calls that Python does not wrap.
"""

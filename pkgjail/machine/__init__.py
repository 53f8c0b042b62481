"""Virtual machines: the files of a manifest in a machine of qemu, with a kernel of a distribution.

model             what a machine is
kernels           which kernel a machine starts
kernel_images     what a kernel's file says of itself
kernel_packages   the kernel of a Debian package that is not installed
modules           a kernel's modules, in the order of loading
initramfs         the archive that a kernel starts from
root_disk         the file system image of a manifest, kept in the cache
agent             the program in the guest, compiled once
frames            the messages between the agent and this side
qemu              the command line
accelerator       whether the host's processor can run a guest
contents          what a root has besides the files of its disk
scratch_disk      a disk for what commands write
boot              start a machine with the files of a manifest
running           a machine that runs, and its console
session           a command in a guest: its streams, terminal, signals and exit status
keeper            machines that are kept running
run               run a command in a machine of its own, or in one that is kept
shares            directories of the host in the guest
copies            directories that cannot be shared: their copies
changes           what commands changed in a copy, received from the guest
applying          the same changes, made in the directory that was copied
libvirt           the same machine as a domain of libvirt
"""

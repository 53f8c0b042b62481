/* The root that commands have: a read-only file system image, an overlay for names that each run adds, the
   kernel's file systems, and directories of the host. */

#define _GNU_SOURCE
#include "agent.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define TOP "/root"
#define IMAGE "/image"
#define SCRATCH "/scratch"
#define MOST_COPIES 64
#define READ_ONLY 1
#define ON_DISK 2
#define HARMLESS (MS_NOSUID | MS_NODEV)

static int root = -1;
static int uppers[MOST_COPIES] = {[0 ... MOST_COPIES - 1] = -1};

int root_upper(uint32_t number) { return number < MOST_COPIES ? uppers[number] : -1; }

/* Open a name of the root. Links lead to names in the root, too. */
static int open_inside(const char *path, int flags)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};

    return syscall(SYS_openat2, root, path, &how, sizeof how);
}

/* Open the directory that holds the last name of `path`, which is cut in two. */
static int open_parent(char *path, const char **name)
{
    char *slash = strrchr(path, '/');

    if (!slash) {
        errno = EINVAL;
        return -1;
    }
    *name = slash + 1;
    *slash = 0;
    return open_inside(slash == path ? "/" : path, O_PATH | O_DIRECTORY);
}

/* Make the directories of a path that are not there yet. */
static int make_directories(const char *path, mode_t mode)
{
    char *part = strdup(path), *at = part, *end;
    int failed = 0;

    for (end = part; !failed && *at; at = end) {
        char *whole, kept;
        const char *name;
        int parent;

        at += strspn(at, "/");
        end = at + strcspn(at, "/");
        kept = *end;
        *end = 0;
        if (*at && (parent = open_inside(part, O_PATH | O_DIRECTORY)) >= 0)
            close(parent);
        else if (*at) {
            whole = strdup(part);
            parent = open_parent(whole, &name);
            failed = parent < 0 || (mkdirat(parent, name, 0755) && errno != EEXIST);
            if (!failed && !kept)
                failed = fchmodat(parent, name, mode, 0);
            close(parent);
            free(whole);
        }
        *end = kept;
    }
    free(part);
    return failed ? -1 : 0;
}

static const char *overlay(const char *lower, const char *place, const char *target)
{
    char upper[80], work[80], options[512];
    struct stat found;

    snprintf(upper, sizeof upper, "%s/upper", place);
    snprintf(work, sizeof work, "%s/work", place);
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work);
    if ((mkdir(place, 0755) && errno != EEXIST) || mkdir(upper, 0755) || mkdir(work, 0755))
        return "make the directories of an overlay";
    /* The top of an overlay has the owner and mode that its upper directory has when it is mounted. */
    if (stat(lower, &found) || chown(upper, found.st_uid, found.st_gid) || chmod(upper, found.st_mode & 07777))
        return "prepare an overlay";
    return mount("overlay", target, "overlay", HARMLESS, options) ? "mount an overlay" : NULL;
}

/* The file system of the image, its device, a disk for scratch or "", options of scratch in memory. */
const char *root_mount(struct fields *fields)
{
    char *type = take_text(fields), *device = take_text(fields);
    char *disk = take_text(fields), *options = take_text(fields);
    const char *failed;

    if ((mkdir(TOP, 0755) && errno != EEXIST) || mkdir(IMAGE, 0755) || mkdir(SCRATCH, 0755))
        return "make mount points";
    if (mount(device, IMAGE, type, MS_RDONLY | HARMLESS, NULL))
        return "mount the image of the files";
    if (disk[0] ? mount(disk, SCRATCH, "ext4", HARMLESS, NULL)
                : mount("scratch", SCRATCH, "tmpfs", HARMLESS, options))
        return "mount the scratch space";
    failed = overlay(IMAGE, SCRATCH "/root", TOP);
    if (failed)
        return failed;
    root = open(TOP, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return root < 0 ? "open the root" : NULL;
}

/* The mode and the path. */
const char *root_directory(struct fields *fields)
{
    uint32_t mode = take_number(fields);
    char *path = take_text(fields);
    int failed = make_directories(path, mode);

    free(path);
    return failed ? "make a directory" : NULL;
}

/* The mode, the path and the content. */
const char *root_content(struct fields *fields)
{
    uint32_t mode = take_number(fields);
    char *path = take_text(fields);
    struct fields content = take_bytes(fields);
    const char *name;
    int parent = open_parent(path, &name), file = -1;

    if (parent >= 0) {
        unlinkat(parent, name, 0);
        file = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    }
    while (file >= 0 && content.at < content.end) {
        ssize_t done = write(file, content.at, content.end - content.at);

        if (done < 0)
            return "write a file";
        content.at += done;
    }
    if (file < 0 || fchmod(file, mode))
        return "make a file";
    close(file);
    close(parent);
    free(path);
    return NULL;
}

/* The path and the target. */
const char *root_symlink(struct fields *fields)
{
    char *path = take_text(fields), *target = take_text(fields);
    const char *name;
    int parent = open_parent(path, &name);
    int failed = parent < 0 || symlinkat(target, parent, name);

    close(parent);
    free(path);
    free(target);
    return failed ? "make a symbolic link" : NULL;
}

static const char *mount_copy(const char *type, const char *source, uint32_t number, const char *target)
{
    char lower[64], place[64], upper[80];
    const char *failed;

    snprintf(lower, sizeof lower, "/copy-%u", number);
    snprintf(place, sizeof place, SCRATCH "/copy-%u", number);
    snprintf(upper, sizeof upper, "%s/upper", place);
    if (number >= MOST_COPIES || mkdir(lower, 0755))
        return "make mount points";
    if (mount(source, lower, type, MS_RDONLY | HARMLESS, NULL))
        return "mount the copy of a directory";
    failed = overlay(lower, place, target);
    if (failed)
        return failed;
    uppers[number] = open(upper, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return uppers[number] < 0 ? "open a copy" : NULL;
}

/* The file system, its source, options, flags, the number of a copy, and the path. */
const char *root_share(struct fields *fields)
{
    char *type = take_text(fields), *source = take_text(fields), *options = take_text(fields);
    uint32_t flags = take_number(fields), number = take_number(fields);
    char *path = take_text(fields), target[64];
    const char *failed = NULL;
    int place;

    if (make_directories(path, 0755) || (place = open_inside(path, O_PATH | O_DIRECTORY)) < 0)
        return "make a mount point";
    snprintf(target, sizeof target, "/proc/self/fd/%d", place);
    if (flags & ON_DISK)
        failed = mount_copy(type, source, number, target);
    else if (mount(source, target, type, HARMLESS, options))
        failed = "mount a directory of the host";
    close(place);
    if (!failed && flags & READ_ONLY) {
        place = open_inside(path, O_PATH | O_DIRECTORY);
        snprintf(target, sizeof target, "/proc/self/fd/%d", place);
        if (place < 0 || mount(NULL, target, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | HARMLESS, NULL))
            failed = "make a directory read-only";
        close(place);
    }
    free(type);
    free(source);
    free(options);
    free(path);
    return failed;
}

/* The path of a directory that becomes an empty writable one. */
const char *root_scratch(struct fields *fields)
{
    static unsigned count;
    char *path = take_text(fields), target[64], place[64];
    int failed = make_directories(path, 01777), directory = open_inside(path, O_PATH | O_DIRECTORY);

    snprintf(target, sizeof target, "/proc/self/fd/%d", directory);
    snprintf(place, sizeof place, SCRATCH "/%u", count++);
    failed = failed || directory < 0 || mkdir(place, 0700) || chmod(place, 01777)
             || mount(place, target, NULL, MS_BIND, NULL);
    close(directory);
    free(path);
    return failed ? "make a writable directory" : NULL;
}

static const char *mount_on_itself(const char *path, unsigned long flags)
{
    char target[64];
    int place = open_inside(path, O_PATH | O_NOFOLLOW);
    const char *failed = NULL;

    snprintf(target, sizeof target, "/proc/self/fd/%d", place);
    if (place < 0 || mount(target, target, NULL, MS_BIND, NULL))
        failed = "protect a name";
    close(place);
    place = open_inside(path, O_PATH | O_NOFOLLOW);
    snprintf(target, sizeof target, "/proc/self/fd/%d", place);
    if (!failed && (place < 0 || mount(NULL, target, NULL, MS_REMOUNT | MS_BIND | flags, NULL)))
        failed = "make a name read-only";
    close(place);
    return failed;
}

/* The path of a name in a share, which becomes read-only. */
const char *root_keep(struct fields *fields)
{
    char *path = take_text(fields);
    const char *failed = mount_on_itself(path, MS_RDONLY | HARMLESS);

    free(path);
    return failed;
}

/* The path of a directory in a share, of which nothing is shown. */
const char *root_hide(struct fields *fields)
{
    char *path = take_text(fields), target[64];
    int place = open_inside(path, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    int failed;

    snprintf(target, sizeof target, "/proc/self/fd/%d", place);
    failed = place < 0 || mount("hidden", target, "tmpfs", MS_RDONLY | HARMLESS, "mode=555,size=4k");
    close(place);
    free(path);
    return failed ? "hide a directory" : NULL;
}

/* In a mount namespace of its own, a command could rename the directories above what is protected. */
const char *root_close_namespaces(void)
{
    int file = open("/proc/sys/user/max_user_namespaces", O_WRONLY | O_CLOEXEC);
    int failed = file < 0 || write(file, "0", 1) != 1;

    close(file);
    return failed ? "forbid user namespaces" : NULL;
}

static const char *fill_devices(void)
{
    static const struct { const char *name; unsigned major, minor; } nodes[] = {
        {"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
    };
    static const struct { const char *name, *target; } links[] = {
        {"ptmx", "pts/ptmx"}, {"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"},
        {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
    };
    char path[64];

    umask(0);
    if (mount("dev", TOP "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755"))
        return "mount /dev";
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
        snprintf(path, sizeof path, TOP "/dev/%s", nodes[i].name);
        if (mknod(path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)))
            return "make a device";
    }
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        snprintf(path, sizeof path, TOP "/dev/%s", links[i].name);
        if (symlink(links[i].target, path))
            return "make a link in /dev";
    }
    umask(022);
    if (mkdir(TOP "/dev/pts", 0755) || mkdir(TOP "/dev/shm", 0755))
        return "make a directory in /dev";
    if (mount("devpts", TOP "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "ptmxmode=666,mode=620,gid=5"))
        return "mount /dev/pts";
    if (mount("shm", TOP "/dev/shm", "tmpfs", HARMLESS, "mode=1777,size=25%"))
        return "mount /dev/shm";
    if (mount(NULL, TOP "/dev", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL))
        return "make /dev read-only";
    return NULL;
}

static struct sockaddr_in address_of(uint32_t number)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(number)}};
}

static int set_up(int socket, const char *name, uint32_t address, uint32_t mask)
{
    struct ifreq request = {0};
    struct sockaddr_in value;

    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    value = address_of(address);
    memcpy(&request.ifr_addr, &value, sizeof value);
    if (ioctl(socket, SIOCSIFADDR, &request))
        return -1;
    value = address_of(mask);
    memcpy(&request.ifr_netmask, &value, sizeof value);
    if (ioctl(socket, SIOCSIFNETMASK, &request))
        return -1;
    request.ifr_flags = IFF_UP;
    return ioctl(socket, SIOCSIFFLAGS, &request);
}

/* The address, mask and gateway of the interface eth0; an address of 0 is no network but the loopback. */
static const char *set_up_network(uint32_t address, uint32_t mask, uint32_t gateway)
{
    int plug = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
    struct sockaddr_in value;
    const char *failed = NULL;

    if (plug < 0 || set_up(plug, "lo", INADDR_LOOPBACK, 0xff000000))
        failed = "set up the loopback network";
    else if (address && set_up(plug, "eth0", address, mask))
        failed = "set up the network eth0";
    else if (address) {
        value = address_of(gateway);
        memcpy(&route.rt_gateway, &value, sizeof value);
        value = address_of(0);
        memcpy(&route.rt_dst, &value, sizeof value);
        memcpy(&route.rt_genmask, &value, sizeof value);
        if (ioctl(plug, SIOCADDRT, &route))
            failed = "set up the route to other networks";
    }
    close(plug);
    return failed;
}

/* The host name, and the network as three numbers. */
const char *root_seal(struct fields *fields)
{
    char *name = take_text(fields);
    uint32_t address = take_number(fields), mask = take_number(fields), gateway = take_number(fields);
    const char *failed;

    if (make_directories("/proc", 0555) || make_directories("/sys", 0555) || make_directories("/dev", 0755))
        return "make the directories of the kernel";
    if (mount("sysfs", TOP "/sys", "sysfs", MS_RDONLY | HARMLESS | MS_NOEXEC, NULL))
        return "mount /sys";
    failed = fill_devices();
    if (!failed)
        failed = set_up_network(address, mask, gateway);
    if (failed)
        return failed;
    if (sethostname(name, strlen(name)))
        return "set the host name";
    if (mount(NULL, TOP, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | HARMLESS, NULL))
        return "make the root read-only";
    free(name);
    return NULL;
}

static const char *mount_proc(void)
{
    static const char *const closed[] = {
        "/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi",
        "/proc/dynamic_debug", "/proc/mtrr", "/proc/scsi",
    };

    if (mount("proc", "/proc", "proc", HARMLESS | MS_NOEXEC, NULL))
        return "mount /proc";
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++) {
        if (access(closed[i], F_OK))
            continue;
        if (mount(closed[i], closed[i], NULL, MS_BIND, NULL)
            || mount(NULL, closed[i], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | HARMLESS | MS_NOEXEC, NULL))
            return "make settings of the kernel read-only";
    }
    return NULL;
}

/* What is in the namespace and not to be reached by a name would still count as shown: then a command could
   mount a whole /proc, or a writable /sys, in a user namespace of its own. See mount_too_revealing in Linux. */
static const char *leave_own(void)
{
    static const char *const own[] = {"/proc", "/sys", "/dev", IMAGE, SCRATCH};
    char lower[64];

    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (umount2(own[i], MNT_DETACH))
            return "leave the file systems of the agent";
    for (unsigned i = 0; i < MOST_COPIES; i++) {
        snprintf(lower, sizeof lower, "/copy-%u", i);
        if (umount2(lower, MNT_DETACH) && errno != ENOENT && errno != EINVAL)
            return "leave the file systems of the agent";
    }
    return NULL;
}

const char *root_enter(void)
{
    const char *failed = leave_own();

    if (failed)
        return failed;
    if (chdir(TOP) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
        return "enter the root";
    return mount_proc();
}

void root_unmount(void)
{
    /* Shares are written at once by the host; a scratch disk is thrown away. */
    sync();
}

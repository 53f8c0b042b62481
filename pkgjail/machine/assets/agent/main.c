/* Process 1 of the guest: the start, and the loop. */

#define _GNU_SOURCE
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define VERSION 1
#define MODULES "/modules"
#define CONNECTING 100000 /* microseconds between two looks */
#define MOST_POLLED 1024

static void print(const char *format, va_list values)
{
    char line[1024];
    int size = vsnprintf(line, sizeof line - 1, format, values);

    if (size < 0)
        return;
    if (size > (int)sizeof line - 2)
        size = sizeof line - 2;
    line[size++] = '\n';
    if (write(2, "pkgjail: ", 9) < 0 || write(2, line, size) < 0)
        return;
}

void say(const char *format, ...)
{
    va_list values;

    va_start(values, format);
    print(format, values);
    va_end(values);
}

static void power_off(void) __attribute__((noreturn));
static void power_off(void)
{
    /* qemu ends when the machine restarts, on every architecture; powering off needs ACPI or the like. */
    sync();
    for (;;) {
        reboot(RB_AUTOBOOT);
        sleep(1);
    }
}

void give_up(const char *format, ...)
{
    va_list values;

    va_start(values, format);
    print(format, values);
    va_end(values);
    if (getpid() != 1)
        _exit(125);
    power_off();
}

static int is_module(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static void load_modules(void)
{
    struct dirent **entries;
    int count = scandir(MODULES, &entries, is_module, alphasort);

    for (int i = 0; i < count; i++) {
        char path[512];
        int file;

        snprintf(path, sizeof path, MODULES "/%s", entries[i]->d_name);
        file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0 || (syscall(SYS_finit_module, file, "", 0) && errno != EEXIST))
            say("cannot load the module %s: %s", entries[i]->d_name, strerror(errno));
        close(file);
        unlink(path); /* its memory is the guest's */
        free(entries[i]);
    }
}

static void mount_own(void)
{
    static const struct { const char *path, *type; } own[] = {
        {"/dev", "devtmpfs"}, {"/proc", "proc"}, {"/sys", "sysfs"},
    };

    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        mkdir(own[i].path, 0755);
        if (mount(own[i].type, own[i].path, own[i].type, MS_NOSUID | MS_NOEXEC, NULL) && errno != EBUSY)
            give_up("cannot mount %s: %s", own[i].path, strerror(errno));
    }
}

static void answer(uint16_t session, const char *failed)
{
    if (failed)
        send_failure(session, FAILED, errno, failed);
    else
        send_message(session, DONE, NULL, 0);
}

static void handle(uint16_t session, uint16_t type, struct fields *fields)
{
    switch (type) {
    case ROOT: answer(session, root_mount(fields)); break;
    case DIRECTORY: answer(session, root_directory(fields)); break;
    case CONTENT: answer(session, root_content(fields)); break;
    case SYMLINK: answer(session, root_symlink(fields)); break;
    case MOUNT: answer(session, root_share(fields)); break;
    case SCRATCH: answer(session, root_scratch(fields)); break;
    case KEEP: answer(session, root_keep(fields)); break;
    case HIDE: answer(session, root_hide(fields)); break;
    case NO_NAMESPACES: answer(session, root_close_namespaces()); break;
    case SEAL: answer(session, root_seal(fields)); break;
    case CHANGES: changes_send(session, take_number(fields)); break;
    case SHUTDOWN: root_unmount(); power_off();
    case EXEC: command_start(session, fields); break;
    default: command_message(session, type, fields);
    }
}

static void greet(void)
{
    struct utsname names;
    struct bytes content = {0};

    uname(&names);
    add_number(&content, VERSION);
    add_text(&content, names.release, strlen(names.release));
    add_text(&content, names.machine, strlen(names.machine));
    send_message(0, READY, content.at, content.size);
    free(content.at);
}

static void loop(void)
{
    static struct pollfd polled[MOST_POLLED];
    int heard = 0;

    for (;;) {
        size_t count = 1 + command_polled(polled + 1, MOST_POLLED - 1);

        polled[0] = (struct pollfd){
            .fd = channel_descriptor(),
            .events = channel_wants_to_write() ? POLLIN | POLLOUT : POLLIN,
        };
        if (poll(polled, count, -1) < 0 && errno != EINTR)
            give_up("cannot poll: %s", strerror(errno));
        command_ready(polled + 1, count - 1);
        if (polled[0].revents & POLLHUP) {
            if (heard)
                give_up("the other side of the channel is gone");
            usleep(CONNECTING); /* a domain of libvirt starts before anybody connects */
            continue;
        }
        if (polled[0].revents & POLLIN) {
            heard = 1;
            channel_read(handle);
        }
        channel_write();
        while (waitpid(-1, NULL, WNOHANG) > 0) /* runners, whose news came by their sockets */
            ;
    }
}

int main(void)
{
    int console, adjustment;

    mount_own();
    console = open("/dev/console", O_RDWR | O_CLOEXEC);
    for (int number = 0; number < 3; number++)
        if (console >= 0 && console != number)
            dup2(console, number);
    signal(SIGPIPE, SIG_IGN);
    adjustment = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (adjustment >= 0 && write(adjustment, "-1000", 5) != 5)
        say("cannot protect the agent from the lack of memory: %s", strerror(errno));
    close(adjustment);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){MOST_OPEN, MOST_OPEN});
    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    load_modules();
    channel_open();
    greet();
    channel_write();
    loop();
}

/* Process 1 of a command's namespaces: it starts the command, passes signals on, and tells what becomes of it.
   When it ends, the kernel ends all that the command left. */

#define _GNU_SOURCE
#include "agent.h"
#include "runner.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define USUAL_OPEN 1024         /* as systemd sets these for services */
#define MOST_OF_A_COMMAND (512 << 10)

static void tell(int control, uint32_t kind, uint32_t number, const char *doing)
{
    struct news news = {.kind = kind, .number = number};

    snprintf(news.doing, sizeof news.doing, "%s", doing);
    send(control, &news, sizeof news, MSG_NOSIGNAL);
}

void runner_failed(int control, const char *doing) { tell(control, NEWS_FAILED, errno, doing); }

static int drop_privileges(const struct exec *exec)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};

    for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0))
            return -1;
    if (setgroups(exec->group_count, exec->groups) || setresgid(exec->gid, exec->gid, exec->gid)
        || setresuid(exec->uid, exec->uid, exec->uid))
        return -1;
    return syscall(SYS_capset, &header, none) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -1 : 0;
}

static void fail(int failure, const char *doing) __attribute__((noreturn));
static void fail(int failure, const char *doing)
{
    struct news news = {.kind = NEWS_FAILED, .number = errno};

    snprintf(news.doing, sizeof news.doing, "%s", doing);
    if (write(failure, &news, sizeof news) < 0)
        _exit(126);
    _exit(125);
}

static void execute(const struct exec *exec, const sigset_t *mask, int failure, const int streams[3])
{
    sigset_t output;

    sigemptyset(&output);
    sigaddset(&output, SIGTTOU); /* the kernel sends it to a background process */
    sigprocmask(SIG_BLOCK, &output, NULL);
    if (setpgid(0, 0) || (exec->terminal && tcsetpgrp(streams[0], getpid())))
        fail(failure, "make a process group");
    for (int i = 0; i < 3; i++)
        if (dup2(streams[i], i) < 0)
            fail(failure, "open the streams");
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){USUAL_OPEN, MOST_OF_A_COMMAND});
    if (exec->processes)
        setrlimit(RLIMIT_NPROC, &(struct rlimit){exec->processes, exec->processes});
    if (drop_privileges(exec))
        fail(failure, "drop privileges");
    umask(exec->umask);
    if (chdir(exec->cwd))
        fail(failure, "enter the working directory");
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvpe(exec->argv[0], exec->argv, exec->environment);
    fail(failure, "execute");
}

static void set_unprotected(void)
{
    int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (file >= 0 && write(file, "0", 1) != 1)
        say("cannot unprotect a command: %s", strerror(errno));
    close(file);
}

/* The path by which names are looked up is the command's own. */
static void set_path(char *const *environment)
{
    clearenv();
    for (; *environment; environment++)
        if (!strncmp(*environment, "PATH=", 5))
            putenv(*environment);
}

static void reap(int control, pid_t command)
{
    int status, ended = 0, result = 0;
    pid_t child;

    while ((child = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
        if (child != command)
            continue;
        if (WIFSTOPPED(status))
            tell(control, NEWS_STOPPED, WSTOPSIG(status), "");
        else {
            ended = 1;
            result = status;
        }
    }
    if (ended) {
        tell(control, NEWS_ENDED, result, "");
        _exit(0);
    }
}

static void pass_on(int control, pid_t command)
{
    uint32_t number;
    ssize_t got = recv(control, &number, sizeof number, MSG_DONTWAIT);

    if (got == 0) /* the agent is gone */
        _exit(0);
    if (got == sizeof number)
        kill(-command, number);
}

void runner_main(const struct exec *exec, int control, int input, int output, int errors)
{
    int streams[3] = {input, output, errors}, failure[2], signals, got;
    sigset_t children, before;
    const char *failed = root_enter();
    struct news news;
    pid_t command;

    if (failed) {
        runner_failed(control, failed);
        _exit(0);
    }
    /* In the command's session: otherwise its process group would be orphaned, which keys cannot stop. */
    if (exec->terminal && (setsid() < 0 || ioctl(input, TIOCSCTTY, 0))) {
        runner_failed(control, "make a session");
        _exit(0);
    }
    set_unprotected();
    set_path(exec->environment);
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, &before);
    signals = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0 || pipe2(failure, O_CLOEXEC) || (command = fork()) < 0) {
        runner_failed(control, "make a process");
        _exit(0);
    }
    if (!command)
        execute(exec, &before, failure[1], streams);
    close(failure[1]);
    for (int i = 0; i < 3; i++)
        if (i == 0 || streams[i] != streams[0])
            close(streams[i]);
    got = read(failure[0], &news, sizeof news);
    if (got == sizeof news) {
        send(control, &news, sizeof news, MSG_NOSIGNAL);
        _exit(0);
    }
    tell(control, NEWS_STARTED, 0, "");
    for (;;) {
        struct pollfd polled[2] = {{.fd = control, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
        struct signalfd_siginfo info;

        reap(control, command);
        if (poll(polled, 2, -1) < 0 && errno != EINTR)
            _exit(0);
        if (polled[1].revents && read(signals, &info, sizeof info) < 0 && errno != EAGAIN)
            _exit(0);
        if (polled[0].revents)
            pass_on(control, command);
    }
}

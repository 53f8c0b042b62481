/* The commands of the guest, one for each session: the agent's side. A runner in namespaces of its own starts
   each and tells what becomes of it, by a socket (`struct news`). */

#define _GNU_SOURCE
#include "agent.h"
#include "runner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define WINDOW (256 << 10)      /* bytes of a stream under way, as in `pkgjail.machine.frames` */
#define BLOCK (32 << 10)
#define ENTRIES 4               /* of a session, for poll(2) */

struct session {
    struct session *next;
    uint16_t number;
    int control, input, output, errors, terminal;
    int input_ends, has_ended, oom_before;
    uint32_t status;
    size_t windows[2];          /* bytes of output and errors that may still be sent */
    struct bytes waiting;       /* for input */
    size_t written;
};

static struct session *sessions;

static struct session *find(uint16_t number)
{
    struct session *found = sessions;

    while (found && found->number != number)
        found = found->next;
    return found;
}

static void close_once(int *descriptor)
{
    if (*descriptor >= 0)
        close(*descriptor);
    *descriptor = -1;
}

/* How often the kernel ended a process for want of memory, since the start. */
static int oom_kills(void)
{
    char line[128];
    int found = 0, number;
    FILE *file = fopen("/proc/vmstat", "re");

    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "oom_kill %d", &number) == 1)
            found = number;
    if (file)
        fclose(file);
    return found;
}

static void set_size(int terminal, uint32_t rows, uint32_t columns)
{
    struct winsize size = {.ws_row = rows, .ws_col = columns};

    ioctl(terminal, TIOCSWINSZ, &size);
}

static struct exec take_exec(struct fields *fields)
{
    struct exec exec = {.uid = take_number(fields), .gid = take_number(fields)};

    exec.group_count = take_number(fields);
    exec.groups = calloc(exec.group_count + 1, sizeof *exec.groups);
    for (size_t i = 0; i < exec.group_count; i++)
        exec.groups[i] = take_number(fields);
    exec.umask = take_number(fields);
    exec.processes = take_number(fields);
    exec.terminal = take_number(fields);
    exec.rows = take_number(fields);
    exec.columns = take_number(fields);
    exec.cwd = take_text(fields);
    exec.argv = take_texts(fields);
    exec.environment = take_texts(fields);
    return exec;
}

/* Three pairs: of each, [0] is the agent's end and [1] the command's. Those that are not made are -1. */
static int open_streams(const struct exec *exec, int pairs[3][2], int *terminal)
{
    int pipes[3][2];

    *terminal = -1;
    if (exec->terminal) {
        int number;

        *terminal = open("/root/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
        if (*terminal < 0 || ioctl(*terminal, TIOCSPTLCK, &(int){0}))
            return -1;
        set_size(*terminal, exec->rows, exec->columns);
        number = ioctl(*terminal, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (number < 0)
            return -1;
        for (int i = 0; i < 3; i++)
            pairs[i][1] = number;
        pairs[0][0] = dup(*terminal);
        pairs[1][0] = *terminal;
        return pairs[0][0] < 0 || fchown(number, exec->uid, -1) || fchmod(number, 0600) ? -1 : 0;
    }
    for (int i = 0; i < 3; i++) {
        int ours = i == 0; /* the agent writes input */

        if (pipe2(pipes[i], O_CLOEXEC))
            return -1;
        pairs[i][0] = pipes[i][ours];
        pairs[i][1] = pipes[i][!ours];
        fcntl(pairs[i][0], F_SETFL, O_NONBLOCK);
    }
    return 0;
}

/* The ends of pipes that are the agent's would keep them open, and the channel is not for commands. */
static void close_others(int control, int pairs[3][2])
{
    for (int number = 3; number < MOST_OPEN; number++)
        if (number != control && number != pairs[0][1] && number != pairs[1][1] && number != pairs[2][1])
            close(number);
}

static void run_in_namespaces(const struct exec *exec, int control, int pairs[3][2])
{
    pid_t child;

    close_others(control, pairs);
    if (unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC)
        || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || (child = fork()) < 0) {
        runner_failed(control, "make namespaces");
        _exit(1);
    }
    if (!child)
        runner_main(exec, control, pairs[0][1], pairs[1][1], pairs[2][1]);
    _exit(0);
}

static void close_pairs(int pairs[3][2], int which)
{
    for (int i = 0; i < 3; i++)
        if (pairs[i][which] >= 0 && (i == 0 || pairs[i][which] != pairs[0][which]))
            close(pairs[i][which]);
}

static void send_ended(uint16_t number, uint32_t status, uint32_t killed)
{
    struct bytes content = {0};

    add_number(&content, status);
    add_number(&content, killed);
    send_message(number, ENDED, content.at, content.size);
    free(content.at);
}

/* Starts the runner; returns its process, or -1 with nothing left of it. */
static pid_t start_runner(const struct exec *exec, struct session *session, int control[2], int pairs[3][2])
{
    pid_t child = -1;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control))
        return -1;
    if (!open_streams(exec, pairs, &session->terminal))
        child = fork();
    if (!child)
        run_in_namespaces(exec, control[1], pairs);
    if (child < 0) {
        int number = errno;

        close(control[0]);
        close_pairs(pairs, 0);
        if (session->terminal >= 0 && pairs[1][0] < 0)
            close(session->terminal);
        close(control[1]);
        close_pairs(pairs, 1);
        errno = number;
        return -1;
    }
    close(control[1]);
    close_pairs(pairs, 1);
    return child;
}

void command_start(uint16_t number, struct fields *fields)
{
    struct exec exec = take_exec(fields);
    struct session *session = calloc(1, sizeof *session);
    int control[2], pairs[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}};

    if (!session)
        give_up("no memory for a session");
    if (start_runner(&exec, session, control, pairs) < 0) {
        send_failure(number, NOT_STARTED, errno, "start a process for the command");
        send_ended(number, SIGKILL, 0);
        free(session);
        return;
    }
    session->number = number;
    session->control = control[0];
    session->input = pairs[0][0];
    session->output = pairs[1][0];
    session->errors = pairs[2][0];
    session->windows[0] = session->windows[1] = WINDOW;
    session->oom_before = oom_kills();
    session->next = sessions;
    sessions = session;
    /* The runner has a copy of all that the message said; this side's is left to the end of the guest. */
}

static void tell_taken(struct session *session, size_t size)
{
    struct bytes content = {0};

    add_number(&content, size);
    send_message(session->number, INPUT_TAKEN, content.at, content.size);
    free(content.at);
}

static void end_input(struct session *session)
{
    /* A terminal's input ends by its own character; only pipes are closed. */
    if (session->terminal < 0)
        close_once(&session->input);
}

static void write_input(struct session *session)
{
    struct bytes *waiting = &session->waiting;

    while (session->written < waiting->size) {
        size_t left = waiting->size - session->written;
        ssize_t done = session->input < 0 ? (ssize_t)left
                                          : write(session->input, waiting->at + session->written, left);

        if (done < 0 && errno == EAGAIN)
            return;
        if (done < 0) { /* nobody reads it: the rest is thrown away, as the writer of a pipe sees it */
            close_once(&session->input);
            continue;
        }
        session->written += done;
        tell_taken(session, done);
    }
    session->written = waiting->size = 0;
    if (session->input_ends)
        end_input(session);
}

static void end_stream(struct session *session, int which)
{
    int *stream = which ? &session->errors : &session->output;

    if (*stream < 0)
        return;
    close_once(stream);
    if (!which)
        session->terminal = -1;
    send_message(session->number, which ? ERRORS_END : OUTPUT_END, NULL, 0);
}

static void send_signal(struct session *session, uint32_t number)
{
    /* As the kernel's own, signals are not counted: those that the runner has no room for are not new. */
    if (session->control >= 0
        && send(session->control, &number, sizeof number, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN)
        say("cannot send the signal %u: %s", number, strerror(errno));
}

void command_message(uint16_t number, uint16_t type, struct fields *fields)
{
    struct session *session = find(number);
    uint32_t first, second;

    if (!session)
        return; /* it has ended meanwhile */
    switch (type) {
    case INPUT:
        add(&session->waiting, fields->at, fields->end - fields->at);
        write_input(session);
        break;
    case INPUT_END:
        session->input_ends = 1;
        write_input(session);
        break;
    case SIGNAL: send_signal(session, take_number(fields)); break;
    case RESIZE:
        first = take_number(fields);
        second = take_number(fields);
        if (session->terminal >= 0)
            set_size(session->terminal, first, second);
        break;
    case TAKEN:
        first = take_number(fields);
        if (first < 2)
            session->windows[first] += take_number(fields);
        break;
    case CLOSED:
        /* The next write of the command fails, as if it were connected directly. */
        end_stream(session, take_number(fields) != 0);
        break;
    default: give_up("a message has the unknown type %u", type);
    }
}

static int may_send(const struct session *session, int which)
{
    return session->windows[which] > 0 && channel_has_room();
}

size_t command_polled(struct pollfd *entries, size_t most)
{
    size_t count = 0;

    for (struct session *each = sessions; each && count + ENTRIES <= most; each = each->next) {
        entries[count++] = (struct pollfd){
            .fd = channel_has_room() ? each->control : -1, .events = POLLIN};
        entries[count++] = (struct pollfd){.fd = may_send(each, 0) ? each->output : -1, .events = POLLIN};
        entries[count++] = (struct pollfd){.fd = may_send(each, 1) ? each->errors : -1, .events = POLLIN};
        entries[count++] = (struct pollfd){
            .fd = each->waiting.size > each->written ? each->input : -1, .events = POLLOUT};
    }
    return count;
}

static void read_stream(struct session *session, int which)
{
    static char block[BLOCK];
    int *stream = which ? &session->errors : &session->output;
    size_t most = session->windows[which] < BLOCK ? session->windows[which] : BLOCK;
    ssize_t got = read(*stream, block, most);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got > 0) {
        send_message(session->number, which ? ERRORS : OUTPUT, block, got);
        session->windows[which] -= got;
        return;
    }
    end_stream(session, which); /* of a terminal, EIO says so */
}

static void hear(struct session *session)
{
    struct news news;
    ssize_t got = recv(session->control, &news, sizeof news, 0);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got < (ssize_t)sizeof news) { /* the runner is gone without a word */
        session->has_ended = 1;
        session->status = SIGKILL;
        close_once(&session->control);
        return;
    }
    switch (news.kind) {
    case NEWS_STARTED: send_message(session->number, STARTED, NULL, 0); break;
    case NEWS_FAILED: send_failure(session->number, NOT_STARTED, news.number, news.doing); break;
    case NEWS_STOPPED: {
        struct bytes content = {0};

        add_number(&content, news.number);
        send_message(session->number, STOPPED, content.at, content.size);
        free(content.at);
        break;
    }
    default:
        session->has_ended = 1;
        session->status = news.number;
        close_once(&session->control);
    }
}

static void finish(struct session **place)
{
    struct session *session = *place;

    send_ended(session->number, session->status, oom_kills() - session->oom_before);
    if (session->input >= 0)
        close(session->input);
    free(session->waiting.at);
    *place = session->next;
    free(session);
}

void command_ready(const struct pollfd *entries, size_t count)
{
    struct session *session = sessions, **place = &sessions;

    for (size_t i = 0; i + ENTRIES <= count; i += ENTRIES, session = session->next) {
        if (entries[i].revents)
            hear(session);
        if (entries[i + 1].revents)
            read_stream(session, 0);
        if (entries[i + 2].revents)
            read_stream(session, 1);
        if (entries[i + 3].revents)
            write_input(session);
    }
    while (*place) {
        /* All of its processes are gone, and so nobody holds the other ends of its streams. */
        if ((*place)->has_ended && (*place)->output < 0 && (*place)->errors < 0)
            finish(place);
        else
            place = &(*place)->next;
    }
}

/* The agent: process 1 of a guest. It sets up the root and runs commands, as messages ask.

   channel   messages, in both directions
   root      the root's file systems
   command   a command, in namespaces of its own
   changes   what a command changed in a copied directory
   main      the start, and the loop

   The messages are those of `pkgjail.machine.frames`. The other side is trusted; commands are not. */

#ifndef AGENT_H
#define AGENT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MOST_OPEN 4096          /* descriptors */

enum message {
    /* to the agent */
    ROOT = 1, DIRECTORY, CONTENT, SYMLINK, MOUNT, SEAL, CHANGES, SHUTDOWN, KEEP, HIDE, NO_NAMESPACES, SCRATCH,
    EXEC = 32, INPUT, INPUT_END, SIGNAL, RESIZE, TAKEN, CLOSED,
    /* from the agent */
    READY = 64, DONE, FAILED, CHANGE, CHANGE_CONTENT,
    STARTED = 96, NOT_STARTED, OUTPUT, ERRORS, OUTPUT_END, ERRORS_END, INPUT_TAKEN, STOPPED, ENDED,
};

/* A sequence of bytes that is read field by field. */
struct fields { const unsigned char *at, *end; };
/* A sequence of bytes that grows. */
struct bytes { unsigned char *at; size_t size, room; };

struct exec {
    uint32_t uid, gid, umask, terminal, rows, columns, processes;
    const char *cwd;
    gid_t *groups;
    size_t group_count;
    char **argv, **environment;
};

/* channel */
void channel_open(void);
int channel_descriptor(void);
int channel_wants_to_write(void);
int channel_has_room(void);
void channel_write(void);
/* Reads what there is and calls `handle` for each message. */
void channel_read(void (*handle)(uint16_t session, uint16_t type, struct fields *fields));
void send_message(uint16_t session, uint16_t type, const void *content, size_t size);
void send_failure(uint16_t session, uint16_t type, int number, const char *doing);
uint32_t take_number(struct fields *fields);
uint64_t take_long(struct fields *fields);
struct fields take_bytes(struct fields *fields);
char *take_text(struct fields *fields);
char **take_texts(struct fields *fields);
void add(struct bytes *to, const void *content, size_t size);
void add_number(struct bytes *to, uint32_t number);
void add_long(struct bytes *to, uint64_t number);
void add_text(struct bytes *to, const void *content, size_t size);

/* root: each returns NULL, or what failed, with errno */
const char *root_mount(struct fields *fields);
const char *root_directory(struct fields *fields);
const char *root_content(struct fields *fields);
const char *root_symlink(struct fields *fields);
const char *root_share(struct fields *fields);
const char *root_scratch(struct fields *fields);
const char *root_keep(struct fields *fields);
const char *root_hide(struct fields *fields);
const char *root_close_namespaces(void);
const char *root_seal(struct fields *fields);
/* In a command's namespaces: make the guest's root the process's own. */
const char *root_enter(void);
/* The upper directory of the copy with this number, or -1. */
int root_upper(uint32_t number);
void root_unmount(void);

/* command */
void command_start(uint16_t session, struct fields *fields);
void command_message(uint16_t session, uint16_t type, struct fields *fields);
/* For poll(2): fills at most `most` entries and returns how many. */
struct pollfd;
size_t command_polled(struct pollfd *entries, size_t most);
void command_ready(const struct pollfd *entries, size_t count);
/* In a command's process 1: runs the command, and returns never. */
void runner_main(const struct exec *exec, int control, int input, int output, int errors)
    __attribute__((noreturn));

/* changes */
void changes_send(uint16_t session, uint32_t number);

/* main */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void give_up(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif

/* What commands changed in a copied directory: a walk of its overlay's upper directory. */

#define _GNU_SOURCE
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define BLOCK (256 << 10)
#define DEEPEST 512

struct walk {
    uint16_t session;
    const char *failed;
    unsigned skipped;           /* special files, which are not sent */
};

static int is_opaque(int directory)
{
    char value = 0;

    return fgetxattr(directory, "trusted.overlay.opaque", &value, 1) == 1 && value == 'y';
}

static void send_change(const struct walk *walk, char kind, const struct stat *found, const char *path,
                        const void *target, size_t size)
{
    struct bytes content = {0};
    uint64_t time = found->st_mtim.tv_sec * 1000000000ull + found->st_mtim.tv_nsec;

    add(&content, &kind, 1);
    add_number(&content, found->st_mode & 07777);
    add_long(&content, time);
    add_long(&content, kind == 'f' ? (uint64_t)found->st_size : 0);
    add_text(&content, path, strlen(path));
    add_text(&content, target, size);
    send_message(walk->session, CHANGE, content.at, content.size);
    free(content.at);
}

static void send_block(const struct walk *walk, const void *block, size_t size)
{
    send_message(walk->session, CHANGE_CONTENT, block, size);
    /* All processes are gone: nothing else waits, and the channel may take its time. */
    while (channel_wants_to_write()) {
        channel_write();
        if (channel_wants_to_write())
            usleep(1000);
    }
}

static void send_file(struct walk *walk, int directory, const char *name, const char *path)
{
    static char block[BLOCK];
    struct stat found;
    uint64_t left;
    int file = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    if (file < 0 || fstat(file, &found)) {
        walk->failed = "read a changed file";
        return;
    }
    send_change(walk, 'f', &found, path, "", 0);
    for (left = found.st_size; left && !walk->failed;) {
        ssize_t got = read(file, block, left < BLOCK ? left : BLOCK);

        if (got <= 0)
            walk->failed = "read a changed file";
        else {
            send_block(walk, block, got);
            left -= got;
        }
    }
    close(file);
}

static void send_link(struct walk *walk, int directory, const char *name, const char *path,
                      const struct stat *found)
{
    char target[4096];
    ssize_t size = readlinkat(directory, name, target, sizeof target);

    if (size < 0)
        walk->failed = "read a changed link";
    else
        send_change(walk, 'l', found, path, target, size);
}

static void walk_directory(struct walk *walk, int directory, const char *path, int depth);

static void walk_name(struct walk *walk, int directory, const char *name, const char *path, int depth)
{
    struct stat found;
    int below;

    if (fstatat(directory, name, &found, AT_SYMLINK_NOFOLLOW)) {
        walk->failed = "look at a changed name";
        return;
    }
    if (S_ISDIR(found.st_mode)) {
        below = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below < 0 || depth >= DEEPEST) {
            walk->failed = "open a changed directory";
            return;
        }
        /* An opaque directory stands for none of the names that it had before. */
        send_change(walk, is_opaque(below) ? 'o' : 'd', &found, path, "", 0);
        walk_directory(walk, below, path, depth + 1);
    } else if (S_ISREG(found.st_mode))
        send_file(walk, directory, name, path);
    else if (S_ISLNK(found.st_mode))
        send_link(walk, directory, name, path, &found);
    else if (S_ISCHR(found.st_mode) && found.st_rdev == makedev(0, 0))
        send_change(walk, 'x', &found, path, "", 0);
    else
        walk->skipped++;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_name(const struct dirent *entry)
{
    return strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
}

/* Walks and closes a directory. */
static void walk_directory(struct walk *walk, int directory, const char *path, int depth)
{
    struct dirent **entries;
    int count = scandirat(directory, ".", &entries, is_name, by_name);

    if (count < 0) {
        walk->failed = "read a changed directory";
        close(directory);
        return;
    }
    for (int i = 0; i < count; i++) {
        size_t size = strlen(path) + strlen(entries[i]->d_name) + 2;
        char *whole = malloc(size);

        if (!whole)
            give_up("no memory for names");
        stpcpy(stpcpy(stpcpy(whole, path), *path ? "/" : ""), entries[i]->d_name);
        if (!walk->failed)
            walk_name(walk, directory, entries[i]->d_name, whole, depth);
        free(whole);
        free(entries[i]);
    }
    free(entries);
    close(directory);
}

void changes_send(uint16_t session, uint32_t number)
{
    struct walk walk = {.session = session};
    struct bytes content = {0};
    int upper = dup(root_upper(number));

    if (upper < 0)
        walk.failed = "find a copied directory";
    else
        walk_directory(&walk, upper, "", 0);
    if (walk.failed) {
        send_failure(session, FAILED, errno, walk.failed);
        return;
    }
    add_number(&content, walk.skipped);
    send_message(session, DONE, content.at, content.size);
    free(content.at);
}

/* Messages: a header of three little-endian numbers, the size of the content (32 bits), the session and the
   type (16 bits each); then the content. */

#include "agent.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEADER 8
#define MOST (64u << 20)        /* bytes of a message */
#define ENOUGH (1u << 20)       /* bytes that wait before streams are not read any more */
#define PORT "pkgjail"
#define CLASS "/sys/class/virtio-ports"

static int port = -1;
static struct bytes incoming, outgoing;
static size_t sent;

void add(struct bytes *to, const void *content, size_t size)
{
    if (to->size + size > to->room) {
        to->room = 2 * (to->size + size) + 4096;
        to->at = realloc(to->at, to->room);
        if (!to->at)
            give_up("no memory for messages");
    }
    if (size)
        memcpy(to->at + to->size, content, size);
    to->size += size;
}

void add_number(struct bytes *to, uint32_t number)
{
    number = htole32(number);
    add(to, &number, sizeof number);
}

void add_long(struct bytes *to, uint64_t number)
{
    number = htole64(number);
    add(to, &number, sizeof number);
}

void add_text(struct bytes *to, const void *content, size_t size)
{
    add_number(to, size);
    add(to, content, size);
}

static const void *take(struct fields *fields, size_t size)
{
    const void *found = fields->at;

    if ((size_t)(fields->end - fields->at) < size)
        give_up("a message is too short");
    fields->at += size;
    return found;
}

uint32_t take_number(struct fields *fields)
{
    uint32_t number;

    memcpy(&number, take(fields, sizeof number), sizeof number);
    return le32toh(number);
}

uint64_t take_long(struct fields *fields)
{
    uint64_t number;

    memcpy(&number, take(fields, sizeof number), sizeof number);
    return le64toh(number);
}

struct fields take_bytes(struct fields *fields)
{
    size_t size = take_number(fields);
    const unsigned char *at = take(fields, size);

    return (struct fields){at, at + size};
}

char *take_text(struct fields *fields)
{
    struct fields found = take_bytes(fields);
    char *text = strndup((const char *)found.at, found.end - found.at);

    if (!text)
        give_up("no memory for messages");
    return text;
}

char **take_texts(struct fields *fields)
{
    size_t count = take_number(fields);
    char **texts = count < MOST ? calloc(count + 1, sizeof *texts) : NULL;

    if (!texts)
        give_up("no memory for messages");
    for (size_t i = 0; i < count; i++)
        texts[i] = take_text(fields);
    return texts;
}

static int is_our_port(const char *name)
{
    char path[512], found[64] = "";
    FILE *file;

    snprintf(path, sizeof path, CLASS "/%s/name", name);
    file = fopen(path, "r");
    if (!file)
        return 0;
    if (!fgets(found, sizeof found, file))
        found[0] = 0;
    fclose(file);
    found[strcspn(found, "\n")] = 0;
    return !strcmp(found, PORT);
}

static int open_port(void)
{
    DIR *directory = opendir(CLASS);
    struct dirent *entry;
    char path[512];
    int found = -1;

    if (!directory)
        return -1;
    while (found < 0 && (entry = readdir(directory)))
        if (entry->d_name[0] != '.' && is_our_port(entry->d_name)) {
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            found = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        }
    closedir(directory);
    return found;
}

void channel_open(void)
{
    /* The device appears some time after its module is there. */
    for (int tries = 0; tries < 3000 && (port = open_port()) < 0; tries++)
        usleep(10000);
    if (port < 0)
        give_up("there is no channel: is virtio_console in the kernel?");
}

int channel_descriptor(void) { return port; }
int channel_wants_to_write(void) { return outgoing.size > 0; }
int channel_has_room(void) { return outgoing.size - sent < ENOUGH; }

void channel_write(void)
{
    while (sent < outgoing.size) {
        ssize_t done = write(port, outgoing.at + sent, outgoing.size - sent);

        if (done < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (done < 0)
            give_up("cannot write to the channel: %s", strerror(errno));
        sent += done;
    }
    if (sent == outgoing.size)
        sent = outgoing.size = 0;
    else if (sent > ENOUGH) {
        memmove(outgoing.at, outgoing.at + sent, outgoing.size - sent);
        outgoing.size -= sent;
        sent = 0;
    }
}

static void handle_all(void (*handle)(uint16_t, uint16_t, struct fields *))
{
    size_t done = 0;

    while (incoming.size - done >= HEADER) {
        struct fields header = {incoming.at + done, incoming.at + done + HEADER}, content;
        uint32_t size = take_number(&header), both = take_number(&header);

        if (size > MOST)
            give_up("a message is too long");
        if (incoming.size - done - HEADER < size)
            break;
        content = (struct fields){header.end, header.end + size};
        handle(both & 0xffff, both >> 16, &content);
        done += HEADER + size;
    }
    if (done) {
        memmove(incoming.at, incoming.at + done, incoming.size - done);
        incoming.size -= done;
    }
}

void channel_read(void (*handle)(uint16_t, uint16_t, struct fields *))
{
    static unsigned char block[1 << 16];
    ssize_t got = read(port, block, sizeof block);

    if (got < 0 && errno != EAGAIN && errno != EINTR)
        give_up("cannot read from the channel: %s", strerror(errno));
    if (got > 0)
        add(&incoming, block, got);
    handle_all(handle);
}

void send_message(uint16_t session, uint16_t type, const void *content, size_t size)
{
    add_number(&outgoing, size);
    add_number(&outgoing, session | (uint32_t)type << 16);
    add(&outgoing, content, size);
}

void send_failure(uint16_t session, uint16_t type, int number, const char *doing)
{
    struct bytes content = {0};

    add_number(&content, number);
    add_text(&content, doing, strlen(doing));
    send_message(session, type, content.at, content.size);
    free(content.at);
}

/* What a runner tells the agent, by a socket. */

#ifndef RUNNER_H
#define RUNNER_H

#include <stdint.h>

enum { NEWS_STARTED, NEWS_FAILED, NEWS_STOPPED, NEWS_ENDED };

struct news {
    uint32_t kind;
    uint32_t number;            /* an error, a signal, or the status of wait(2) */
    char doing[64];
};

void runner_failed(int control, const char *doing);

#endif

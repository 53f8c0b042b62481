/* What tests of an audit run in a jail: a static program that makes calls as no usual program does. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct stat found;

static int by_32_bits(const char *path) {
    /* access(2) of the 32-bit ABI takes an address below 4 GiB. */
    char *low = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    long result;
    strcpy(low, path);
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(33), "b"(low), "c"(0) : "memory", "r8", "r9", "r10", "r11");
    return result == 0 ? 0 : 1;
}

static volatile int stop;
static char shared[64];

static void *change(void *_) {
    (void)_;
    while (!stop) {
        memcpy(shared, "/usr/include/zlib.h", 20);
        memcpy(shared, "/usr/include/nope.h", 20);
    }
    return NULL;
}

static int install(unsigned int flags, unsigned int action, int number) {
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, steps};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

int main(int count, char **words) {
    const char *what = words[1], *path = count > 2 ? words[2] : "";
    if (!strcmp(what, "stat")) return stat(path, &found) ? 1 : 0;
    if (!strcmp(what, "32")) return by_32_bits(path);
    if (!strcmp(what, "at")) {
        int directory = open("/usr", O_RDONLY | O_DIRECTORY);
        return fstatat(directory, path, &found, 0) ? 1 : 0;
    }
    if (!strcmp(what, "opened")) {
        int file = open(path, O_RDONLY);
        return fstatat(file, "", &found, AT_EMPTY_PATH) ? 1 : 0;
    }
    if (!strcmp(what, "edge")) { /* a path that ends with the last page that is there */
        char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        munmap(page + 4096, 4096);
        char *start = page + 4096 - strlen(path) - 1;
        strcpy(start, path);
        stat(start, &found);
        return stat((char *)1, &found) && errno == EFAULT ? 0 : 1;
    }
    if (!strcmp(what, "long")) { /* 4,095 bytes, and one more, which the kernel refuses */
        static char name[4200];
        memset(name, '/', 4095);
        memcpy(name + 4095 - strlen(path), path, strlen(path));
        int one = stat(name, &found), ok = errno;
        name[4095] = 'x';
        return stat(name, &found) && errno == ENAMETOOLONG && one && ok == ENOENT ? 0 : 1;
    }
    if (!strcmp(what, "ring")) return syscall(425, 1, words) == -1 && errno == ENOSYS ? 0 : 1;
    if (!strcmp(what, "race")) {
        pthread_t other;
        pthread_create(&other, NULL, change, NULL);
        for (int i = 0; i < 2000; i++) stat(shared, &found);
        stop = 1;
        pthread_join(other, NULL);
        return 0;
    }
    if (!strcmp(what, "vanish")) { /* children that are killed while they are asked about */
        for (int i = 0; i < 300; i++) {
            pid_t child = fork();
            if (!child)
                for (;;) stat("/usr/include/zlib.h", &found);
            usleep(rand() % 2000);
            kill(child, SIGKILL);
            waitpid(child, NULL, 0);
        }
        return 0;
    }
    if (!strcmp(what, "threads")) { /* a thread that is not the first executes */
        if (!fork()) {
            execl(path, path, "stat", "/usr/include/zconf.h", NULL);
            _exit(9);
        }
        int status;
        wait(&status);
        return WEXITSTATUS(status) == 1 ? 0 : 1;
    }
    if (!strcmp(what, "notifier")) { /* there is one already: EBUSY */
        int made = install(SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_RET_USER_NOTIF, SYS_newfstatat);
        if (made != -1 || errno != EBUSY) return 1;
        return stat(path, &found) ? 0 : 1;
    }
    if (!strcmp(what, "filter")) { /* a filter of its own answers before the kernel looks anything up */
        if (install(0, SECCOMP_RET_ERRNO | EACCES, SYS_newfstatat)) return 1;
        int refused = stat(path, &found) && errno == EACCES;
        return refused && access("/usr/include/zconf.h", F_OK) ? 0 : 1;
    }
    if (!strcmp(what, "many")) { /* names that are nowhere */
        static char name[64];
        for (long i = 0; i < atol(path); i++) {
            snprintf(name, sizeof name, "/usr/include/nope-%ld.h", i);
            stat(name, &found);
        }
        return 0;
    }
    if (!strcmp(what, "forever"))
        for (;;) stat("/usr/include/zlib.h", &found);
    return 2;
}

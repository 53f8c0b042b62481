/* Looks at each path that standard input has, a line each, in every way, and prints what it finds.
 *
 * The same program runs under supervision and below a copy of what is to be seen there, so what it prints
 * must be the same. It prints no inode, no time, and no size of a directory.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void status(const char *what, int result, const struct stat *found) {
	if (result)
		printf(" %s:%d", what, errno);
	else
		printf(" %s:%o,%ld", what, found->st_mode, S_ISDIR(found->st_mode) ? 0 : (long)found->st_size);
}

static void list(const char *what, const char *path) {
	char *names[256];
	int count = 0;
	DIR *directory = opendir(path);
	if (!directory) {
		printf(" %s:%d", what, errno);
		return;
	}
	for (struct dirent *entry; (entry = readdir(directory)) && count < 256;)
		names[count++] = strdup(entry->d_name);
	closedir(directory);
	qsort(names, count, sizeof *names, by_name);
	printf(" %s:", what);
	for (int i = 0; i < count; i++) {
		printf("%s/", names[i]);
		free(names[i]);
	}
}

static void content(const char *what, int descriptor) {
	char text[64];
	ssize_t size = descriptor < 0 ? -1 : read(descriptor, text, sizeof text - 1);
	if (size < 0)
		printf(" %s:%d", what, errno);
	else
		printf(" %s:%.*s", what, (int)size, text);
	if (descriptor >= 0)
		close(descriptor);
}

static void look(const char *path) {
	struct stat found;
	struct statx more;
	struct statfs system;
	char text[4096];
	int root = open("/", O_PATH | O_DIRECTORY);
	int result = stat(path, &found);
	status("stat", result, &found);
	result = lstat(path, &found);
	status("lstat", result, &found);
	printf(" statx:%d", statx(root, path + 1, 0, STATX_TYPE, &more) ? errno : 0);
	printf(" access:%d", access(path, F_OK) ? errno : 0);
	printf(" statfs:%d", statfs(path, &system) ? errno : 0);
	ssize_t size = readlink(path, text, sizeof text);
	printf(" readlink:%.*s", (int)(size < 0 ? 0 : size), text);
	printf("%d", size < 0 ? errno : 0);
	content("open", open(path, O_RDONLY));
	content("nofollow", open(path, O_RDONLY | O_NOFOLLOW));
	content("openat", openat(root, path + 1, O_RDONLY));
	int opened = open(path, O_PATH);
	printf(" path:%d", opened < 0 ? errno : 0);
	if (opened >= 0)
		close(opened);
	list("list", path);
	if (chdir(path))
		printf(" chdir:%d", errno);
	else {
		list("here", ".");
		list("above", "..");
		content("relative", open("1", O_RDONLY));
	}
	if (chdir("/"))
		abort();
	close(root);
}

int main(void) {
	char line[8192];
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		printf("%s", line);
		look(line);
		printf("\n");
	}
	return 0;
}

/* Stands in for a tool that a guest has taken over: says what it can do. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *what, int can) { printf("%s: %s\n", what, can ? "yes" : strerror(errno)); }

static void list(const char *path, int depth) {
	DIR *dir = opendir(path);
	struct dirent *entry;
	if (!dir) return;
	while ((entry = readdir(dir))) {
		char below[4096];
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
		snprintf(below, sizeof below, "%s/%s", strcmp(path, "/") ? path : "", entry->d_name);
		printf("sees %s\n", below);
		if (depth) list(below, depth - 1);
	}
	closedir(dir);
}

static void *thread(void *said) { return said; }

int main(int count, char **words) {
	const char *what = count > 1 ? words[1] : "";
	char cwd[4096];
	if (!strcmp(what, "memory")) {
		size_t all = 0, part = 16 << 20;
		char *got;
		while (all < (4UL << 30) && (got = malloc(part))) { memset(got, 1, part); all += part; }
		printf("%zu MiB\n", all >> 20);
		all = 0;
		while (all < (4UL << 30)) {
			got = mmap(0, part, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
			if (got == MAP_FAILED) break;
			memset(got, 1, part);
			all += part;
		}
		printf("%zu MiB shared\n", all >> 20);
		return 0;
	}
	if (!strcmp(what, "time")) for (;;) {}
	if (!strcmp(what, "wait")) for (;;) pause();
	if (!strcmp(what, "status")) return 7;
	if (!strcmp(what, "fault")) *(volatile int *)8 = 1;
	if (!strcmp(what, "abort")) abort();
	printf("uid %d gid %d pid %d\n", getuid(), getgid(), getpid());
	say("directory", getcwd(cwd, sizeof cwd) && printf("in %s\n", cwd));
	list("/", 0);
	list("/etc", 0);
	list("/dev", 1);
	for (int at = 2; at < count; at++) {
		char name[4200];
		int fd;
		snprintf(name, sizeof name, "read %s", words[at]);
		say(name, open(words[at], O_RDONLY) >= 0);
		snprintf(name, sizeof name, "write %s", words[at]);
		fd = open(words[at], O_WRONLY);
		say(name, fd >= 0 && write(fd, "changed", 7) == 7);
		snprintf(name, sizeof name, "new %s.new", words[at]);
		snprintf(cwd, sizeof cwd, "%s.new", words[at]);
		say(name, open(cwd, O_WRONLY | O_CREAT, 0600) >= 0);
	}
	say("inet", socket(AF_INET, SOCK_STREAM, 0) >= 0);
	say("unix", socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
	say("netlink", socket(AF_NETLINK, SOCK_RAW, 0) >= 0);
	say("kill the parent", kill(getppid() ? getppid() : 1, 0) == 0);
	say("kill all", kill(-1, 0) == 0);
	say("trace", ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
	say("namespace", unshare(CLONE_NEWUSER) == 0);
	say("root", setuid(0) == 0 && getuid() == 0);
	say("device", mknod("/dev/mem", S_IFCHR | 0600, 0x101) == 0);
	say("mount", mount("none", "/", "tmpfs", 0, 0) == 0);
	say("memfd", memfd_create("x", 0) >= 0);
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) _exit(0);
	say("fork", child > 0);
	pthread_t one;
	void *said = 0;
	errno = pthread_create(&one, 0, thread, "ran");
	if (!errno) pthread_join(one, &said);
	say("thread", said != 0);
	fflush(stdout);
	execl("/bin/sh", "sh", "-c", "echo a shell", (char *)0);
	say("shell", 0);
	return 0;
}

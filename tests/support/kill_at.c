/* Counts the calls that make files durable, and at the Nth ends the process or answers with an error.
 *
 * Preloaded (LD_PRELOAD) into the service. The settings come from the variable KILL_AT when the library is loaded,
 * which unsets it: the service clears its environment, and its children, which inherit LD_PRELOAD, must not act. A
 * process that was forked with the library in it calls kill_at_arm() instead. Only the process that was armed acts.
 *
 * The settings are lines NAME=VALUE:
 *   folder=PATH    calls on files in this folder are counted (may be given several times)
 *   except=PATH    but not those on paths that begin so (may be given several times)
 *   calls=A,B,C    the calls that are counted, of the names in CALLS below
 *   number=N       the call at which something happens, from 1; 0: only count
 *   action=kill    SIGKILL instead of the call; or EIO or ENOSPC: the call does nothing and fails with this error;
 *                  or slow: the call is made after `seconds`
 *   seconds=S      whole seconds that a slow call waits
 *   switch=PATH    things happen only while this file is there
 *   times=K        so many calls fail, from the Nth on; 0: all of them
 *   trace=PATH     a line for each call that was counted: "N CALL PATH ACTION"
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define MOST_FOLDERS 8
#define EVERY_CALL ((1u << CALLS_KNOWN) - 1)

enum call { FSYNC, FDATASYNC, RENAME, LINK, UNLINK, FTRUNCATE, PWRITE, WRITE, CALLS_KNOWN };
static const char *const CALLS[CALLS_KNOWN] = {"fsync",  "fdatasync", "rename", "link",
                                               "unlink", "ftruncate", "pwrite", "write"};

static struct {
    pid_t process; /* 0: nothing is counted */
    char folders[MOST_FOLDERS][PATH_MAX], excepted[MOST_FOLDERS][PATH_MAX];
    int folder_count, excepted_count;
    unsigned calls; /* a bit for each */
    long number, times, seen;
    int error; /* 0: kill, or slow */
    unsigned seconds; /* 0: not slow */
    char on[PATH_MAX]; /* empty: always */
    int trace;
} armed = {.trace = -1};
static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;

static void set_calls(const char *names) {
    armed.calls = 0;
    for (int call = 0; call < CALLS_KNOWN; call++) {
        size_t length = strlen(CALLS[call]);
        for (const char *at = names; (at = strstr(at, CALLS[call])) != NULL; at += length)
            if ((at == names || at[-1] == ',') && (at[length] == ',' || at[length] == '\0')) armed.calls |= 1u << call;
    }
}

static void set(const char *name, const char *value) {
    if (!strcmp(name, "folder") && armed.folder_count < MOST_FOLDERS)
        snprintf(armed.folders[armed.folder_count++], PATH_MAX, "%s", value);
    else if (!strcmp(name, "except") && armed.excepted_count < MOST_FOLDERS)
        snprintf(armed.excepted[armed.excepted_count++], PATH_MAX, "%s", value);
    else if (!strcmp(name, "calls"))
        set_calls(value);
    else if (!strcmp(name, "number"))
        armed.number = atol(value);
    else if (!strcmp(name, "times"))
        armed.times = atol(value);
    else if (!strcmp(name, "action"))
        armed.error = !strcmp(value, "EIO") ? EIO : !strcmp(value, "ENOSPC") ? ENOSPC : 0;
    else if (!strcmp(name, "seconds"))
        armed.seconds = (unsigned)atol(value);
    else if (!strcmp(name, "switch"))
        snprintf(armed.on, PATH_MAX, "%s", value);
    else if (!strcmp(name, "trace"))
        armed.trace = open(value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

void kill_at_arm(const char *settings) {
    char *copy = strdup(settings), *rest = copy, *line;
    armed.calls = EVERY_CALL;
    armed.times = 1;
    while ((line = strsep(&rest, "\n")) != NULL) {
        char *value = strchr(line, '=');
        if (value == NULL) continue;
        *value++ = '\0';
        set(line, value);
    }
    free(copy);
    armed.process = getpid();
}

__attribute__((constructor)) static void load(void) {
    const char *settings = getenv("KILL_AT");
    if (settings == NULL) return;
    kill_at_arm(settings);
    unsetenv("KILL_AT");
}

static int begins(const char *path, const char *start) { return strncmp(path, start, strlen(start)) == 0; }

static int in_scope(const char *path) {
    int found = 0;
    for (int i = 0; i < armed.folder_count; i++) {
        size_t length = strlen(armed.folders[i]);
        found |= begins(path, armed.folders[i]) && (path[length] == '/' || path[length] == '\0');
    }
    for (int i = 0; i < armed.excepted_count; i++) found &= !begins(path, armed.excepted[i]);
    return found;
}

static int path_of_descriptor(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0 || path[0] != '/') return 0; /* a pipe, a socket */
    path[length] = '\0';
    return 1;
}

static int path_of_name(int folder, const char *name, char *path) {
    char base[PATH_MAX];
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return 1;
    }
    if (folder == AT_FDCWD ? getcwd(base, sizeof base) == NULL : !path_of_descriptor(folder, base)) return 0;
    return snprintf(path, PATH_MAX, "%s/%s", base, name) < PATH_MAX;
}

/* Whether the call may go on; if not, errno says why. Does not return where the process is to end. */
static int may(enum call call, const char *path) {
    int error = 0;
    if (!in_scope(path)) return 1;
    pthread_mutex_lock(&counting);
    long seen = ++armed.seen;
    int acts = armed.number > 0 && seen >= armed.number && (armed.times == 0 || seen < armed.number + armed.times) &&
               (armed.on[0] == '\0' || syscall(SYS_access, armed.on, F_OK) == 0);
    if (armed.trace >= 0) {
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%ld %s %s %s\n", seen, CALLS[call], path,
                              !acts ? "done" : armed.seconds ? "slow" : !armed.error ? "kill" : armed.error == EIO ? "EIO" : "ENOSPC");
        if (length > 0) syscall(SYS_write, armed.trace, line, (size_t)length);
    }
    if (acts && armed.seconds) { /* other threads go on meanwhile */
        pthread_mutex_unlock(&counting);
        sleep(armed.seconds);
        return 1;
    }
    if (acts && armed.error == 0) { /* the lock is kept: no other thread makes a further call */
        syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
        for (;;) pause();
    }
    if (acts) error = armed.error;
    pthread_mutex_unlock(&counting);
    if (error) errno = error;
    return error == 0;
}

static int counts(enum call call) {
    return armed.process != 0 && (armed.calls & (1u << call)) && getpid() == armed.process;
}

static int may_descriptor(enum call call, int descriptor) {
    char path[PATH_MAX];
    int before = errno, goes_on = 1;
    if (!counts(call)) return 1;
    if (path_of_descriptor(descriptor, path)) {
        errno = before;
        goes_on = may(call, path);
    }
    if (goes_on) errno = before;
    return goes_on;
}

static int may_name(enum call call, int folder, const char *name) {
    char path[PATH_MAX];
    int before = errno, goes_on = 1;
    if (!counts(call)) return 1;
    /* What is not there is not removed: such calls are many and change nothing. */
    if (path_of_name(folder, name, path) && (call != UNLINK || faccessat(folder, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)) {
        errno = before;
        goes_on = may(call, path);
    }
    if (goes_on) errno = before;
    return goes_on;
}

#define REAL(name, type, ...)                                                   \
    static type (*real)(__VA_ARGS__);                                           \
    if (real == NULL) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

int fsync(int fd) {
    REAL("fsync", int, int);
    return may_descriptor(FSYNC, fd) ? real(fd) : -1;
}

int fdatasync(int fd) {
    REAL("fdatasync", int, int);
    return may_descriptor(FDATASYNC, fd) ? real(fd) : -1;
}

int ftruncate(int fd, off_t length) {
    REAL("ftruncate", int, int, off_t);
    return may_descriptor(FTRUNCATE, fd) ? real(fd, length) : -1;
}

int ftruncate64(int fd, off64_t length) {
    REAL("ftruncate64", int, int, off64_t);
    return may_descriptor(FTRUNCATE, fd) ? real(fd, length) : -1;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL("pwrite", ssize_t, int, const void *, size_t, off_t);
    return may_descriptor(PWRITE, fd) ? real(fd, data, size, at) : -1;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL("pwrite64", ssize_t, int, const void *, size_t, off64_t);
    return may_descriptor(PWRITE, fd) ? real(fd, data, size, at) : -1;
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL("write", ssize_t, int, const void *, size_t);
    return may_descriptor(WRITE, fd) ? real(fd, data, size) : -1;
}

int rename(const char *from, const char *to) {
    REAL("rename", int, const char *, const char *);
    return may_name(RENAME, AT_FDCWD, to) ? real(from, to) : -1;
}

int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    REAL("renameat", int, int, const char *, int, const char *);
    return may_name(RENAME, to_fd, to) ? real(from_fd, from, to_fd, to) : -1;
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
    REAL("renameat2", int, int, const char *, int, const char *, unsigned);
    return may_name(RENAME, to_fd, to) ? real(from_fd, from, to_fd, to, flags) : -1;
}

int link(const char *from, const char *to) {
    REAL("link", int, const char *, const char *);
    return may_name(LINK, AT_FDCWD, to) ? real(from, to) : -1;
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    REAL("linkat", int, int, const char *, int, const char *, int);
    return may_name(LINK, to_fd, to) ? real(from_fd, from, to_fd, to, flags) : -1;
}

int unlink(const char *name) {
    REAL("unlink", int, const char *);
    return may_name(UNLINK, AT_FDCWD, name) ? real(name) : -1;
}

int unlinkat(int folder, const char *name, int flags) {
    REAL("unlinkat", int, int, const char *, int);
    return (flags & AT_REMOVEDIR) || may_name(UNLINK, folder, name) ? real(folder, name, flags) : -1;
}

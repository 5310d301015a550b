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
 *   disk=PATH      what is synced in this folder is kept, as the disk would have it after a power failure,
 *   kept=PATH      in this folder: K is a copy of the file at the Kth sync, or the names of a folder, as lines
 *                  "INODE MODE NAME"; `syncs` has a line for each, "K N INODE MODE MTIME SITE DONE", MODE in octal, MTIME
 *                  in nanoseconds, SITE as kill_at_from() was told, DONE kept or dropped
 *   without=SITE   syncs of this site do nothing and say that they did
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define MOST_FOLDERS 8
#define SITE_MAX 128
#define PIECE (1 << 16)
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
    char disk[PATH_MAX], without[SITE_MAX];
    int kept, syncs_log; /* descriptors; -1: nothing is kept */
    long syncs;
} armed = {.trace = -1, .kept = -1, .syncs_log = -1};
static __thread char site[SITE_MAX]; /* of the program, from which this thread syncs; empty: of a library */
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
    else if (!strcmp(name, "disk"))
        snprintf(armed.disk, PATH_MAX, "%s", value);
    else if (!strcmp(name, "without"))
        snprintf(armed.without, SITE_MAX, "%s", value);
    else if (!strcmp(name, "kept")) {
        armed.kept = open(value, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        armed.syncs_log = openat(armed.kept, "syncs", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    }
}

void kill_at_from(const char *said) { snprintf(site, SITE_MAX, "%s", said); }

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

/* By this descriptor itself where it may read: SQLite's locks end when another one of its file is closed. */
static void keep_file(int from, int to) {
    char piece[PIECE], link[64];
    int own = -1;
    if ((fcntl(from, F_GETFL) & O_ACCMODE) == O_WRONLY) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", from);
        from = own = open(link, O_RDONLY | O_CLOEXEC);
    }
    ssize_t size;
    for (off_t at = 0; (size = pread(from, piece, PIECE, at)) > 0; at += size) syscall(SYS_write, to, piece, (size_t)size);
    if (own >= 0) close(own);
}

static void keep_names(int folder, int to) {
    int own = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *names = own < 0 ? NULL : fdopendir(own);
    if (names == NULL) return;
    for (struct dirent *entry; (entry = readdir(names)) != NULL;) {
        char line[NAME_MAX + 64];
        struct stat found;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (fstatat(own, entry->d_name, &found, AT_SYMLINK_NOFOLLOW) != 0) continue;
        int length = snprintf(line, sizeof line, "%lu %o %s\n", (unsigned long)found.st_ino, found.st_mode, entry->d_name);
        syscall(SYS_write, to, line, (size_t)length);
    }
    closedir(names);
}

static int ends(const char *path, const char *end) {
    size_t length = strlen(path), size = strlen(end);
    return length >= size && !strcmp(path + length - size, end);
}

/* Only a sync whose line was written happened: a process that is killed before has not been told of it. */
static int sync_and_keep(int descriptor, int (*real)(int)) {
    char path[PATH_MAX], name[32], line[SITE_MAX + 160];
    struct stat found;
    if (armed.kept < 0 || getpid() != armed.process || !path_of_descriptor(descriptor, path) ||
        !begins(path, armed.disk) || fstat(descriptor, &found) != 0)
        return real(descriptor);
    const char *from = site[0] ? site : S_ISDIR(found.st_mode) ? "sqlite:folder" : ends(path, "-wal") ? "sqlite:wal"
                     : ends(path, "-journal") ? "sqlite:journal" : "sqlite:database";
    int dropped = !strcmp(from, armed.without), result = 0;
    pthread_mutex_lock(&counting);
    long number = ++armed.syncs, seen = armed.seen;
    pthread_mutex_unlock(&counting);
    if (!dropped) {
        snprintf(name, sizeof name, "%ld", number);
        int to = openat(armed.kept, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        S_ISDIR(found.st_mode) ? keep_names(descriptor, to) : keep_file(descriptor, to);
        close(to);
        result = real(descriptor);
    }
    int length = snprintf(line, sizeof line, "%ld %ld %lu %o %ld%09ld %s %s\n", number, seen, (unsigned long)found.st_ino,
                          found.st_mode, (long)found.st_mtim.tv_sec, found.st_mtim.tv_nsec, from, dropped ? "dropped" : "kept");
    if (result == 0) syscall(SYS_write, armed.syncs_log, line, (size_t)length);
    return result;
}

#define REAL(name, type, ...)                                                   \
    static type (*real)(__VA_ARGS__);                                           \
    if (real == NULL) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

int fsync(int fd) {
    REAL("fsync", int, int);
    return may_descriptor(FSYNC, fd) ? sync_and_keep(fd, real) : -1;
}

int fdatasync(int fd) {
    REAL("fdatasync", int, int);
    return may_descriptor(FDATASYNC, fd) ? sync_and_keep(fd, real) : -1;
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

/* The wall clock, set ahead or back by the seconds that stand in a file: eight bytes, a native signed integer.
 *
 * Preloaded (LD_PRELOAD) into a process and its children. The file's path comes from the variable WALL_CLOCK when the
 * library is loaded, and the file is mapped then: the service clears its environment. Other clocks are left as they are.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *ahead;

__attribute__((constructor)) static void load(void) {
    const char *path = getenv("WALL_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) ahead = mapped;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *found) {
    int status = (int)syscall(SYS_clock_gettime, clock, found);
    if (status == 0 && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) found->tv_sec += *ahead;
    return status;
}

int gettimeofday(struct timeval *restrict found, void *restrict zone) {
    struct timespec moment;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &moment) != 0) return -1;
    found->tv_sec = moment.tv_sec;
    found->tv_usec = moment.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *found) {
    struct timespec moment;
    clock_gettime(CLOCK_REALTIME, &moment);
    if (found) *found = moment.tv_sec;
    return moment.tv_sec;
}

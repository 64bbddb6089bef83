/* A machine whose clock somebody sets: loaded before a program (LD_PRELOAD), it moves the wall clock by as many
   seconds as the file $CLOCK_AHEAD says. Clocks that nobody can set stay as they are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int64_t ahead_s(void) {
    static const volatile int64_t none = 0;
    static const volatile int64_t *ahead = NULL;
    if (ahead == NULL) {
        const char *path = getenv("CLOCK_AHEAD");
        int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
        void *page = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
        ahead = page == MAP_FAILED ? &none : page;
        if (fd >= 0) close(fd);
    }
    return *ahead;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *) = NULL;
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead_s();
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec precise;
    if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
    if (now != NULL) *now = precise.tv_sec;
    return precise.tv_sec;
}

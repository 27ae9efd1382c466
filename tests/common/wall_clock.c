/* A wall clock that is wrong, for a process that is started with this in LD_PRELOAD. LEASEHOLD_WALL_CLOCK says how:
 * seconds to add ("+3600"), a time at which it stands still ("=1795262400"), or a file that holds one of the two. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    const char *how = getenv("LEASEHOLD_WALL_CLOCK");
    char text[32] = "";
    if (failed || clock != CLOCK_REALTIME || !how) return failed;
    if (*how == '/') {
        FILE *file = fopen(how, "r");
        if (!file) abort();
        if (!fgets(text, sizeof text, file)) abort();
        fclose(file);
        how = text;
    }
    if (*how == '=') {
        now->tv_sec = atol(how + 1);
        now->tv_nsec = 0;
    } else {
        now->tv_sec += atol(how);
    }
    return 0;
}

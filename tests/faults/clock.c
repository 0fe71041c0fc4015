/* A clock that is wrong by as many seconds as a file says: put before libc by LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long *shift;
static int (*real_clock)(clockid_t, struct timespec *);
static int (*real_day)(struct timeval *, void *);

static long seconds(void)
{
    if (!shift) {
        const char *file = getenv("CLOCK_SHIFT_FILE");
        int fd = file ? open(file, O_RDONLY) : -1;
        void *page = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, fd, 0);
        if (fd >= 0)
            close(fd);
        if (page == MAP_FAILED)
            return 0;
        shift = page;
    }
    return *shift;
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    if (!real_clock)
        real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real_clock(id, now);
    if (id == CLOCK_REALTIME)
        now->tv_sec += seconds();
    return done;
}

int gettimeofday(struct timeval *now, void *zone)
{
    if (!real_day)
        real_day = dlsym(RTLD_NEXT, "gettimeofday");
    int done = real_day(now, zone);
    now->tv_sec += seconds();
    return done;
}

time_t time(time_t *out)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

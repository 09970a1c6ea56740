/* Loaded before the C library: makes the writes and syncs of a database fail while a file says so.
   FAULT_CONTROL names that file; its first byte is the fault:
     f  the disk is full: writes to the database and its log give ENOSPC
     s  syncs of them give EIO
     w  writes to the log give EIO, and with them every COMMIT
     g  the disk of PostgreSQL's tables is full: writes that make a file of them longer give ENOSPC
     >  the clock is two hours ahead
     <  the clock is four hours behind */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char current_fault(void) {
    static const volatile char *control;
    if (!control) {
        const char *path = getenv("FAULT_CONTROL");
        int fd = path ? open(path, O_RDONLY) : -1;
        void *page = fd < 0 ? MAP_FAILED : mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0);
        if (fd >= 0) close(fd);
        if (page == MAP_FAILED) return '-';
        control = page;
    }
    return *control;
}

/* Is it a file whose name has this in it? */
static int is_file(int fd, const char *part) {
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0) return 0;
    name[length] = 0;
    return strstr(name, part) != NULL;
}

static int write_fails(int fd) {
    char fault = current_fault();
    if (fault == 'f' && is_file(fd, "users.db")) { errno = ENOSPC; return 1; }
    if (fault == 'w' && is_file(fd, "users.db-wal")) { errno = EIO; return 1; }
    return 0;
}

static int growth_fails(int fd, off64_t end) {
    struct stat file;
    if (current_fault() != 'g' || !is_file(fd, "/data/base/") || fstat(fd, &file) || end <= file.st_size) return 0;
    errno = ENOSPC;
    return 1;
}

static int sync_fails(int fd) {
    if (current_fault() == 's' && is_file(fd, "users.db")) { errno = EIO; return 1; }
    return 0;
}

#define NEXT(name) static __typeof__(&name) next; if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t length) {
    NEXT(write);
    return write_fails(fd) ? -1 : next(fd, data, length);
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) {
    NEXT(pwrite);
    return write_fails(fd) || growth_fails(fd, at + length) ? -1 : next(fd, data, length, at);
}
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) {
    NEXT(pwrite64);
    return write_fails(fd) || growth_fails(fd, at + length) ? -1 : next(fd, data, length, at);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    NEXT(pwritev);
    return growth_fails(fd, at + 1) ? -1 : next(fd, parts, count, at);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    NEXT(pwritev64);
    return growth_fails(fd, at + 1) ? -1 : next(fd, parts, count, at);
}
int posix_fallocate(int fd, off_t at, off_t length) {
    NEXT(posix_fallocate);
    return growth_fails(fd, at + length) ? ENOSPC : next(fd, at, length);
}
int posix_fallocate64(int fd, off64_t at, off64_t length) {
    NEXT(posix_fallocate64);
    return growth_fails(fd, at + length) ? ENOSPC : next(fd, at, length);
}
int fsync(int fd) {
    NEXT(fsync);
    return sync_fails(fd) ? -1 : next(fd);
}
int fdatasync(int fd) {
    NEXT(fdatasync);
    return sync_fails(fd) ? -1 : next(fd);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    NEXT(clock_gettime);
    int done = next(clock, now);
    if (clock == CLOCK_REALTIME) {
        char fault = current_fault();
        now->tv_sec += fault == '>' ? 2 * 3600 : fault == '<' ? -4 * 3600 : 0;
    }
    return done;
}

/* A disk that is full after so many writes: loaded before the C library into a daemon, for the proof full-disk.
 *
 * The file that WALL names holds three numbers of 8 bytes: how many writes are left, below 0 for any number; how many
 * were refused; how many there were. A write is whatever may need a block: of bytes, of a name, of a length, or a sync.
 * A block has 4 KiB.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static _Atomic int64_t *numbers;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("WALL");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, 24, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        numbers = mapped;
}

static int is_full(void) {
    if (!numbers)
        return 0;
    numbers[2]++;
    int64_t left = numbers[0];
    while (left > 0)
        if (__atomic_compare_exchange_n((int64_t *)&numbers[0], &left, left - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            return 0;
    if (left < 0)
        return 0;
    numbers[1]++;
    errno = ENOSPC;
    return 1;
}

/* What goes to a socket or to standard error needs no disk. */
static int is_full_for(int file) {
    struct stat status;
    return numbers && file > 2 && fstat(file, &status) == 0 && S_ISREG(status.st_mode) && is_full();
}

#define NEXT(result, name, ...) \
    static result (*next)(__VA_ARGS__); \
    if (!next) \
        next = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define ON_FILE(result, name, parameters, arguments, ...) \
    result name parameters { \
        NEXT(result, #name, __VA_ARGS__); \
        return is_full_for(file) ? -1 : next arguments; \
    }

ON_FILE(ssize_t, write, (int file, const void *from, size_t size), (file, from, size), int, const void *, size_t)
ON_FILE(ssize_t, writev, (int file, const struct iovec *from, int count), (file, from, count), int, const struct iovec *, int)
ON_FILE(ssize_t, pwrite, (int file, const void *from, size_t size, off_t at), (file, from, size, at), int, const void *, size_t, off_t)
ON_FILE(ssize_t, pwrite64, (int file, const void *from, size_t size, off64_t at), (file, from, size, at), int, const void *, size_t, off64_t)
ON_FILE(int, ftruncate, (int file, off_t size), (file, size), int, off_t)
ON_FILE(int, ftruncate64, (int file, off64_t size), (file, size), int, off64_t)
ON_FILE(int, fsync, (int file), (file), int)
ON_FILE(int, fdatasync, (int file), (file), int)

/* These return what went wrong. */
#define ALLOCATE(name, type) \
    int name(int file, type at, type size) { \
        NEXT(int, #name, int, type, type); \
        return is_full_for(file) ? ENOSPC : next(file, at, size); \
    }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

ssize_t copy_file_range(int from, off64_t *at, int file, off64_t *to, size_t size, unsigned int flags) {
    NEXT(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned int);
    return is_full_for(file) ? -1 : next(from, at, file, to, size, flags);
}

#define ON_NAME(name, parameters, arguments, ...) \
    int name parameters { \
        NEXT(int, #name, __VA_ARGS__); \
        return is_full() ? -1 : next arguments; \
    }

ON_NAME(rename, (const char *from, const char *to), (from, to), const char *, const char *)

/* What is there is not made, and needs no space. */
int mkdir(const char *path, mode_t mode) {
    NEXT(int, "mkdir", const char *, mode_t);
    return access(path, F_OK) != 0 && is_full() ? -1 : next(path, mode);
}

/* A file that goes gives its blocks back. */
int unlink(const char *path) {
    NEXT(int, "unlink", const char *);
    struct stat status;
    int64_t freed = numbers && lstat(path, &status) == 0 && S_ISREG(status.st_mode) ? status.st_blocks / 8 : 0;
    int result = next(path);
    if (result == 0 && freed > 0 && numbers[0] >= 0)
        numbers[0] += freed;
    return result;
}

/* Until the first write is refused the disk seems to have room: somebody else fills it meanwhile. */
#define FREE(name, type) \
    int name(const char *path, struct type *to) { \
        NEXT(int, #name, const char *, struct type *); \
        int result = next(path, to); \
        if (result == 0 && numbers && numbers[0] >= 0 && numbers[1] > 0) \
            to->f_bavail = to->f_bfree = numbers[0] * 4096 / to->f_frsize; \
        return result; \
    }
FREE(statvfs, statvfs)
FREE(statvfs64, statvfs64)

/* A file that is there needs no space to be opened. */
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        NEXT(int, #name, const char *, int, ...); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if (flags & O_CREAT && access(path, F_OK) != 0 && is_full()) \
            return -1; \
        return next(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

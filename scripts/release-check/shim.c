// Counts the calls that change files below SHIM_DIR and kills the process at the SHIM_N-th of them.
// SHIM_MODE=before: nothing of the call is done; half: half of a write is done; after: all of it is done.
// SHIM_LOG: file that gets the number of calls, and the fatal one.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;
static long fatal;
static int mode; // 0 before, 1 half, 2 after
static char root[PATH_MAX];
static int logfd = -1;

__attribute__((constructor)) static void begin(void) {
    const char *n = getenv("SHIM_N"), *m = getenv("SHIM_MODE"), *d = getenv("SHIM_DIR"), *l = getenv("SHIM_LOG");
    fatal = n ? atol(n) : 0;
    mode = m && !strcmp(m, "half") ? 1 : m && !strcmp(m, "after") ? 2 : 0;
    if (d) strncpy(root, d, sizeof root - 1);
    if (l) logfd = syscall(SYS_openat, AT_FDCWD, l, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static void note(const char *what, const char *path, long n) {
    if (logfd < 0) return;
    char line[PATH_MAX + 64];
    int len = snprintf(line, sizeof line, "%ld %s %s\n", n, what, path);
    syscall(SYS_write, logfd, line, len);
}

static int below(const char *path) {
    size_t len = strlen(root);
    return len && !strncmp(path, root, len) && (path[len] == '/' || !path[len]);
}

static int whole(int dir, const char *path, char *out) {
    if (path[0] == '/') { snprintf(out, PATH_MAX, "%s", path); return 1; }
    char link[64], base[PATH_MAX];
    if (dir == AT_FDCWD) { if (!getcwd(base, sizeof base)) return 0; }
    else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t n = readlink(link, base, sizeof base - 1);
        if (n < 0) return 0;
        base[n] = 0;
    }
    snprintf(out, PATH_MAX, "%s/%s", base, path);
    return 1;
}

static void die(void) { syscall(SYS_kill, getpid(), SIGKILL); for (;;) pause(); }

// 0: not counted or not fatal; 1: fatal, and to be done first
static int at_path(const char *what, int dir, const char *path) {
    char full[PATH_MAX];
    if (!whole(dir, path, full) || !below(full)) return 0;
    long n = ++calls;
    if (!fatal) note(what, full, n);
    if (n != fatal) return 0;
    note(what, full, n);
    if (mode == 0) die();
    return 1;
}
static int at_fd(const char *what, int fd) {
    char link[64], full[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, full, sizeof full - 1);
    if (n < 0) return 0;
    full[n] = 0;
    return at_path(what, AT_FDCWD, full);
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
ssize_t write(int fd, const void *b, size_t n) {
    REAL(write);
    int f = fd > 2 ? at_fd("write", fd) : 0;
    ssize_t r = real(fd, b, f && mode == 1 ? n / 2 : n);
    if (f) die();
    return r;
}
ssize_t writev(int fd, const struct iovec *v, int n) {
    REAL(writev);
    int f = fd > 2 ? at_fd("writev", fd) : 0;
    ssize_t r = real(fd, v, f && mode == 1 ? 1 : n);
    if (f) die();
    return r;
}
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) {
    REAL(pwrite64);
    int f = at_fd("pwrite", fd);
    ssize_t r = real(fd, b, f && mode == 1 ? n / 2 : n, o);
    if (f) die();
    return r;
}
ssize_t copy_file_range(int a, off64_t *x, int b, off64_t *y, size_t n, unsigned g) {
    REAL(copy_file_range);
    int f = at_fd("copy", b);
    ssize_t r = real(a, x, b, y, f && mode == 1 ? n / 2 : n, g);
    if (f) die();
    return r;
}
#define ON_FD(name, decl, args, fd) int name decl { REAL(name); int f = at_fd(#name, fd); int r = real args; if (f) die(); return r; }
#define ON_PATH(name, decl, args, dir, path) int name decl { REAL(name); int f = at_path(#name, dir, path); int r = real args; if (f) die(); return r; }
ON_FD(fsync, (int fd), (fd), fd)
ON_FD(fdatasync, (int fd), (fd), fd)
ON_FD(ftruncate64, (int fd, off64_t n), (fd, n), fd)
ON_FD(ftruncate, (int fd, off_t n), (fd, n), fd)
ON_PATH(rename, (const char *a, const char *b), (a, b), AT_FDCWD, b)
ON_PATH(renameat, (int x, const char *a, int y, const char *b), (x, a, y, b), y, b)
ON_PATH(link, (const char *a, const char *b), (a, b), AT_FDCWD, b)
ON_PATH(linkat, (int x, const char *a, int y, const char *b, int g), (x, a, y, b, g), y, b)
ON_PATH(unlink, (const char *a), (a), AT_FDCWD, a)
ON_PATH(unlinkat, (int d, const char *a, int g), (d, a, g), d, a)
ON_PATH(rmdir, (const char *a), (a), AT_FDCWD, a)
ON_PATH(mkdir, (const char *a, mode_t m), (a, m), AT_FDCWD, a)
static int opening(int (*real)(int, const char *, int, ...), int d, const char *p, int g, mode_t m) {
    int f = g & (O_CREAT | O_TRUNC) ? at_path("open", d, p) : 0;
    int r = real(d, p, g, m);
    if (f) die();
    return r;
}
#define OPENAT(name) int name(int d, const char *p, int g, ...) { va_list l; va_start(l, g); mode_t m = g & (O_CREAT | O_TMPFILE) ? va_arg(l, mode_t) : 0; va_end(l); static void *real; if (!real) real = dlsym(RTLD_NEXT, #name); return opening(real, d, p, g, m); }
OPENAT(openat) OPENAT(openat64)
#define OPEN(name, at) int name(const char *p, int g, ...) { va_list l; va_start(l, g); mode_t m = g & (O_CREAT | O_TMPFILE) ? va_arg(l, mode_t) : 0; va_end(l); static void *real; if (!real) real = dlsym(RTLD_NEXT, at); return opening(real, AT_FDCWD, p, g, m); }
OPEN(open, "openat") OPEN(open64, "openat64")

/* A disk that forgets what was not flushed to it.
 *
 * Preloaded into a process, this keeps in $FORGETFUL_DISK what each fsync of a file or folder below $FORGETFUL_FOLDER
 * made durable: a file's bytes in files/INODE, a folder's entries in folders/INODE, and in kept/INODE a link, so that
 * no inode's number is given to another file. Renames, removals and writes need no record: without an fsync they are
 * lost at worst. So are writes of which we know nothing here (O_SYNC, msync, syncfs, sync_file_range).
 *
 * $FORGETFUL_AT: the process dies in place of this flush, counted from 1.
 * $FORGETFUL_SKIPS: "files", "folders" or both: such a flush does nothing, as if the program had none. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static long flushes;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static void must(int done, const char *what) {
    if (done)
        return;
    perror(what);
    abort();
}

/* The place of a record; `part` while it is written. */
static void place(char *path, const char *kind, ino_t inode, const char *part) {
    snprintf(path, PATH_MAX, "%s/%s/%lu%s", setting("FORGETFUL_DISK"), kind, (unsigned long)inode, part);
}

/* A file that is gone cannot be linked, nor does it need to be. */
static void keep(int folder, const char *name, ino_t inode, int flags) {
    char kept[PATH_MAX];
    place(kept, "kept", inode, "");
    must(!linkat(folder, name, AT_FDCWD, kept, flags) || errno == EEXIST || errno == ENOENT, "keep");
}

static void write_entries(int source, FILE *to) {
    DIR *folder = fdopendir(source);
    must(folder != NULL, "fdopendir");
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct stat of;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (fstatat(dirfd(folder), entry->d_name, &of, AT_SYMLINK_NOFOLLOW))
            continue; /* Gone since. */
        if (!S_ISDIR(of.st_mode))
            keep(dirfd(folder), entry->d_name, of.st_ino, 0);
        fprintf(to, "%s %lu %s\n", S_ISDIR(of.st_mode) ? "folder" : "file", (unsigned long)of.st_ino, entry->d_name);
    }
    closedir(folder);
}

static void write_bytes(int source, FILE *to) {
    char bytes[1 << 16];
    for (ssize_t read_now; (read_now = read(source, bytes, sizeof bytes)) > 0;)
        must(fwrite(bytes, 1, read_now, to) == (size_t)read_now, "fwrite");
    close(source);
}

static int flush(int fd) {
    char link[64], path[PATH_MAX], part[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    struct stat of;
    if (length < 0 || fstat(fd, &of)) {
        errno = EBADF;
        return -1;
    }
    path[length] = 0;
    const char *folder = setting("FORGETFUL_FOLDER");
    size_t prefix = strlen(folder);
    if (strncmp(path, folder, prefix) || (path[prefix] && path[prefix] != '/'))
        return 0; /* Elsewhere: on a disk that nobody looks at. */

    int is_folder = S_ISDIR(of.st_mode);
    const char *kind = is_folder ? "folders" : "files";
    pthread_mutex_lock(&turn);
    if (++flushes == atol(setting("FORGETFUL_AT"))) {
        kill(getpid(), SIGKILL);
        pause();
    }
    if (!strstr(setting("FORGETFUL_SKIPS"), kind)) {
        int source = open(link, O_RDONLY);
        must(source >= 0, "open");
        if (!is_folder)
            keep(AT_FDCWD, link, of.st_ino, AT_SYMLINK_FOLLOW);
        place(part, kind, of.st_ino, ".part");
        FILE *to = fopen(part, "w");
        must(to != NULL, "fopen");
        (is_folder ? write_entries : write_bytes)(source, to);
        must(!fclose(to), "fclose");
        place(path, kind, of.st_ino, "");
        must(!rename(part, path), "rename");
    }
    pthread_mutex_unlock(&turn);
    return 0;
}

int fsync(int fd) { return flush(fd); }

int fdatasync(int fd) { return flush(fd); }

/*
 * A program with labels that are not its own: `labels FILE [WORD=LABEL]...`, and then it counts in the file. Words are
 * attributes of the task as proc_pid_attr(5) has them (`sockcreate=`), `sockets=` (made with that label), `memfd=`,
 * `ghost=` (a deleted file beside FILE) and `bound=` (FILE.sock, a socket's name), which get that label afterwards.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

static void write_attribute(const char *name, const char *label)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/thread-self/attr/%s", name);
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, label, strlen(label)) < 0) {
        perror(path);
        exit(3);
    }
    close(fd);
}

static void label_file(int fd, const char *label)
{
    if (fd < 0 || write(fd, "kept", 4) != 4 || fsetxattr(fd, "security.selinux", label, strlen(label) + 1, 0)) {
        perror(label);
        exit(4);
    }
}

static void make_sockets(const char *label)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int pair[2];

    write_attribute("sockcreate", label);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 8) ||
        socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) ||
        socket(AF_INET, SOCK_DGRAM, 0) < 0) {
        perror("sockets");
        exit(5);
    }
    write_attribute("sockcreate", "\n");
}

static void bind_socket(const char *path, const char *label)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strcpy(address.sun_path, path);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 1) ||
        setxattr(path, "security.selinux", label, strlen(label) + 1, 0)) {
        perror(path);
        exit(7);
    }
}

int main(int argc, char **argv)
{
    char line[100];

    int fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    for (int i = 2; i < argc; i++) {
        char *label = strchr(argv[i], '=');

        *label++ = 0;
        if (!strcmp(argv[i], "sockets")) {
            make_sockets(label);
        } else if (!strcmp(argv[i], "memfd")) {
            label_file(memfd_create("kept", 0), label);
        } else if (!strcmp(argv[i], "ghost")) {
            snprintf(line, sizeof(line), "%s.ghost", argv[1]);
            label_file(open(line, O_RDWR | O_CREAT | O_EXCL, 0600), label);
            unlink(line);
        } else if (!strcmp(argv[i], "bound")) {
            snprintf(line, sizeof(line), "%s.sock", argv[1]);
            bind_socket(line, label);
        } else {
            write_attribute(argv[i], label);
        }
    }
    for (int round = 1;; round++) {
        if (pwrite(fd, line, snprintf(line, sizeof(line), "%8d\n", round), 0) < 0)
            return 6;
        usleep(100000);
    }
}

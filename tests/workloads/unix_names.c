/* Named unix sockets: path, relative path, deleted path, abstract; listening with accepted and waiting connections; datagrams. */
#define _GNU_SOURCE
#include "workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[] = "/tmp/wl-unix-XXXXXX";

static struct sockaddr_un named(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
    return address;
}

static int bound(int type, const char *name)
{
    struct sockaddr_un address = named(name);
    int fd = WL_TRY(socket(AF_UNIX, type, 0));

    WL_TRY(bind(fd, (struct sockaddr *)&address, sizeof(address)));
    return fd;
}

static int connected(int type, const char *name)
{
    struct sockaddr_un address = named(name);
    int fd = WL_TRY(socket(AF_UNIX, type, 0));

    WL_TRY(connect(fd, (struct sockaddr *)&address, sizeof(address)));
    return fd;
}

static void expect_name(int fd, const char *name)
{
    struct sockaddr_un address = {0};
    socklen_t size = sizeof(address);

    WL_TRY(getsockname(fd, (struct sockaddr *)&address, &size));
    WL_CHECK(strcmp(address.sun_path, name) == 0, "a socket's name is %s, not %s", address.sun_path, name);
}

static void talk(int from, int to, const char *text)
{
    char received[64] = "";

    WL_CHECK(send(from, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text), "cannot send \"%s\"", text);
    WL_CHECK(recv(to, received, sizeof(received) - 1, MSG_DONTWAIT) == (ssize_t)strlen(text) &&
                 strcmp(received, text) == 0, "received \"%s\", not \"%s\"", received, text);
}

int main(int argc, char **argv)
{
    char full[128], gone[128], abstract[108] = "";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct ucred cred;
    struct stat info;
    socklen_t size;
    int on = 1, pair[2];

    wl_init(argc, argv);
    WL_CHECK(mkdtemp(directory) != NULL, "mkdtemp: %s", strerror(errno));
    snprintf(full, sizeof(full), "%s/listen", directory);
    snprintf(gone, sizeof(gone), "%s/gone", directory);

    int listener = bound(SOCK_STREAM, full);
    WL_TRY(chmod(full, 0640));
    WL_TRY(chown(full, 1234, 4321));
    WL_TRY(listen(listener, 9));
    int client = connected(SOCK_STREAM, full);
    int server = WL_TRY(accept(listener, NULL, NULL));
    int waiting[3];
    for (int i = 0; i < 3; i++)
        waiting[i] = connected(SOCK_STREAM, full);

    WL_TRY(chdir(directory));
    int receiver = bound(SOCK_DGRAM, "datagrams");
    int sender = connected(SOCK_DGRAM, "datagrams");
    WL_TRY(send(sender, "waits", 5, 0));
    WL_TRY(chdir("/"));

    int ghost = bound(SOCK_SEQPACKET, gone);
    WL_TRY(listen(ghost, 2));
    int ghost_client = connected(SOCK_SEQPACKET, gone);
    WL_TRY(unlink(gone));
    int again = bound(SOCK_SEQPACKET, gone);

    int length = snprintf(abstract, sizeof(abstract), "%ctorpor-%s", 0, directory);
    memcpy(address.sun_path, abstract, sizeof(abstract));
    socklen_t abstract_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length);
    int hidden = WL_TRY(socket(AF_UNIX, SOCK_DGRAM, 0));
    WL_TRY(bind(hidden, (struct sockaddr *)&address, abstract_size));
    WL_TRY(setsockopt(hidden, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
    int child = WL_TRY(fork());
    if (child == 0) {
        WL_TRY(connect(sender, (struct sockaddr *)&address, abstract_size));
        WL_TRY(send(sender, "who", 3, 0));
        _exit(0);
    }
    WL_TRY(waitpid(child, NULL, 0));
    int whisper = WL_TRY(socket(AF_UNIX, SOCK_DGRAM, 0));
    WL_TRY(connect(whisper, (struct sockaddr *)&address, abstract_size));
    WL_TRY(send(whisper, "mine", 4, 0));

    WL_TRY(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));

    wl_ready();
    wl_wait();

    expect_name(listener, full);
    expect_name(server, full);
    expect_name(receiver, "datagrams");
    expect_name(ghost, gone);
    expect_name(again, gone);
    WL_TRY(stat(full, &info));
    WL_CHECK(S_ISSOCK(info.st_mode) && (info.st_mode & 07777) == 0640 && info.st_uid == 1234 && info.st_gid == 4321,
             "the socket's file has mode %o, owner %u:%u", info.st_mode, info.st_uid, info.st_gid);
    talk(client, server, "to the server");
    talk(server, client, "to the client");
    for (int i = 0; i < 3; i++) {
        int accepted = WL_TRY(accept(listener, NULL, NULL));
        expect_name(accepted, full);
        talk(waiting[i], accepted, "in order");
        WL_TRY(close(accepted));
    }
    int late = connected(SOCK_STREAM, full);
    size = sizeof(cred);
    WL_TRY(getsockopt(late, SOL_SOCKET, SO_PEERCRED, &cred, &size));
    WL_CHECK(cred.pid == getpid(), "the listener is said to be pid %d", cred.pid);
    size = sizeof(cred);
    WL_TRY(getsockopt(pair[1], SOL_SOCKET, SO_PEERCRED, &cred, &size));
    WL_CHECK(cred.pid == getpid() && cred.uid == getuid(), "the connection's other end is said to be pid %d", cred.pid);

    char text[16] = "";
    WL_CHECK(recv(receiver, text, sizeof(text), MSG_DONTWAIT) == 5, "the datagram that waited is lost");
    int ghost_server = WL_TRY(accept(ghost, NULL, NULL));
    talk(ghost_client, ghost_server, "below a deleted name");

    union {
        char room[CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr header;
    } control;
    struct iovec iov = {.iov_base = text, .iov_len = sizeof(text)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    WL_TRY(recvmsg(hidden, &message, MSG_DONTWAIT));
    message.msg_controllen = sizeof(control);
    WL_TRY(recvmsg(hidden, &message, MSG_DONTWAIT));
    memcpy(&cred, CMSG_DATA(&control.header), sizeof(cred));
    WL_CHECK(cred.pid == getpid(), "a message's sender is said to be pid %d", cred.pid);
    talk(whisper, hidden, "still there");
    WL_TRY(unlink(full));
    WL_TRY(unlink(gone));
    WL_TRY(chdir(directory));
    WL_TRY(unlink("datagrams"));
    WL_TRY(rmdir(directory));
    wl_pass();
}

/* Socket pairs of each type: unread messages with their boundaries, descriptors in flight, half shut down, a closed end. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define N_BYTES 50000

static char big[N_BYTES];
static char received[N_BYTES + 1];

static void send_fd(int sock, int fd, const char *text)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr header;
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec iov = {.iov_base = (void *)text, .iov_len = strlen(text)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    WL_TRY(sendmsg(sock, &message, 0));
}

static int receive_fd(int sock, const char *expected)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr header;
    } control;
    char text[64] = "";
    struct iovec iov = {.iov_base = text, .iov_len = sizeof(text) - 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    int fd;

    WL_TRY(recvmsg(sock, &message, MSG_DONTWAIT));
    WL_CHECK(strcmp(text, expected) == 0, "received \"%s\" instead of \"%s\"", text, expected);
    WL_CHECK(message.msg_controllen == CMSG_SPACE(sizeof(int)), "no descriptor came with \"%s\"", text);
    memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
    return fd;
}

static void expect(int sock, const char *text)
{
    ssize_t n_read = recv(sock, received, N_BYTES, MSG_DONTWAIT);

    WL_CHECK(n_read == (ssize_t)strlen(text) && memcmp(received, text, (size_t)n_read) == 0,
             "received %zd bytes instead of \"%s\"", n_read, text);
}

int main(int argc, char **argv)
{
    int stream[2], datagram[2], packet[2], half[2], gone[2], loop[2], file_pipe[2];
    struct stat before, after;

    wl_init(argc, argv);
    wl_fill(big, N_BYTES, 7);
    WL_TRY(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, stream));
    WL_TRY(socketpair(AF_UNIX, SOCK_DGRAM, 0, datagram));
    WL_TRY(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packet));
    WL_TRY(socketpair(AF_UNIX, SOCK_STREAM, 0, half));
    WL_TRY(socketpair(AF_UNIX, SOCK_STREAM, 0, gone));
    WL_TRY(socketpair(AF_UNIX, SOCK_STREAM, 0, loop));

    WL_CHECK(send(stream[0], big, N_BYTES, 0) == N_BYTES, "short send");
    WL_TRY(send(datagram[0], "one", 3, 0));
    WL_TRY(send(datagram[0], "", 0, 0));
    WL_TRY(send(datagram[0], "three", 5, 0));
    WL_TRY(send(datagram[1], "back", 4, 0));
    WL_TRY(send(packet[1], "a", 1, 0));
    WL_TRY(send(packet[1], "bc", 2, 0));
    WL_TRY(shutdown(half[0], SHUT_WR));
    WL_TRY(send(gone[0], "last words", 10, 0));
    WL_TRY(close(gone[0]));

    /* A pipe's reading end that is nowhere but in a queue, between plain bytes; a socket in its own queue. */
    WL_TRY(pipe2(file_pipe, O_CLOEXEC));
    WL_TRY(fstat(file_pipe[0], &before));
    WL_TRY(send(loop[0], "x", 1, 0));
    send_fd(loop[0], file_pipe[0], "pipe");
    send_fd(loop[0], loop[1], "self");
    WL_TRY(close(file_pipe[0]));
    WL_TRY(write(file_pipe[1], "in flight", 9));

    wl_ready();
    wl_wait();

    WL_CHECK(recv(stream[1], received, sizeof(received), 0) == N_BYTES, "the stream is not whole");
    wl_check_fill(received, N_BYTES, 7, "stream");
    WL_CHECK(recv(stream[1], received, 1, 0) == -1 && errno == EAGAIN, "an empty stream does not say EAGAIN");
    WL_CHECK(WL_TRY(fcntl(stream[0], F_GETFD)) == FD_CLOEXEC, "FD_CLOEXEC is lost");
    expect(datagram[1], "one");
    expect(datagram[1], "");
    expect(datagram[1], "three");
    expect(datagram[0], "back");
    expect(packet[0], "a");
    expect(packet[0], "bc");
    WL_CHECK(recv(half[1], received, 1, MSG_DONTWAIT) == 0, "the half that was shut down is open");
    WL_TRY(send(half[1], "y", 1, 0));
    expect(half[0], "y");
    WL_CHECK(send(half[0], "z", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "can send after a shutdown");
    expect(gone[1], "last words");
    WL_CHECK(recv(gone[1], received, 1, MSG_DONTWAIT) == 0, "no end of file after the other end has gone");

    WL_CHECK(recv(loop[1], received, 1, 0) == 1 && received[0] == 'x', "the byte before the descriptor is lost");
    int reader = receive_fd(loop[1], "pipe");
    int self = receive_fd(loop[1], "self");
    WL_TRY(fstat(reader, &after));
    WL_CHECK(S_ISFIFO(after.st_mode), "what was in flight is no pipe any more");
    WL_CHECK(read(reader, received, 100) == 9 && memcmp(received, "in flight", 9) == 0, "the pipe's contents are lost");
    WL_TRY(send(loop[0], "again", 5, 0));
    expect(self, "again");
    wl_pass();
}

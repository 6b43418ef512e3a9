/* TCP connections with both ends in the tree: unread bytes, bytes that do not fit, half shut down, options; IPv4 and mixed. */
#define _GNU_SOURCE
#include "workload.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#define N_BYTES (4 << 20)

static char sent[N_BYTES];
static char received[N_BYTES];

/* A connection over IPv4; the server's end is of the family given. */
static void connect_pair(int family, int pair[2])
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_any};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = WL_TRY(socket(family, SOCK_STREAM, 0));
    socklen_t size = sizeof(v6);

    if (family == AF_INET)
        WL_TRY(bind(listener, (struct sockaddr *)&v4, sizeof(v4)));
    else
        WL_TRY(bind(listener, (struct sockaddr *)&v6, sizeof(v6)));
    WL_TRY(listen(listener, 1));
    WL_TRY(getsockname(listener, (struct sockaddr *)&v6, &size));
    v4.sin_port = v6.sin6_port;
    pair[0] = WL_TRY(socket(AF_INET, SOCK_STREAM, 0));
    WL_TRY(connect(pair[0], (struct sockaddr *)&v4, sizeof(v4)));
    pair[1] = WL_TRY(accept(listener, NULL, NULL));
    WL_TRY(close(listener));
}

static void talk(int from, int to, const char *text)
{
    char got[64] = "";

    WL_CHECK(send(from, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text), "cannot send \"%s\"", text);
    WL_CHECK(recv(to, got, sizeof(got) - 1, 0) == (ssize_t)strlen(text) && strcmp(got, text) == 0,
             "received \"%s\", not \"%s\"", got, text);
}

/* What the socket sends in one piece. */
static unsigned segment(int fd)
{
    struct tcp_info info;
    socklen_t size = sizeof(info);

    WL_TRY(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size));
    return info.tcpi_snd_mss;
}

int main(int argc, char **argv)
{
    int quiet[2], full[2], half[2], mixed[2], on = 1;
    socklen_t size = sizeof(on);
    size_t n_queued = 0, n_read = 0;
    ssize_t n;

    wl_init(argc, argv);
    connect_pair(AF_INET, quiet);
    WL_TRY(setsockopt(quiet[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
    WL_CHECK(send(quiet[0], "waiting", 7, 0) == 7, "short send");
    connect_pair(AF_INET, full);
    wl_fill(sent, N_BYTES, 3);
    while (n_queued < N_BYTES && (n = send(full[0], sent + n_queued, N_BYTES - n_queued, MSG_DONTWAIT)) > 0)
        n_queued += (size_t)n;
    connect_pair(AF_INET, half);
    WL_CHECK(send(half[0], "bye", 3, 0) == 3, "short send");
    WL_TRY(shutdown(half[0], SHUT_WR));
    connect_pair(AF_INET6, mixed);

    unsigned before = segment(quiet[0]);
    wl_ready();
    wl_wait();
    WL_CHECK(segment(quiet[0]) >= before / 10 * 9, "segments of %u bytes have become %u", before, segment(quiet[0]));

    char text[16] = "";
    WL_CHECK(recv(quiet[1], text, sizeof(text), 0) == 7 && strcmp(text, "waiting") == 0, "received \"%s\"", text);
    talk(quiet[0], quiet[1], "there");
    talk(quiet[1], quiet[0], "and back");
    WL_TRY(getsockopt(quiet[0], IPPROTO_TCP, TCP_NODELAY, &on, &size));
    WL_CHECK(on == 1, "TCP_NODELAY is lost");
    while (n_read < n_queued) {
        n = WL_TRY(recv(full[1], received + n_read, n_queued - n_read, 0));
        WL_CHECK(n > 0, "the connection has ended after %zu of %zu bytes", n_read, n_queued);
        n_read += (size_t)n;
    }
    wl_check_fill(received, n_read & ~(size_t)7, 3, "the full connection");
    talk(full[1], full[0], "read it");
    WL_CHECK(recv(half[1], text, sizeof(text), 0) == 3, "the last words are lost");
    WL_CHECK(recv(half[1], text, sizeof(text), 0) == 0, "no end of file");
    talk(half[1], half[0], "still open");
    WL_CHECK(send(half[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "can send after a shutdown");
    talk(mixed[0], mixed[1], "four to six");
    talk(mixed[1], mixed[0], "six to four");
    WL_TRY(close(quiet[0]));
    WL_CHECK(recv(quiet[1], text, sizeof(text), 0) == 0, "no end of file after the other end has gone");
    wl_pass();
}

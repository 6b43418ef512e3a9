/* Datagrams that wait in UDP sockets: bound to any address, connected, IPv6, IPv4 in IPv6; empty ones, their senders. */
#define _GNU_SOURCE
#include "workload.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

static int bound(int family, const char *where)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    int fd = WL_TRY(socket(family, SOCK_DGRAM, 0));

    if (family == AF_INET) {
        inet_pton(family, where, &v4.sin_addr);
        WL_TRY(bind(fd, (struct sockaddr *)&v4, sizeof(v4)));
    } else {
        inet_pton(family, where, &v6.sin6_addr);
        WL_TRY(bind(fd, (struct sockaddr *)&v6, sizeof(v6)));
    }
    return fd;
}

static unsigned short port_of(int fd)
{
    struct sockaddr_in6 address;
    socklen_t size = sizeof(address);

    WL_TRY(getsockname(fd, (struct sockaddr *)&address, &size));
    return address.sin6_port;
}

static void send_v4(int from, int to, const char *text)
{
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = port_of(to)};

    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    WL_TRY(sendto(from, text, strlen(text), 0, (struct sockaddr *)&there, sizeof(there)));
}

static void expect(int fd, int from, const char *text)
{
    struct sockaddr_in6 sender = {0};
    socklen_t size = sizeof(sender);
    char got[64] = "";

    ssize_t n = recvfrom(fd, got, sizeof(got), MSG_DONTWAIT, (struct sockaddr *)&sender, &size);
    WL_CHECK(n == (ssize_t)strlen(text) && memcmp(got, text, strlen(text)) == 0, "got %zd bytes, \"%s\", not \"%s\"", n, got, text);
    WL_CHECK(sender.sin6_port == port_of(from), "\"%s\" comes from elsewhere", text);
}

static void expect_empty(int fd)
{
    char got;

    WL_CHECK(recv(fd, &got, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN, "there is more");
}

int main(int argc, char **argv)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    struct sockaddr_in v4 = {.sin_family = AF_INET};

    wl_init(argc, argv);
    int any = bound(AF_INET, "0.0.0.0"), client = bound(AF_INET, "127.0.0.1"), connected = bound(AF_INET, "127.0.0.1");
    int sixth = bound(AF_INET6, "::1"), client6 = bound(AF_INET6, "::1"), both = bound(AF_INET6, "::");
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    v4.sin_port = port_of(client);
    WL_TRY(connect(connected, (struct sockaddr *)&v4, sizeof(v4)));

    send_v4(client, any, "first");
    send_v4(client, any, "");
    send_v4(client, any, "third");
    send_v4(client, connected, "to the connected");
    v6.sin6_port = port_of(sixth);
    WL_TRY(sendto(client6, "six", 3, 0, (struct sockaddr *)&v6, sizeof(v6)));
    send_v4(client, both, "four to six");

    wl_ready();
    wl_wait();

    expect(any, client, "first");
    expect(any, client, "");
    expect(any, client, "third");
    expect(connected, client, "to the connected");
    expect(sixth, client6, "six");
    expect(both, client, "four to six");
    expect_empty(any);
    expect_empty(connected);
    expect_empty(both);
    send_v4(client, any, "and more");
    expect(any, client, "and more");
    wl_pass();
}

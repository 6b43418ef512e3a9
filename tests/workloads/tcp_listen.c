/* TCP sockets without a connection: listening on IPv4 and IPv6 with options and backlog, sharing a port, bound only, new. */
#define _GNU_SOURCE
#include "workload.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

static int on(int fd, int level, int name)
{
    int value = 0;
    socklen_t size = sizeof(value);

    WL_TRY(getsockopt(fd, level, name, &value, &size));
    return value;
}

static void set(int fd, int level, int name, int value)
{
    WL_TRY(setsockopt(fd, level, name, &value, sizeof(value)));
}

static in_port_t port_of(int fd)
{
    struct sockaddr_in6 address;
    socklen_t size = sizeof(address);

    WL_TRY(getsockname(fd, (struct sockaddr *)&address, &size));
    return address.sin6_port;
}

static int talk(int family, int listener, in_port_t port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = in6addr_loopback};
    char byte = 0;

    int client = WL_TRY(socket(family, SOCK_STREAM, 0));
    if (family == AF_INET)
        WL_TRY(connect(client, (struct sockaddr *)&v4, sizeof(v4)));
    else
        WL_TRY(connect(client, (struct sockaddr *)&v6, sizeof(v6)));
    int server = WL_TRY(accept(listener, NULL, NULL));
    WL_TRY(send(client, "x", 1, 0));
    WL_CHECK(recv(server, &byte, 1, 0) == 1 && byte == 'x', "a new connection carries nothing");
    WL_TRY(close(server));
    return WL_TRY(close(client));
}

int main(int argc, char **argv)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    struct tcp_info info;
    socklen_t size = sizeof(info);
    char name[16] = "";

    wl_init(argc, argv);
    int first = WL_TRY(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    set(first, SOL_SOCKET, SO_REUSEADDR, 1);
    set(first, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(first, SOL_SOCKET, SO_RCVBUF, 60000);
    set(first, IPPROTO_TCP, TCP_NODELAY, 1);
    set(first, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3);
    set(first, IPPROTO_TCP, TCP_USER_TIMEOUT, 7000);
    set(first, IPPROTO_IP, IP_TOS, 0x10);
    WL_TRY(bind(first, (struct sockaddr *)&v4, sizeof(v4)));
    WL_TRY(listen(first, 37));
    int sixth = WL_TRY(socket(AF_INET6, SOCK_STREAM, 0));
    set(sixth, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    WL_TRY(bind(sixth, (struct sockaddr *)&v6, sizeof(v6)));
    WL_TRY(listen(sixth, 5));
    int shared[2];
    v4.sin_port = 0;
    for (int i = 0; i < 2; i++) {
        shared[i] = WL_TRY(socket(AF_INET, SOCK_STREAM, 0));
        set(shared[i], SOL_SOCKET, SO_REUSEPORT, 1);
        WL_TRY(bind(shared[i], (struct sockaddr *)&v4, sizeof(v4)));
        v4.sin_port = port_of(shared[i]);
        WL_TRY(listen(shared[i], 5));
    }
    int bound = WL_TRY(socket(AF_INET, SOCK_STREAM, 0));
    v4.sin_port = 0;
    WL_TRY(bind(bound, (struct sockaddr *)&v4, sizeof(v4)));
    int fresh = WL_TRY(socket(AF_INET6, SOCK_STREAM, 0));
    int buffer = on(first, SOL_SOCKET, SO_RCVBUF);
    in_port_t ports[] = {port_of(first), port_of(sixth), port_of(shared[1]), port_of(bound)};
    WL_TRY(setsockopt(fresh, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));

    wl_ready();
    wl_wait();

    WL_CHECK(WL_TRY(fcntl(first, F_GETFL)) & O_NONBLOCK, "O_NONBLOCK is lost");
    WL_TRY(getsockopt(first, IPPROTO_TCP, TCP_INFO, &info, &size));
    WL_CHECK(info.tcpi_state == TCP_LISTEN && info.tcpi_sacked == 37, "state %d, backlog %u", info.tcpi_state, info.tcpi_sacked);
    WL_CHECK(on(first, SOL_SOCKET, SO_REUSEADDR) == 1 && on(sixth, SOL_SOCKET, SO_REUSEADDR) == 0, "SO_REUSEADDR");
    WL_CHECK(on(shared[0], SOL_SOCKET, SO_REUSEPORT) == 1 && on(first, SOL_SOCKET, SO_REUSEPORT) == 0, "SO_REUSEPORT");
    WL_CHECK(on(first, SOL_SOCKET, SO_KEEPALIVE) == 1 && on(first, IPPROTO_TCP, TCP_NODELAY) == 1, "keepalive, nodelay");
    WL_CHECK(on(first, SOL_SOCKET, SO_RCVBUF) == buffer, "the buffer was %d, is %d", buffer, on(first, SOL_SOCKET, SO_RCVBUF));
    WL_CHECK(on(first, IPPROTO_TCP, TCP_DEFER_ACCEPT) == 3, "TCP_DEFER_ACCEPT %d", on(first, IPPROTO_TCP, TCP_DEFER_ACCEPT));
    WL_CHECK(on(first, IPPROTO_TCP, TCP_USER_TIMEOUT) == 7000, "TCP_USER_TIMEOUT");
    WL_CHECK(on(first, IPPROTO_IP, IP_TOS) == 0x10, "IP_TOS");
    WL_CHECK(on(sixth, IPPROTO_IPV6, IPV6_V6ONLY) == 1 && on(fresh, IPPROTO_IPV6, IPV6_V6ONLY) == 0, "IPV6_V6ONLY");
    WL_CHECK(port_of(first) == ports[0] && port_of(sixth) == ports[1] && port_of(shared[0]) == ports[2] &&
                 port_of(bound) == ports[3] && port_of(fresh) == 0, "a port has changed");
    size = sizeof(name);
    WL_TRY(getsockopt(fresh, IPPROTO_TCP, TCP_CONGESTION, name, &size));
    WL_CHECK(strcmp(name, "reno") == 0, "congestion control is %s", name);
    talk(AF_INET6, sixth, ports[1]);
    WL_TRY(close(shared[0]));
    talk(AF_INET, shared[1], ports[2]);
    WL_TRY(listen(bound, 1));
    talk(AF_INET, bound, ports[3]);
    wl_pass();
}

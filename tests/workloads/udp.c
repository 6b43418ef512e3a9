/* UDP sockets: bound, connected, multicast settings, shut down, one port for several, a classic filter. */
#define _GNU_SOURCE
#include "workload.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <netinet/in.h>
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

static struct sockaddr_in address_of(int fd)
{
    struct sockaddr_in address;
    socklen_t size = sizeof(address);

    WL_TRY(getsockname(fd, (struct sockaddr *)&address, &size));
    return address;
}

int main(int argc, char **argv)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, peer;
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0), BPF_STMT(BPF_RET | BPF_A, 0)}, back[8];
    struct sock_fprog program = {.len = 2, .filter = code};
    socklen_t size = sizeof(peer);
    char text[8];

    wl_init(argc, argv);
    int server = WL_TRY(socket(AF_INET, SOCK_DGRAM, 0));
    WL_TRY(bind(server, (struct sockaddr *)&v4, sizeof(v4)));
    struct sockaddr_in there = address_of(server);
    int client = WL_TRY(socket(AF_INET, SOCK_DGRAM, 0));
    WL_TRY(connect(client, (struct sockaddr *)&there, sizeof(there)));
    struct sockaddr_in here = address_of(client);
    set(server, SOL_SOCKET, SO_BROADCAST, 1);
    set(server, IPPROTO_IP, IP_PKTINFO, 1);
    set(server, IPPROTO_IP, IP_RECVTTL, 1);
    set(client, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
    set(client, IPPROTO_IP, IP_MULTICAST_TTL, 9);
    WL_TRY(setsockopt(server, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)));
    int sixth = WL_TRY(socket(AF_INET6, SOCK_DGRAM, 0));
    set(sixth, IPPROTO_IPV6, IPV6_TCLASS, 0x20);
    WL_TRY(bind(sixth, (struct sockaddr *)&v6, sizeof(v6)));
    int deaf = WL_TRY(socket(AF_INET, SOCK_DGRAM, 0));
    WL_TRY(connect(deaf, (struct sockaddr *)&there, sizeof(there)));
    WL_TRY(shutdown(deaf, SHUT_WR));
    int shared[2];
    v4.sin_port = 0;
    for (int i = 0; i < 2; i++) {
        shared[i] = WL_TRY(socket(AF_INET, SOCK_DGRAM, 0));
        set(shared[i], SOL_SOCKET, SO_REUSEADDR, 1);
        WL_TRY(bind(shared[i], (struct sockaddr *)&v4, sizeof(v4)));
        v4 = address_of(shared[i]);
    }
    set(shared[0], SOL_SOCKET, SO_REUSEADDR, 0);
    /* Record route, with room for one address; an interface for multicast. */
    unsigned char route[8] = {7, 7, 4}, found[40];
    struct in_addr loopback = {htonl(INADDR_LOOPBACK)};
    WL_TRY(setsockopt(shared[1], IPPROTO_IP, IP_OPTIONS, route, sizeof(route)));
    WL_TRY(setsockopt(shared[1], IPPROTO_IP, IP_MULTICAST_IF, &loopback, sizeof(loopback)));

    wl_ready();
    wl_wait();

    WL_CHECK(address_of(server).sin_port == there.sin_port && address_of(client).sin_port == here.sin_port, "ports");
    WL_TRY(getpeername(client, (struct sockaddr *)&peer, &size));
    WL_CHECK(peer.sin_port == there.sin_port, "the client is connected elsewhere");
    WL_TRY(send(client, "ping", 4, 0));
    size = sizeof(peer);
    WL_CHECK(recvfrom(server, text, sizeof(text), 0, (struct sockaddr *)&peer, &size) == 4, "no datagram");
    WL_CHECK(peer.sin_port == here.sin_port, "the datagram comes from elsewhere");
    WL_CHECK(on(server, SOL_SOCKET, SO_BROADCAST) && on(server, IPPROTO_IP, IP_PKTINFO), "broadcast, pktinfo");
    WL_CHECK(on(server, IPPROTO_IP, IP_RECVTTL) && !on(client, IPPROTO_IP, IP_RECVTTL), "IP_RECVTTL");
    WL_CHECK(on(client, IPPROTO_IP, IP_MTU_DISCOVER) == IP_PMTUDISC_DO, "IP_MTU_DISCOVER");
    WL_CHECK(on(client, IPPROTO_IP, IP_MULTICAST_TTL) == 9, "IP_MULTICAST_TTL");
    WL_CHECK(on(sixth, IPPROTO_IPV6, IPV6_TCLASS) == 0x20, "IPV6_TCLASS");
    WL_CHECK(on(shared[0], SOL_SOCKET, SO_REUSEADDR) == 0 && on(shared[1], SOL_SOCKET, SO_REUSEADDR) == 1, "SO_REUSEADDR");
    WL_CHECK(address_of(shared[0]).sin_port == address_of(shared[1]).sin_port, "the shared port");
    size = 8;
    WL_TRY(getsockopt(server, SOL_SOCKET, SO_GET_FILTER, back, &size));
    WL_CHECK(size == 2 && memcmp(back, code, sizeof(code)) == 0, "the filter has changed");
    size = sizeof(found);
    WL_TRY(getsockopt(shared[1], IPPROTO_IP, IP_OPTIONS, found, &size));
    WL_CHECK(size == sizeof(route) && memcmp(found, route, size) == 0, "the IP options have changed");
    WL_CHECK(on(shared[1], IPPROTO_IP, IP_MULTICAST_IF) == (int)loopback.s_addr, "IP_MULTICAST_IF");
    WL_CHECK(send(deaf, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "can send after a shutdown");
    wl_pass();
}

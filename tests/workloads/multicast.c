/* Multicast: a socket that has joined a group, one that has joined it for one source, one of IPv6, one that has none. */
#define _GNU_SOURCE
#include "workload.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define GROUP "239.77.1.2"
#define GROUP6 "ff02::7712"
/* On a busy machine the loopback device delivers when its turn comes. */
#define WAIT_MS 10000

static int lo;

static void bring_lo_up(void)
{
    struct ifreq request = {.ifr_name = "lo"};
    int fd = WL_TRY(socket(AF_INET, SOCK_DGRAM, 0));

    WL_TRY(ioctl(fd, SIOCGIFFLAGS, &request));
    request.ifr_flags |= IFF_UP;
    WL_TRY(ioctl(fd, SIOCSIFFLAGS, &request));
    WL_TRY(close(fd));
}

static int bound(int family)
{
    struct sockaddr_in6 any6 = {.sin6_family = AF_INET6};
    struct sockaddr_in any = {.sin_family = AF_INET};
    int off = 0, fd = WL_TRY(socket(family, SOCK_DGRAM | SOCK_NONBLOCK, 0));

    /* Only what the socket itself has joined comes to it. */
    if (family == AF_INET)
        WL_TRY(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_ALL, &off, sizeof(off)));
    else
        WL_TRY(setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, &off, sizeof(off)));
    WL_TRY(bind(fd, family == AF_INET ? (void *)&any : (void *)&any6, family == AF_INET ? sizeof(any) : sizeof(any6)));
    return fd;
}

/* Send a datagram to the socket's port in the group; does it come in that time? */
static bool comes(int fd, int wait_ms)
{
    struct sockaddr_in to, source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct ip_mreqn via = {.imr_ifindex = lo};
    socklen_t length = sizeof(to);
    char byte;
    int from = WL_TRY(socket(AF_INET, SOCK_DGRAM, 0));

    WL_TRY(getsockname(fd, (void *)&to, &length));
    WL_TRY(setsockopt(from, IPPROTO_IP, IP_MULTICAST_IF, &via, sizeof(via)));
    WL_TRY(bind(from, (void *)&source, sizeof(source)));
    inet_pton(AF_INET, GROUP, &to.sin_addr);
    WL_TRY(sendto(from, "m", 1, 0, (void *)&to, length));
    WL_TRY(close(from));
    struct pollfd poller = {.fd = fd, .events = POLLIN};

    return WL_TRY(poll(&poller, 1, wait_ms)) == 1 && recv(fd, &byte, 1, 0) == 1;
}

/* Nothing need have a route for IPv6 here: does the socket say that it has joined the group? */
static bool has_joined(int fd)
{
    struct group_filter filter = {.gf_interface = lo};
    socklen_t length = sizeof(filter);

    ((struct sockaddr_in6 *)&filter.gf_group)->sin6_family = AF_INET6;
    inet_pton(AF_INET6, GROUP6, &((struct sockaddr_in6 *)&filter.gf_group)->sin6_addr);
    return getsockopt(fd, IPPROTO_IPV6, MCAST_MSFILTER, &filter, &length) == 0 && filter.gf_fmode == MCAST_EXCLUDE;
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    bring_lo_up();
    lo = if_nametoindex("lo");
    int joined = bound(AF_INET), from_us = bound(AF_INET), from_others = bound(AF_INET), none = bound(AF_INET);
    int joined6 = bound(AF_INET6), none6 = bound(AF_INET6);

    struct ip_mreqn group = {.imr_ifindex = lo};
    inet_pton(AF_INET, GROUP, &group.imr_multiaddr);
    WL_TRY(setsockopt(joined, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof(group)));
    struct ip_mreq_source source = {.imr_multiaddr = group.imr_multiaddr, .imr_interface.s_addr = htonl(INADDR_LOOPBACK)};
    source.imr_sourceaddr.s_addr = htonl(INADDR_LOOPBACK);
    WL_TRY(setsockopt(from_us, IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, &source, sizeof(source)));
    inet_pton(AF_INET, "127.0.0.9", &source.imr_sourceaddr);
    WL_TRY(setsockopt(from_others, IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, &source, sizeof(source)));
    struct ipv6_mreq group6 = {.ipv6mr_interface = lo};
    inet_pton(AF_INET6, GROUP6, &group6.ipv6mr_multiaddr);
    WL_TRY(setsockopt(joined6, IPPROTO_IPV6, IPV6_JOIN_GROUP, &group6, sizeof(group6)));

    wl_ready();
    wl_wait();

    WL_CHECK(comes(joined, WAIT_MS), "the socket has left its group");
    WL_CHECK(comes(from_us, WAIT_MS), "the socket has left its group for that source");
    WL_CHECK(!comes(from_others, 0), "the socket gets what is not from its source");
    WL_CHECK(!comes(none, 0), "the socket has joined a group");
    WL_CHECK(has_joined(joined6), "the socket has left its group of IPv6");
    WL_CHECK(!has_joined(none6), "the socket has joined a group of IPv6");
    wl_pass();
}

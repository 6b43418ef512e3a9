/* Whom sockets of each family belong to (what owner matches of firewalls and sock_diag show), connected and accepted too. */
#define _GNU_SOURCE
#include "workload.h"

#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct kind {
    int family, type, protocol;
} kinds[] = {
    {AF_UNIX, SOCK_STREAM, 0},          {AF_UNIX, SOCK_DGRAM, 0},         {AF_UNIX, SOCK_SEQPACKET, 0},
    {AF_INET, SOCK_STREAM, 0},          {AF_INET, SOCK_DGRAM, 0},         {AF_INET, SOCK_RAW, IPPROTO_UDP},
    {AF_INET, SOCK_STREAM, 262},        {AF_INET6, SOCK_STREAM, 0},       {AF_INET6, SOCK_DGRAM, 0},
    {AF_INET6, SOCK_RAW, IPPROTO_UDP},  {AF_NETLINK, SOCK_RAW, 0},        {AF_NETLINK, SOCK_DGRAM, 15},
    {AF_PACKET, SOCK_RAW, 0},           {AF_PACKET, SOCK_DGRAM, 0},
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))
#define N_FDS (N_KINDS + 6)

int main(int argc, char **argv)
{
    int fds[N_FDS], pair[2];
    size_t n = 0;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);

    wl_init(argc, argv);
    for (size_t i = 0; i < N_KINDS; i++) {
        int fd = socket(kinds[i].family, kinds[i].type, kinds[i].protocol);

        /* A kernel need not have all of them. */
        if (fd >= 0)
            fds[n++] = fd;
        else
            wl_log("no socket of family %d, type %d, protocol %d: %s", kinds[i].family, kinds[i].type, kinds[i].protocol,
                   strerror(errno));
    }
    WL_TRY(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    fds[n++] = pair[0];
    fds[n++] = pair[1];
    int listener = WL_TRY(socket(AF_INET, SOCK_STREAM, 0));
    WL_TRY(bind(listener, (struct sockaddr *)&address, sizeof(address)));
    WL_TRY(listen(listener, 1));
    WL_TRY(getsockname(listener, (struct sockaddr *)&address, &size));
    int client = WL_TRY(socket(AF_INET, SOCK_STREAM, 0));
    WL_TRY(connect(client, (struct sockaddr *)&address, sizeof(address)));
    fds[n++] = listener;
    fds[n++] = client;
    fds[n++] = WL_TRY(accept(listener, NULL, NULL));
    for (size_t i = 0; i < n; i++)
        WL_TRY(fchown(fds[i], (uid_t)(1000 + i), (gid_t)(2000 + i)));

    wl_ready();
    wl_wait();

    for (size_t i = 0; i < n; i++) {
        struct stat info;

        WL_TRY(fstat(fds[i], &info));
        WL_CHECK(info.st_uid == 1000 + i && info.st_gid == 2000 + i, "socket %zu belongs to %u:%u", i, info.st_uid,
                 info.st_gid);
    }
    wl_pass();
}

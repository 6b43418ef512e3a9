/*
 * Three network namespaces: the program's, a child's, joined to the first by a veth pair, and one that only a descriptor
 * keeps, with a socket in it. Connections go from the first to the second, and a tun device is in the third.
 * With the argument "pair" there are only the first two.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PORT = 7777 };

static void run(const char *command)
{
    WL_CHECK(system(command) == 0, "%s", command);
}

static ino_t inode_of(int fd)
{
    struct stat found;

    WL_TRY(fstat(fd, &found));
    return found.st_ino;
}

static ino_t namespace_of(int fd)
{
    int namespace = WL_TRY(ioctl(fd, SIOCGSKNS));
    ino_t found = inode_of(namespace);

    WL_TRY(close(namespace));
    return found;
}

static void knock(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    int fd = WL_TRY(socket(AF_INET, SOCK_STREAM, 0));

    WL_CHECK(inet_pton(AF_INET, address, &to.sin_addr) == 1, "address");
    WL_TRY(connect(fd, (struct sockaddr *)&to, sizeof(to)));
    WL_TRY(close(fd));
}

static void serve(int from_parent, int to_parent)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr.s_addr = htonl(INADDR_ANY)};
    char c;

    WL_TRY(unshare(CLONE_NEWNET));
    int listener = WL_TRY(socket(AF_INET, SOCK_STREAM, 0));
    WL_TRY(bind(listener, (struct sockaddr *)&here, sizeof(here)));
    WL_TRY(listen(listener, 5));
    WL_CHECK(write(to_parent, "x", 1) == 1, "write");
    WL_CHECK(read(from_parent, &c, 1) == 1, "read");
    run("ip addr add 10.7.0.2/24 dev far && ip link set far up");
    WL_CHECK(write(to_parent, "x", 1) == 1, "write");
    for (int i = 0; i < 2; i++)
        WL_TRY(close(WL_TRY(accept(listener, NULL, NULL))));
    _exit(0);
}

static int attach_tun(void)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int fd = WL_TRY(open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));

    strcpy(request.ifr_name, "tun5");
    WL_TRY(ioctl(fd, TUNSETIFF, &request));
    return fd;
}

int main(int argc, char **argv)
{
    int to_child[2], from_child[2], status;
    char command[128], c;
    struct ifreq request;

    wl_init(argc, argv);
    WL_TRY(unshare(CLONE_NEWNET));
    WL_TRY(pipe(to_child));
    WL_TRY(pipe(from_child));
    pid_t child = WL_TRY(fork());
    if (child == 0)
        serve(to_child[0], from_child[1]);
    WL_CHECK(read(from_child[0], &c, 1) == 1, "the child did not start");
    snprintf(command, sizeof(command), "ip link add near index 9 type veth peer name far index 9 netns %d", child);
    run(command);
    run("ip addr add 10.7.0.1/24 dev near && ip link set near up");
    WL_CHECK(write(to_child[1], "x", 1) == 1, "write");
    WL_CHECK(read(from_child[0], &c, 1) == 1, "the child did not go on");
    knock("10.7.0.2");

    if (wl_argc > 0 && strcmp(wl_argv[0], "pair") == 0) {
        wl_ready();
        wl_wait();
        knock("10.7.0.2");
        WL_TRY(waitpid(child, &status, 0));
        WL_CHECK(status == 0, "the child ended with %#x", status);
        wl_pass();
    }
    int home = WL_TRY(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    WL_TRY(unshare(CLONE_NEWNET));
    run("ip link set lo up");
    int kept = WL_TRY(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    int inside = WL_TRY(socket(AF_INET, SOCK_DGRAM, 0));
    int tun = attach_tun();
    WL_TRY(setns(home, CLONE_NEWNET));

    wl_ready();
    wl_wait();

    int now = WL_TRY(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    WL_CHECK(inode_of(now) == inode_of(home), "in another namespace than the descriptor's");
    knock("10.7.0.2");
    WL_TRY(waitpid(child, &status, 0));
    WL_CHECK(status == 0, "the child ended with %#x", status);
    WL_CHECK(namespace_of(inside) == inode_of(kept), "the socket is in another namespace");
    WL_CHECK(namespace_of(tun) == inode_of(kept), "the tun device is in another namespace");
    WL_TRY(ioctl(tun, TUNGETIFF, &request));
    WL_CHECK(strcmp(request.ifr_name, "tun5") == 0 && !(request.ifr_flags & IFF_PERSIST), "another device");
    WL_CHECK(WL_TRY(fcntl(tun, F_GETFL)) & O_NONBLOCK, "other flags");
    WL_TRY(setns(kept, CLONE_NEWNET));
    run("ip link show dev lo up | grep -q lo && ip link show dev tun5 > /dev/null");
    wl_pass();
}

/* packet(7) sockets: bound, of the old type, members of multicast groups, options, a ring that is mapped. */
#define _GNU_SOURCE
#include "workload.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Local experimental Ethertype. */
#define ETH_P_TEST 0x88B5

static int number(int fd, int name)
{
    int value = -1;
    socklen_t size = sizeof(value);

    WL_TRY(getsockopt(fd, SOL_PACKET, name, &value, &size));
    return value;
}

static void set(int fd, int name, int value)
{
    WL_TRY(setsockopt(fd, SOL_PACKET, name, &value, sizeof(value)));
}

int main(int argc, char **argv)
{
    struct sockaddr_ll there = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_TEST)}, got;
    struct tpacket_req ring = {.tp_block_size = 4096, .tp_block_nr = 2, .tp_frame_size = 1024, .tp_frame_nr = 8};
    struct packet_mreq member = {.mr_type = PACKET_MR_MULTICAST, .mr_alen = 6, .mr_address = {1, 2, 3, 4, 5, 6}};
    struct sockaddr old = {.sa_family = AF_PACKET, .sa_data = "lo"}, old_got;
    struct tpacket_hdr *frame;
    socklen_t size = sizeof(got);
    char sent[64] = "\1\2\3", text[64];

    wl_init(argc, argv);
    member.mr_ifindex = there.sll_ifindex = (int)if_nametoindex("lo");
    int bound = WL_TRY(socket(AF_PACKET, SOCK_DGRAM, 0));
    WL_TRY(bind(bound, (struct sockaddr *)&there, sizeof(there)));
    set(bound, PACKET_AUXDATA, 1);
    set(bound, PACKET_LOSS, 1);
    WL_TRY(setsockopt(bound, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &member, sizeof(member)));
    int spkt = WL_TRY(socket(AF_PACKET, SOCK_PACKET, htons(ETH_P_TEST)));
    WL_TRY(bind(spkt, &old, sizeof(old)));
    int ringed = WL_TRY(socket(AF_PACKET, SOCK_DGRAM, 0));
    set(ringed, PACKET_RESERVE, 32);
    WL_TRY(setsockopt(ringed, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring)));
    char *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, ringed, 0);
    WL_CHECK(memory != MAP_FAILED, "the ring cannot be mapped");
    there.sll_protocol = htons(ETH_P_TEST);
    WL_TRY(bind(ringed, (struct sockaddr *)&there, sizeof(there)));

    wl_ready();
    wl_wait();

    WL_TRY(getsockname(bound, (struct sockaddr *)&got, &size));
    WL_CHECK(got.sll_ifindex == there.sll_ifindex && got.sll_protocol == there.sll_protocol, "bound elsewhere");
    WL_CHECK(number(bound, PACKET_AUXDATA) == 1 && number(bound, PACKET_LOSS) == 1, "options");
    WL_CHECK(number(bound, PACKET_ORIGDEV) == 0 && number(ringed, PACKET_RESERVE) == 32, "other options");
    WL_TRY(setsockopt(bound, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &member, sizeof(member)));
    size = sizeof(old_got);
    WL_TRY(getsockname(spkt, &old_got, &size));
    WL_CHECK(strcmp(old_got.sa_data, "lo") == 0, "the old socket is bound to \"%.14s\"", old_got.sa_data);
    there.sll_halen = 6;
    WL_TRY(sendto(bound, sent, sizeof(sent), 0, (struct sockaddr *)&there, sizeof(there)));
    WL_CHECK(recv(bound, text, sizeof(text), 0) == sizeof(sent) && memcmp(sent, text, sizeof(sent)) == 0, "no packet");
    frame = (struct tpacket_hdr *)memory;
    for (int i = 0; i < 8 && !(frame->tp_status & TP_STATUS_USER); i++)
        frame = (struct tpacket_hdr *)(memory + 1024 * i);
    WL_CHECK(frame->tp_status & TP_STATUS_USER, "nothing in the ring");
    WL_CHECK(memcmp((char *)frame + frame->tp_net, sent, sizeof(sent)) == 0, "another packet in the ring");
    wl_pass();
}

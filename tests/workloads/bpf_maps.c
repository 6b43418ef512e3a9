/* BPF maps: a hash with two descriptors, an array that is frozen, one description that only writes. */
#define _GNU_SOURCE
#include "workload.h"

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#define N_ENTRIES 5000

static int bpf(int command, union bpf_attr *attr)
{
    return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int make(int type, const char *name, unsigned flags)
{
    union bpf_attr attr = {
        .map_type = type, .key_size = 4, .value_size = 8, .max_entries = N_ENTRIES, .map_flags = flags};

    memcpy(attr.map_name, name, strlen(name));
    return WL_TRY(bpf(BPF_MAP_CREATE, &attr));
}

static int put(int map, uint32_t key, uint64_t value)
{
    union bpf_attr attr = {.map_fd = map, .key = (uintptr_t)&key, .value = (uintptr_t)&value};

    return bpf(BPF_MAP_UPDATE_ELEM, &attr);
}

static int get(int map, uint32_t key, uint64_t *value)
{
    union bpf_attr attr = {.map_fd = map, .key = (uintptr_t)&key, .value = (uintptr_t)value};

    return bpf(BPF_MAP_LOOKUP_ELEM, &attr);
}

static struct bpf_map_info info_of(int map)
{
    struct bpf_map_info info = {0};
    union bpf_attr attr = {.info = {.bpf_fd = map, .info_len = sizeof(info), .info = (uintptr_t)&info}};

    WL_TRY(bpf(BPF_OBJ_GET_INFO_BY_FD, &attr));
    return info;
}

static void expect(int map, uint32_t key, uint64_t wanted)
{
    uint64_t value = 0;

    WL_TRY(get(map, key, &value));
    WL_CHECK(value == wanted, "%u is at %llu", key, (unsigned long long)value);
}

int main(int argc, char **argv)
{
    uint64_t value;

    wl_init(argc, argv);
    int hash = make(BPF_MAP_TYPE_HASH, "a_hash", BPF_F_NO_PREALLOC), array = make(BPF_MAP_TYPE_ARRAY, "an_array", 0);
    for (uint32_t i = 0; i < N_ENTRIES - 1; i++) {
        WL_TRY(put(hash, i * 7, i));
        WL_TRY(put(array, i, 1000 + i));
    }
    union bpf_attr by_id = {.map_id = info_of(hash).id, .open_flags = BPF_F_WRONLY};
    int writer = WL_TRY(bpf(BPF_MAP_GET_FD_BY_ID, &by_id));
    union bpf_attr freeze = {.map_fd = array};
    WL_TRY(bpf(BPF_MAP_FREEZE, &freeze));

    wl_ready();
    wl_wait();

    for (uint32_t i = 0; i < N_ENTRIES - 1; i++) {
        expect(hash, i * 7, i);
        expect(array, i, 1000 + i);
    }
    WL_CHECK(get(hash, 1, &value) == -1 && errno == ENOENT, "an entry too many");
    WL_CHECK(put(array, 0, 0) == -1 && errno == EPERM, "the array is not frozen");
    WL_TRY(put(writer, 1, 77));
    expect(hash, 1, 77);
    WL_CHECK(get(writer, 1, &value) == -1 && errno == EPERM, "what was for writing can be read");
    WL_CHECK(strcmp(info_of(hash).name, "a_hash") == 0, "its name is %s", info_of(hash).name);
    WL_CHECK(info_of(hash).map_flags == BPF_F_NO_PREALLOC, "its flags are %#x", info_of(hash).map_flags);
    wl_pass();
}

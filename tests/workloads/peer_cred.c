/* Whom sockets say their other ends are: users, groups and processes of listeners, clients and pairs, some of them dead. */
#define _GNU_SOURCE
#include "workload.h"

#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif
#define MAX_GROUPS 16
#define MAX_SHOWN 64
#define MAX_CHILDREN 16

struct who {
    uid_t uid;
    gid_t gid;
    int n_groups;
    gid_t groups[MAX_GROUPS];
};

struct shown {
    const char *what;
    int fd;
    struct ucred cred;
    int n_groups;
    gid_t groups[MAX_GROUPS];
    struct sockaddr_un name;
};

static const struct who client = {1234, 1235, 2, {11, 12}};
static const struct who server = {4321, 44, 3, {7, 8, 9}};
static const struct who other = {77, 78, 0, {0}};
static char directory[] = "/tmp/wl-peer-XXXXXX";
static struct shown shown[MAX_SHOWN];
static int n_shown;
static pid_t children[MAX_CHILDREN];
static int n_children;

/* A task of somebody, which shares our descriptors and makes one call; then it waits, or is dead. */
struct task {
    const struct who *who;
    bool lives;
    void (*call)(struct task *task);
    int fd;
    int more[2];
    int backlog;
    struct sockaddr_un address;
    socklen_t size;
};

static void become(const struct who *who)
{
    WL_TRY(setgroups((size_t)who->n_groups, who->groups));
    WL_TRY(setresgid(who->gid, who->gid, who->gid));
    WL_TRY(setresuid(who->uid, who->uid, who->uid));
}

static char stack[1 << 16] __attribute__((aligned(16)));

static int run(void *arg)
{
    struct task *task = arg;

    become(task->who);
    task->call(task);
    _exit(0);
}

/* The pid of whoever made the call. */
static pid_t act(struct task *task)
{
    int done[2];
    char byte;

    if (!task->lives) {
        pid_t pid = WL_TRY(clone(run, stack + sizeof(stack), CLONE_FILES | CLONE_VM | SIGCHLD, task));
        int status;

        WL_TRY(waitpid(pid, &status, 0));
        WL_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a task ended with status %x", (unsigned)status);
        return pid;
    }
    WL_TRY(pipe(done));
    pid_t pid = WL_TRY(fork());
    if (pid == 0) {
        close(done[0]);
        become(task->who);
        task->call(task);
        /* What the parent closes is to be closed. */
        close_range(3, ~0U, 0);
        for (;;)
            pause();
    }
    close(done[1]);
    WL_CHECK(read(done[0], &byte, 1) == 0, "a task did not do its part");
    close(done[0]);
    children[n_children++] = pid;
    return pid;
}

static void call_listen(struct task *task)
{
    WL_TRY(listen(task->fd, task->backlog));
}

static void call_connect(struct task *task)
{
    WL_TRY(connect(task->fd, (struct sockaddr *)&task->address, task->size));
}

static void call_pair(struct task *task)
{
    WL_TRY(socketpair(AF_UNIX, task->backlog, 0, task->more));
}

static struct sockaddr_un named(const char *name, socklen_t *size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length;

    if (name[0] == '@') {
        length = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "wl%s-%s", directory, name);
        *size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    } else {
        snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", directory, name);
        *size = sizeof(address);
    }
    return address;
}

static int bound(const char *name, int type)
{
    socklen_t size;
    struct sockaddr_un address = named(name, &size);
    int fd = WL_TRY(socket(AF_UNIX, type, 0));

    WL_TRY(bind(fd, (struct sockaddr *)&address, size));
    if (name[0] != '@')
        WL_TRY(chmod(address.sun_path, 0666));
    return fd;
}

static pid_t listen_as(const struct who *who, bool lives, int fd)
{
    struct task task = {.who = who, .lives = lives, .call = call_listen, .fd = fd, .backlog = 5};

    return act(&task);
}

/* A connected socket, and who has it connected. */
static int connect_as(const struct who *who, bool lives, const char *name, int type, pid_t *pid)
{
    struct task task = {.who = who, .lives = lives, .call = call_connect};

    task.fd = WL_TRY(socket(AF_UNIX, type, 0));
    task.address = named(name, &task.size);
    *pid = act(&task);
    return task.fd;
}

static void look(struct shown *at)
{
    socklen_t size = sizeof(at->cred);

    WL_TRY(getsockopt(at->fd, SOL_SOCKET, SO_PEERCRED, &at->cred, &size));
    size = sizeof(at->groups);
    memset(at->groups, 0, sizeof(at->groups));
    memset(&at->name, 0, sizeof(at->name));
    socklen_t length = sizeof(at->name);
    WL_TRY(getsockname(at->fd, (struct sockaddr *)&at->name, &length));
    at->n_groups = getsockopt(at->fd, SOL_SOCKET, SO_PEERGROUPS, at->groups, &size) < 0 ? -1 : (int)(size / sizeof(gid_t));
}

static void note(const char *what, int fd)
{
    WL_CHECK(n_shown < MAX_SHOWN, "too many");
    shown[n_shown].what = what;
    shown[n_shown].fd = fd;
    look(&shown[n_shown++]);
}

static void expect(const char *what, int fd, const struct who *who, pid_t pid)
{
    struct shown now = {.what = what, .fd = fd};

    look(&now);
    WL_CHECK(now.cred.pid == pid && now.cred.uid == who->uid && now.cred.gid == who->gid,
             "%s: pid %d, user %u, group %u instead of %d, %u, %u", what, now.cred.pid, now.cred.uid, now.cred.gid, pid,
             who->uid, who->gid);
    WL_CHECK(now.n_groups == who->n_groups && memcmp(now.groups, who->groups, (size_t)who->n_groups * sizeof(gid_t)) == 0,
             "%s: %d groups, not %d, or others", what, now.n_groups, who->n_groups);
}

static void talk(int from, int to)
{
    char byte = 0;

    WL_CHECK(send(from, "x", 1, MSG_NOSIGNAL) == 1 && recv(to, &byte, 1, MSG_DONTWAIT) == 1 && byte == 'x',
             "nothing comes through");
}

/* One kind of listener: clients alive and dead, accepted; and those that see another server. */
static int serve(const char *name, int type, int ends[2], int *waiting, pid_t *waiter, pid_t *listens)
{
    pid_t pid, first;
    int listener = bound(name, type);

    first = listen_as(&server, true, listener);
    ends[0] = connect_as(&client, true, name, type, &pid);
    ends[1] = WL_TRY(accept(listener, NULL, NULL));
    expect("a living client", ends[1], &client, pid);
    expect("a living server", ends[0], &server, first);
    note("the end of a living client", ends[1]);
    note("the end of a living server", ends[0]);
    int dead = connect_as(&other, false, name, type, &pid), from_dead = WL_TRY(accept(listener, NULL, NULL));
    expect("a dead client", from_dead, &other, pid);
    note("the end of a dead client", from_dead);
    note("that of a dead client's server", dead);
    *listens = listen_as(&other, false, listener);
    int late = connect_as(&server, false, name, type, &pid), accepted = WL_TRY(accept(listener, NULL, NULL));
    note("the end of a dead server", late);
    note("the end of another dead client", accepted);
    int alone = connect_as(&client, false, name, type, &pid), orphan = WL_TRY(accept(listener, NULL, NULL));
    WL_TRY(close(alone));
    note("whose other end is closed", orphan);
    note("a listener", listener);
    if (waiting != NULL) {
        socklen_t size;
        struct sockaddr_un address = named(name, &size);
        int done[2];
        char byte;
        WL_TRY(pipe(done));
        int on = 1;
        /* The connection gets it from its listener, by now or when it is accepted. */
        WL_TRY(setsockopt(listener, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
        pid_t made = WL_TRY(fork());
        if (made == 0) {
            for (int fd = 3; fd < 100; fd++)
                if (fd != done[1])
                    close(fd);
            become(&client);
            int fd = WL_TRY(socket(AF_UNIX, type, 0));
            /* The kernel tells nobody who it is before it is accepted: it is known by whoever has the socket. */
            WL_TRY(connect(fd, (struct sockaddr *)&address, size));
            close(done[1]);
            for (;;)
                pause();
        }
        close(done[1]);
        WL_CHECK(read(done[0], &byte, 1) == 0, "a client did not connect");
        close(done[0]);
        children[n_children++] = made;
        *waiter = made;
        *waiting = listener;
    }
    return listener;
}

int main(int argc, char **argv)
{
    int ends[4][2], pending, pair[2];
    pid_t waiter, listens[4], late;

    wl_init(argc, argv);
    WL_CHECK(mkdtemp(directory) != NULL, "mkdtemp: %s", strerror(errno));
    WL_TRY(chmod(directory, 0755));

    int listener = serve("path", SOCK_STREAM, ends[0], &pending, &waiter, &listens[0]);
    serve("@abstract", SOCK_SEQPACKET, ends[1], NULL, NULL, &listens[1]);
    int closed = serve("closed", SOCK_STREAM, ends[2], NULL, NULL, &listens[2]);
    int hidden = serve("@closed", SOCK_STREAM, ends[3], NULL, NULL, &listens[3]);
    /* What shows of a listener is looked at only where it stays. */
    n_shown--;
    for (int i = 0; i < n_shown; i++)
        if (shown[i].fd == closed)
            shown[i] = shown[--n_shown];
    WL_TRY(close(closed));
    WL_TRY(close(hidden));

    for (int i = 0; i < 4; i++) {
        struct task task = {.who = i & 1 ? &client : &server, .lives = false, .call = call_pair};

        task.backlog = i & 2 ? SOCK_DGRAM : SOCK_STREAM;
        pid_t pid = act(&task);
        expect("a pair", task.more[0], task.who, pid);
        note("a pair", task.more[0]);
        note("a pair's other end", task.more[1]);
    }
    WL_TRY(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    note("our own pair", pair[0]);
    int one = bound("one", SOCK_DGRAM), two = bound("two", SOCK_DGRAM);
    socklen_t size;
    struct sockaddr_un address = named("two", &size);
    WL_TRY(connect(one, (struct sockaddr *)&address, size));
    address = named("one", &size);
    WL_TRY(connect(two, (struct sockaddr *)&address, size));
    note("datagrams connected by name", one);
    note("datagrams connected back", two);

    wl_ready();
    wl_wait();

    for (int i = 0; i < n_shown; i++) {
        struct shown now = shown[i];

        look(&now);
        WL_CHECK(now.cred.pid == shown[i].cred.pid && now.cred.uid == shown[i].cred.uid && now.cred.gid == shown[i].cred.gid,
                 "%s (%d): pid %d, user %u, group %u instead of %d, %u, %u", now.what, now.fd, now.cred.pid, now.cred.uid,
                 now.cred.gid, shown[i].cred.pid, shown[i].cred.uid, shown[i].cred.gid);
        WL_CHECK(now.n_groups == shown[i].n_groups && memcmp(now.groups, shown[i].groups, sizeof(now.groups)) == 0,
                 "%s (%d): %d groups instead of %d, or others", now.what, now.fd, now.n_groups, shown[i].n_groups);
    }
    for (int i = 0; i < n_shown; i++) {
        struct shown now = shown[i];

        look(&now);
        WL_CHECK(memcmp(&now.name, &shown[i].name, sizeof(now.name)) == 0, "%s (%d) has another name", now.what, now.fd);
    }
    int accepted = WL_TRY(accept(pending, NULL, NULL));
    expect("who waited to be accepted", accepted, &client, waiter);
    int on = 0;
    size = sizeof(on);
    WL_TRY(getsockopt(accepted, SOL_SOCKET, SO_PASSCRED, &on, &size));
    WL_CHECK(on == 1, "who waited to be accepted does not say who sends");
    int fresh = connect_as(&client, false, "path", SOCK_STREAM, &late);
    expect("a server connected to now", fresh, &other, listens[0]);
    expect("a client connected now", WL_TRY(accept(listener, NULL, NULL)), &client, late);
    for (int i = 0; i < 4; i++) {
        talk(ends[i][0], ends[i][1]);
        talk(ends[i][1], ends[i][0]);
    }
    talk(one, two);
    talk(two, one);
    for (int i = 0; i < n_children; i++) {
        WL_TRY(kill(children[i], SIGKILL));
        WL_TRY(waitpid(children[i], NULL, 0));
    }
    for (const char *const *name = (const char *const[]){"path", "closed", "one", "two", NULL}; *name != NULL; name++) {
        char path[128];

        snprintf(path, sizeof(path), "%s/%s", directory, *name);
        WL_TRY(unlink(path));
    }
    WL_TRY(rmdir(directory));
    wl_pass();
}

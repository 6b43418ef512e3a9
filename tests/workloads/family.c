/*
 * Sessions, process groups and parents in every relation that forks, setsid, setpgid and deaths lead to; the root looks
 * at all of them before and after.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX 32

struct relation {
    char name[48];
    pid_t pid, parent, group, session;
};

static struct relation known[MAX];
static int n_known;
static int to_root[2];

static void read_relation(struct relation *relation)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/stat", relation->pid);
    FILE *file = fopen(path, "r");
    WL_CHECK(file != NULL, "%s (pid %d) is gone", relation->name, relation->pid);
    char line[1024] = "";
    WL_CHECK(fgets(line, sizeof(line), file) != NULL, "%s is empty", path);
    fclose(file);
    WL_CHECK(sscanf(strrchr(line, ')') + 1, " %*c %d %d %d", &relation->parent, &relation->group,
                    &relation->session) == 3,
             "%s: %s", path, line);
}

/* Tell the root that the calling process is there, and as what. */
static void announce(const char *name)
{
    struct relation relation = {.pid = getpid()};

    snprintf(relation.name, sizeof(relation.name), "%s", name);
    WL_TRY(write(to_root[1], &relation, sizeof(relation)));
}

static void on_question(int number)
{
    int flag = 0;

    (void)number;
    prctl(PR_GET_CHILD_SUBREAPER, &flag, 0, 0, 0);
    _exit(flag ? 42 : 41);
}

static _Noreturn void stay(const char *name)
{
    announce(name);
    for (;;)
        pause();
}

/* fork, with the child doing what follows `if (child(...))`. */
static bool is_child(pid_t *pid)
{
    fflush(NULL);
    *pid = WL_TRY(fork());
    return *pid == 0;
}

static void wait_end(pid_t pid)
{
    int status;

    WL_TRY(waitpid(pid, &status, 0));
    WL_CHECK(status == 0, "pid %d ended with %#x", pid, status);
}

static int expect_announcements(int n)
{
    for (int i = 0; i < n; i++) {
        WL_TRY(read(to_root[0], &known[n_known], sizeof(known[0])));
        n_known++;
    }
    return n_known;
}

/* A leader with a member of its session, and a child from before its setsid. */
static void make_inner_session(void)
{
    pid_t pid;

    if (is_child(&pid)) {
        if (is_child(&pid))
            stay("child of a leader, in the leader's old session");
        WL_TRY(setsid());
        if (is_child(&pid)) {
            WL_TRY(setpgid(0, 0));
            stay("group leader in an inner session");
        }
        stay("inner session leader");
    }
    expect_announcements(3);
}

static void make_group_without_leader(void)
{
    pid_t leader, member;
    int hold[2];
    char byte;

    WL_TRY(pipe(hold));
    if (is_child(&leader)) {
        close(hold[1]);
        _exit(read(hold[0], &byte, 1) != 0);
    }
    WL_TRY(setpgid(leader, leader));
    for (int i = 0; i < 2; i++) {
        if (is_child(&member)) {
            close(hold[1]);
            close(hold[0]);
            WL_TRY(setpgid(0, leader));
            stay("member of a group whose leader has died");
        }
        expect_announcements(1);
    }
    close(hold[1]);
    wait_end(leader);
    close(hold[0]);
}

static void make_group_whose_leader_left(void)
{
    pid_t leader, member;
    int go[2];
    char byte;

    WL_TRY(pipe(go));
    if (is_child(&leader)) {
        close(go[1]);
        WL_TRY(setpgid(0, 0));
        announce("leader of one group, member of another");
        WL_CHECK(read(go[0], &byte, 1) == 0, "told something");
        close(go[0]);
        WL_TRY(setpgid(0, getppid()));
        stay("the same, moved");
    }
    expect_announcements(1);
    n_known--;
    if (is_child(&member)) {
        close(go[0]);
        close(go[1]);
        WL_TRY(setpgid(0, leader));
        stay("member of a group whose leader has left");
    }
    expect_announcements(1);
    close(go[0]);
    close(go[1]);
    expect_announcements(1);
}

/* The root is a subreaper: it gets what a dead leader leaves behind. */
static void make_session_without_leader(void)
{
    pid_t leader, pid;

    if (is_child(&leader)) {
        WL_TRY(setsid());
        if (is_child(&pid)) {
            while (getppid() != known[0].pid)
                sched_yield();
            if (is_child(&pid))
                stay("child of the member");
            stay("member of a session whose leader has died");
        }
        _exit(0);
    }
    expect_announcements(2);
    wait_end(leader);
}

/* An inner subreaper whose adopted children are in sessions that live below it. */
static void make_inner_subreaper(void)
{
    pid_t pid, reaper;

    if (is_child(&pid)) {
        struct sigaction action = {.sa_handler = on_question};

        WL_TRY(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
        WL_TRY(sigaction(SIGUSR1, &action, NULL));
        reaper = getpid();
        if (is_child(&pid)) {
            WL_TRY(setsid());
            if (is_child(&pid)) {
                if (is_child(&pid)) {
                    while (getppid() != reaper)
                        sched_yield();
                    stay("adopted, with its session's leader as brother");
                }
                _exit(0);
            }
            wait_end(pid);
            if (is_child(&pid)) {
                WL_TRY(setsid());
                if (is_child(&pid)) {
                    if (is_child(&pid)) {
                        while (getppid() != reaper)
                            sched_yield();
                        stay("adopted, with its session's leader as nephew");
                    }
                    _exit(0);
                }
                wait_end(pid);
                stay("leader below a leader");
            }
            stay("leader below a subreaper");
        }
        stay("subreaper");
    }
    expect_announcements(5);
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    WL_TRY(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    WL_TRY(pipe(to_root));
    snprintf(known[0].name, sizeof(known[0].name), "root");
    known[n_known++].pid = getpid();
    make_inner_session();
    make_group_without_leader();
    make_group_whose_leader_left();
    make_session_without_leader();
    make_inner_subreaper();
    for (int i = 0; i < n_known; i++) {
        read_relation(&known[i]);
        wl_log("%s: pid %d, parent %d, group %d, session %d", known[i].name, known[i].pid, known[i].parent,
               known[i].group, known[i].session);
    }

    wl_ready();
    wl_wait();

    for (int i = 0; i < n_known; i++) {
        struct relation now = known[i];

        read_relation(&now);
        WL_CHECK(memcmp(&now, &known[i], sizeof(now)) == 0,
                 "%s, pid %d: parent %d, group %d, session %d; now %d, %d, %d", now.name, now.pid, known[i].parent,
                 known[i].group, known[i].session, now.parent, now.group, now.session);
    }
    int flag = 0;
    WL_TRY(prctl(PR_GET_CHILD_SUBREAPER, &flag, 0, 0, 0));
    WL_CHECK(flag == 1, "the root is no subreaper any more");
    for (int i = 1; i < n_known; i++) {
        bool is_reaper = strcmp(known[i].name, "subreaper") == 0;
        int status;

        if (is_reaper) {
            kill(known[i].pid, SIGUSR1);
            WL_TRY(waitpid(known[i].pid, &status, 0));
            WL_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42, "the inner subreaper ended with %#x", status);
        } else {
            kill(known[i].pid, SIGKILL);
        }
    }
    while (wait(NULL) > 0)
        ;
    WL_CHECK(errno == ECHILD, "wait: %s", strerror(errno));
    wl_pass();
}

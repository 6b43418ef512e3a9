// A server on port 8080 that holds an inotify watch, a periodic timerfd, a signalfd and an open file that is deleted.
// Each connection makes it use all four; the answer is how many there have been before, or what did not work.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define DIRECTORY "/srv/watched"

static int must(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

static int inotify, timer, signals, deleted;
static int count;

static int readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, 5000) == 1;
}

static const char *use_all(void)
{
    char buffer[4096];
    struct signalfd_siginfo info;
    uint64_t ticks;

    close(must(open(DIRECTORY "/file", O_CREAT | O_WRONLY, 0600), "open"));
    unlink(DIRECTORY "/file");
    if (!readable(inotify) || read(inotify, buffer, sizeof(buffer)) <= 0)
        return "no inotify event";
    // The ticks of the past are taken away first: it must go on ticking.
    for (int i = 0; i < 2; i++)
        if (!readable(timer) || read(timer, &ticks, sizeof(ticks)) != sizeof(ticks))
            return "the timer does not tick";
    kill(getpid(), SIGUSR1);
    if (!readable(signals) || read(signals, &info, sizeof(info)) != sizeof(info) || info.ssi_signo != SIGUSR1)
        return "no signal";
    if (lseek(deleted, 0, SEEK_CUR) != count || write(deleted, "x", 1) != 1)
        return "the deleted file has another position";
    struct stat status;
    if (fstat(deleted, &status) != 0 || status.st_nlink != 0 || status.st_size != count + 1)
        return "the deleted file is another";
    for (int i = 0; i <= count; i++)
        if (pread(deleted, buffer, 1, i) != 1 || buffer[0] != 'x')
            return "the deleted file has other contents";
    return NULL;
}

int main(void)
{
    sigset_t usr1;
    struct itimerspec often = {{0, 20 * 1000 * 1000}, {0, 20 * 1000 * 1000}};
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(8080)};

    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, NULL);
    if (mkdir(DIRECTORY, 0755) != 0 && errno != EEXIST)
        must(-1, "mkdir");
    inotify = must(inotify_init1(IN_NONBLOCK), "inotify_init1");
    must(inotify_add_watch(inotify, DIRECTORY, IN_CREATE | IN_DELETE), "inotify_add_watch");
    timer = must(timerfd_create(CLOCK_MONOTONIC, 0), "timerfd_create");
    must(timerfd_settime(timer, 0, &often, NULL), "timerfd_settime");
    signals = must(signalfd(-1, &usr1, 0), "signalfd");
    deleted = must(open("/srv/deleted", O_CREAT | O_RDWR, 0600), "open");
    must(unlink("/srv/deleted"), "unlink");

    int server = must(socket(AF_INET, SOCK_STREAM, 0), "socket");
    int one = 1;
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    must(bind(server, (struct sockaddr *)&any, sizeof(any)), "bind");
    must(listen(server, 5), "listen");
    for (;;) {
        int client = accept(server, NULL, NULL);
        if (client < 0)
            continue;
        const char *wrong = use_all();
        if (wrong)
            dprintf(client, "%s\n", wrong);
        else
            dprintf(client, "%d\n", count++);
        close(client);
    }
}

/*
 * A confined server: threads, each with a connection over TCP to itself, a pipe and a pair of unix sockets, through all of
 * which a number goes round ten times a second: `server FILE`. The file says how often it has; an error ends it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { N_THREADS = 3 };
static int pipes[N_THREADS][2], pairs[N_THREADS][2], connections[N_THREADS][2];

static void pass(const int ends[2], int *number)
{
    if (write(ends[1], number, sizeof(*number)) != sizeof(*number) || read(ends[0], number, sizeof(*number)) < 4)
        exit(3);
}

static void *serve(void *argument)
{
    int at = *(int *)argument;

    for (int number = 0;; number++) {
        int carried = number;
        pass(pipes[at], &carried);
        pass(pairs[at], &carried);
        pass(connections[at], &carried);
        if (carried != number)
            exit(4);
        usleep(100000);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    int numbers[N_THREADS];
    char line[32];

    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int fd = argc > 1 ? open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0644) : -1;
    if (fd < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 8) ||
        getsockname(listener, (struct sockaddr *)&address, &size))
        return 1;
    for (int i = 0; i < N_THREADS; i++) {
        pthread_t thread;

        numbers[i] = i;
        connections[i][1] = socket(AF_INET, SOCK_STREAM, 0);
        if (pipe(pipes[i]) || socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]) ||
            connect(connections[i][1], (struct sockaddr *)&address, size) ||
            (connections[i][0] = accept(listener, NULL, NULL)) < 0 || pthread_create(&thread, NULL, serve, &numbers[i]))
            return 2;
    }
    for (int round = 1;; round++) {
        if (pwrite(fd, line, snprintf(line, sizeof(line), "%8d\n", round), 0) < 0)
            return 5;
        usleep(100000);
    }
}

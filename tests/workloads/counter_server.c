// The program of a container image: whoever connects to port 8080 is told how many have, from 0, which only its memory
// knows.  Not a workload that checks itself: tests/e2e/test_torpor_command.py asks it.
// cflags: -static
#include "workload.h"

#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8080)};
    int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16)) {
        perror("listen");
        return 1;
    }
    for (int count = 0;; count++) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            return 1;
        dprintf(client, "%d\n", count);
        close(client);
    }
}

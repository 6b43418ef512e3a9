/*
 * Ptys with both ends in the process: settings, size, packet mode, lines and half a line that nobody has read, in raw and
 * in canonical mode; a slave that was hung up, a master whose slave is closed.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

struct pty {
    int master, slave;
    char name[64];
};

static struct pty open_pty(void)
{
    struct pty pty;

    pty.master = wl_open_master(O_RDWR | O_NOCTTY);
    WL_TRY(grantpt(pty.master));
    WL_TRY(unlockpt(pty.master));
    WL_CHECK(ptsname_r(pty.master, pty.name, sizeof(pty.name)) == 0, "ptsname");
    pty.slave = WL_TRY(open(pty.name, O_RDWR | O_NOCTTY));
    return pty;
}

static void put(int fd, const char *text)
{
    WL_CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "write of %s: %s", text, strerror(errno));
}

static void expect(int fd, const char *text, const char *what)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    char buffer[256];

    WL_CHECK(WL_TRY(poll(&poller, 1, 5000)) == 1, "%s: nothing to read", what);
    ssize_t n_read = WL_TRY(read(fd, buffer, sizeof(buffer) - 1));
    buffer[n_read] = 0;
    WL_CHECK(strcmp(buffer, text) == 0, "%s: read \"%s\", not \"%s\"", what, buffer, text);
}

static void wait_input(int fd, int n_bytes)
{
    int n_unread = 0;
    struct pollfd poller = {.fd = fd, .events = POLLIN};

    for (int i = 0; n_unread < n_bytes; i++) {
        WL_CHECK(WL_TRY(poll(&poller, 1, 5000)) == 1, "%d bytes have not arrived", n_bytes);
        WL_TRY(ioctl(fd, FIONREAD, &n_unread));
    }
}

static void make_raw(int fd)
{
    struct termios settings;

    WL_TRY(tcgetattr(fd, &settings));
    cfmakeraw(&settings);
    WL_TRY(tcsetattr(fd, TCSANOW, &settings));
}

int main(int argc, char **argv)
{
    struct termios settings = {0}, now = {0}; /* padding is compared as well */
    struct winsize size = {.ws_row = 33, .ws_col = 101}, size_now;
    int flag, index;
    char c, name_now[64];

    wl_init(argc, argv);
    struct pty line = open_pty();
    WL_TRY(tcgetattr(line.slave, &settings));
    settings.c_iflag |= INLCR;
    settings.c_cc[VINTR] = 7;
    WL_TRY(cfsetspeed(&settings, B115200));
    WL_TRY(tcsetattr(line.slave, TCSANOW, &settings));
    WL_TRY(ioctl(line.master, TIOCSWINSZ, &size));
    put(line.master, "one\r\004two\rthr\026\177ee");
    /* What was echoed says that all of it has been taken in. */
    wait_input(line.master, 5 + 5 + 8);
    int again = WL_TRY(open(line.name, O_RDWR | O_NOCTTY | O_NONBLOCK));
    WL_TRY(ioctl(line.slave, TIOCEXCL));

    struct pty raw = open_pty();
    make_raw(raw.slave);
    put(raw.master, "\003\004in");
    wait_input(raw.slave, 4);
    put(raw.slave, "out\n");
    wait_input(raw.master, 4);
    flag = 1;
    WL_TRY(ioctl(raw.master, TIOCPKT, &flag));
    WL_TRY(fcntl(raw.master, F_SETFL, O_NONBLOCK));

    struct pty hung = open_pty();
    struct pty closed = open_pty();
    WL_TRY(close(hung.master));
    put(closed.slave, "last");
    WL_TRY(close(closed.slave));
    wait_input(closed.master, 4);
    int fresh = wl_open_master(O_RDWR | O_NOCTTY | O_NONBLOCK);

    wl_ready();
    wl_wait();

    WL_TRY(tcgetattr(line.slave, &now));
    WL_CHECK(memcmp(&now, &settings, sizeof(now)) == 0, "the settings have changed");
    WL_TRY(ioctl(line.slave, TIOCGWINSZ, &size_now));
    WL_CHECK(memcmp(&size_now, &size, sizeof(size)) == 0, "%d rows, %d columns", size_now.ws_row, size_now.ws_col);
    WL_TRY(ioctl(line.slave, TIOCGEXCL, &flag));
    WL_CHECK(flag == 1, "it is not exclusive any more");
    WL_CHECK(ptsname_r(line.master, name_now, sizeof(name_now)) == 0 && strcmp(name_now, line.name) == 0,
             "the terminal was %s and is %s", line.name, name_now);
    WL_CHECK(ttyname_r(line.slave, name_now, sizeof(name_now)) == 0 && strcmp(name_now, line.name) == 0,
             "the slave was %s and is %s", line.name, name_now);
    expect(line.master, "one\r\ntwo\r\nthr^\b^?ee", "echo");
    expect(line.slave, "one\n", "first line");
    expect(line.slave, "", "end of file");
    expect(again, "two\n", "second line");
    WL_CHECK(read(again, &c, 1) == -1 && errno == EAGAIN, "half a line can be read");
    put(line.master, "x\r");
    expect(line.slave, "thr\177eex\n", "third line");

    WL_TRY(ioctl(raw.master, TIOCGPKT, &flag));
    WL_CHECK(flag == 1, "packet mode is lost");
    WL_CHECK(read(raw.master, &c, 1) == 1 && c == 0, "no status byte");
    flag = 0;
    WL_TRY(ioctl(raw.master, TIOCPKT, &flag));
    expect(raw.master, "out\n", "raw output");
    WL_CHECK(read(raw.master, &c, 1) == -1 && errno == EAGAIN, "O_NONBLOCK of a master");
    expect(raw.slave, "\003\004in", "raw input");

    WL_CHECK(read(hung.slave, &c, 1) == 0, "a hung-up terminal gives data");
    WL_CHECK(write(hung.slave, "x", 1) == -1 && errno == EIO, "a hung-up terminal takes data");
    expect(closed.master, "last", "output of a closed slave");
    WL_CHECK(read(closed.master, &c, 1) == -1 && errno == EIO, "a closed slave: %s", strerror(errno));
    WL_CHECK(read(fresh, &c, 1) == -1 && errno == EAGAIN, "a slave never opened: %s", strerror(errno));
    WL_TRY(ioctl(fresh, TIOCGPTLCK, &flag));
    WL_CHECK(flag == 1, "a locked pty is unlocked");
    WL_TRY(ioctl(fresh, TIOCGPTN, &index));
    wl_pass();
}

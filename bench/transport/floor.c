/* The least that messages cost between two processes, with nothing around them.
 *
 *     floor PATH NUM_SERVERS BURST CORE REQUEST:REPLY...
 *
 * PATH is `tcp` (on loopback), `unix` (a stream socket), or `memory`: bytes are copied into memory
 * that both share and out of it, and a byte over a UNIX socket says that they are there. Each
 * server is a process that reads messages of so many bytes and answers each with so many. For every
 * line of stdin all servers are sent all requests, BURST times over, and a line says for each time
 * how many nanoseconds passed until all replies were there. Servers run on CORE, or where the
 * client may run for -1. They end with the client, which ends with stdin. */
#define _GNU_SOURCE /* sched_setaffinity */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SERVERS = 64, MAX_MESSAGES = 256 };

typedef struct {
    size_t request, reply;
} Message;

typedef struct {
    Message messages[MAX_MESSAGES];
    int count;
    Message all; /* their sums */
    char *buffer;
    /* Memory that is shared: of each server its requests, then its replies. NULL for sockets. */
    char *shared;
} Load;

typedef struct {
    size_t sent, received;
} Progress;

static void check(int is_well, const char *what) {
    if (is_well) return;
    perror(what);
    exit(1);
}

static void load_of(char **arguments, int count, Load *load) {
    check(count <= MAX_MESSAGES, "too many messages");
    load->count = count;
    for (int i = 0; i < count; i++) {
        Message *message = &load->messages[i];
        check(sscanf(arguments[i], "%zu:%zu", &message->request, &message->reply) == 2, "sizes");
        load->all.request += message->request;
        load->all.reply += message->reply;
    }
    size_t most = load->all.request > load->all.reply ? load->all.request : load->all.reply;
    load->buffer = calloc(1, most);
    check(load->buffer != NULL, "memory");
}

static void share_memory(Load *load, int num_servers) {
    const size_t size = (size_t)num_servers * (load->all.request + load->all.reply);
    load->shared =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    check(load->shared != MAP_FAILED, "shared memory");
}

static char *requests_to(const Load *load, int server) {
    return load->shared + (size_t)server * (load->all.request + load->all.reply);
}

static char *replies_of(const Load *load, int server) {
    return requests_to(load, server) + load->all.request;
}

/* Whole, or the other side is gone. */
static int has_sent(int socket, const char *data, size_t count) {
    for (size_t sent = 0; sent < count;) {
        ssize_t more = send(socket, data + sent, count - sent, MSG_NOSIGNAL);
        if (more <= 0) return 0;
        sent += (size_t)more;
    }
    return 1;
}

/* Whole at once where the kernel can: a wake-up for each part would not be the least. */
static int has_received(int socket, char *data, size_t count) {
    return recv(socket, data, count, MSG_WAITALL) == (ssize_t)count;
}

/* Answer until the client is gone. */
static void serve(int socket, const Load *load) {
    for (int i = 0;; i = (i + 1) % load->count) {
        Message message = load->messages[i];
        if (!has_received(socket, load->buffer, message.request) ||
            !has_sent(socket, load->buffer, message.reply))
            exit(0);
    }
}

static void serve_memory(int socket, const Load *load, int server) {
    for (char notice; has_received(socket, &notice, 1);) {
        memcpy(load->buffer, requests_to(load, server), load->all.request);
        memcpy(replies_of(load, server), load->buffer, load->all.reply);
        if (!has_sent(socket, &notice, 1)) break;
    }
    exit(0);
}

static void without_delay(int socket) {
    int on = 1;
    check(!setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
}

static void tcp_pair(int sockets[2]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr *any = (struct sockaddr *)&address;
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockets[0] = socket(AF_INET, SOCK_STREAM, 0);
    check(listener >= 0 && sockets[0] >= 0, "socket");
    check(!bind(listener, any, size) && !listen(listener, 1), "listen");
    check(!getsockname(listener, any, &size), "getsockname");
    check(!connect(sockets[0], any, size), "connect");
    sockets[1] = accept(listener, NULL, NULL);
    check(sockets[1] >= 0, "accept");
    close(listener);
    without_delay(sockets[0]), without_delay(sockets[1]);
}

static void stay_on(int core) {
    cpu_set_t cores;
    if (core < 0) return;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    check(!sched_setaffinity(0, sizeof cores, &cores), "sched_setaffinity");
}

/* A connection to a server of its own. */
static int connected(const Load *load, int is_tcp, int core, int server) {
    int sockets[2];
    if (is_tcp)
        tcp_pair(sockets);
    else
        check(!socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), "socketpair");
    pid_t child = fork();
    check(child >= 0, "fork");
    if (!child) {
        close(sockets[0]);
        stay_on(core);
        load->shared ? serve_memory(sockets[1], load, server) : serve(sockets[1], load);
    }
    close(sockets[1]);
    return sockets[0];
}

/* How much further `moved` bytes bring it; none where the socket has no room or nothing to read. */
static size_t progress(ssize_t moved) {
    check(moved > 0 || (moved < 0 && errno == EAGAIN), "a server ended");
    return moved > 0 ? (size_t)moved : 0;
}

static void exchange(struct pollfd *sockets, int count, const Load *load) {
    Progress done[MAX_SERVERS] = {0};
    for (int i = 0; i < count; i++)
        sockets[i].revents = POLLOUT; /* which poll need not say first */
    for (int num_left = count; num_left;) {
        for (int i = 0; i < count; i++) {
            Progress *of = &done[i];
            struct pollfd *at = &sockets[i];
            if (at->revents & POLLOUT)
                of->sent +=
                    progress(send(at->fd, load->buffer + of->sent, load->all.request - of->sent,
                                  MSG_DONTWAIT | MSG_NOSIGNAL));
            if (at->revents & ~POLLOUT) {
                of->received += progress(recv(at->fd, load->buffer + of->received,
                                              load->all.reply - of->received, MSG_DONTWAIT));
                num_left -= of->received == load->all.reply;
            }
            at->events = (short)((of->sent < load->all.request ? POLLOUT : 0) |
                                 (of->received < load->all.reply ? POLLIN : 0));
        }
        check(!num_left || poll(sockets, (nfds_t)count, -1) >= 0, "poll");
    }
}

static void exchange_memory(const struct pollfd *sockets, int count, const Load *load) {
    char notice = 0;
    for (int i = 0; i < count; i++) {
        memcpy(requests_to(load, i), load->buffer, load->all.request);
        check(has_sent(sockets[i].fd, &notice, 1), "a server ended");
    }
    for (int i = 0; i < count; i++) {
        check(has_received(sockets[i].fd, &notice, 1), "a server ended");
        memcpy(load->buffer, replies_of(load, i), load->all.reply);
    }
}

static long long nanos_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int argc, char **argv) {
    static Load load;
    static struct pollfd sockets[MAX_SERVERS];
    check(argc > 5, "usage: floor PATH NUM_SERVERS BURST CORE REQUEST:REPLY...");
    const int is_tcp = !strcmp(argv[1], "tcp"), count = atoi(argv[2]), burst = atoi(argv[3]);
    check(count > 0 && count <= MAX_SERVERS && burst > 0, "NUM_SERVERS or BURST");
    load_of(argv + 5, argc - 5, &load);
    if (!strcmp(argv[1], "memory")) share_memory(&load, count);
    for (int i = 0; i < count; i++) sockets[i].fd = connected(&load, is_tcp, atoi(argv[4]), i);
    for (int byte; (byte = getchar()) != EOF;) {
        if (byte != '\n') continue;
        for (int i = 0; i < burst; i++) {
            long long began = nanos_now();
            if (load.shared)
                exchange_memory(sockets, count, &load);
            else
                exchange(sockets, count, &load);
            printf("%lld%c", nanos_now() - began, i + 1 < burst ? ' ' : '\n');
        }
        fflush(stdout);
    }
    return 0;
}

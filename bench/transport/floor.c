/* The least that messages cost between two processes: TCP on loopback, with nothing around it.
 *
 *     floor NUM_SERVERS REQUEST:REPLY...
 *
 * Each server is a process that reads messages of so many bytes and answers each with so many. For
 * every line of stdin all servers are sent all requests, and a line says how many nanoseconds
 * passed until all replies were there. Servers end with the client, which ends with stdin. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
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

static void without_delay(int socket) {
    int on = 1;
    check(!setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
}

/* Answer until the client is gone. */
static void serve(int listener, Load *load) {
    int socket = accept(listener, NULL, NULL);
    check(socket >= 0, "accept");
    without_delay(socket);
    for (int i = 0;; i = (i + 1) % load->count) {
        Message message = load->messages[i];
        /* Whole at once where the kernel can: a wake-up for each part would not be the least. */
        if (recv(socket, load->buffer, message.request, MSG_WAITALL) != (ssize_t)message.request)
            exit(0);
        for (size_t sent = 0; sent < message.reply;) {
            ssize_t more = send(socket, load->buffer + sent, message.reply - sent, MSG_NOSIGNAL);
            if (more <= 0) exit(0);
            sent += (size_t)more;
        }
    }
}

/* A connection to a server of its own. */
static int connected(Load *load) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr *any = (struct sockaddr *)&address;
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    check(listener >= 0 && client >= 0, "socket");
    check(!bind(listener, any, size) && !listen(listener, 1), "listen");
    check(!getsockname(listener, any, &size), "getsockname");
    pid_t child = fork();
    check(child >= 0, "fork");
    if (!child) {
        close(client);
        serve(listener, load);
    }
    close(listener);
    check(!connect(client, any, size), "connect");
    without_delay(client);
    return client;
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

static long long nanos_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int argc, char **argv) {
    static Load load;
    static struct pollfd sockets[MAX_SERVERS];
    int count = argc > 2 ? atoi(argv[1]) : 0;
    check(count > 0 && count <= MAX_SERVERS, "usage: floor NUM_SERVERS REQUEST:REPLY...");
    load_of(argv + 2, argc - 2, &load);
    for (int i = 0; i < count; i++) sockets[i].fd = connected(&load);
    for (int byte; (byte = getchar()) != EOF;) {
        if (byte != '\n') continue;
        long long began = nanos_now();
        exchange(sockets, count, &load);
        printf("%lld\n", nanos_now() - began);
        fflush(stdout);
    }
    return 0;
}

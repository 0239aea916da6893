/* `echo_server`: says its port, then echoes gRPC messages until its standard input ends.
 *
 * `/echo/Echo` answers each message and, once the client has ended, says OK; `/echo/Once` answers
 * one message and says OK at once; anything else is unimplemented. A stream whose answers are not
 * taken is paused. At the end it says how many streams were reset and what each connection ended
 * of. */

#define _GNU_SOURCE /* memmem */
#include "blocks.h"
#include "services/wire/http2/http2.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 64
#define MAX_UNSENT 8

enum method { ECHO = 1, ONCE };

/* The owner of a stream: its method, and whether it is paused. */
#define PAUSED 4
#define STATE(stream) ((uintptr_t)(stream)->owner)

static struct http2_connection *connections[MAX_CONNECTIONS];
static int num_connections, num_resets;

static void on_headers(struct http2_stream *stream, const char *block, size_t count, int ends) {
    uintptr_t method = 0;
    (void)ends;
    if (memmem(block, count, "/echo/Echo", 10)) method = ECHO;
    if (memmem(block, count, "/echo/Once", 10)) method = ONCE;
    stream->owner = (void *)method;
    const struct block answer = method ? response_block() : refusal_block("12");
    http2_send_headers(stream, answer.data, answer.count, !method);
}

static void end(struct http2_stream *stream) {
    const struct block trailers = trailers_block("0");
    http2_send_headers(stream, trailers.data, trailers.count, 1);
}

static uint64_t now_nanos(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void on_message(struct http2_stream *stream, const char *data, size_t count) {
    const uint64_t arrived = http2_arrived_nanos(stream->connection), now = now_nanos();
    if (arrived > now || now - arrived > 60000000000u) exit(3);
    const struct iovec parts[] = {{(char *)data, count / 3},
                                  {(char *)data + count / 3, count - count / 3}};
    if (http2_send(stream, parts, 2) < 0) {
        http2_reset(stream, HTTP2_ENHANCE_YOUR_CALM);
        return;
    }
    if (STATE(stream) == ONCE) {
        end(stream);
        return;
    }
    if (stream->num_unsent < MAX_UNSENT) return;
    stream->owner = (void *)(STATE(stream) | PAUSED);
    http2_pause(stream);
}

static void on_remote_ended(struct http2_stream *stream) { end(stream); }

static void on_reset(struct http2_stream *stream, uint32_t code) {
    (void)stream, (void)code;
    num_resets++;
}

static const struct http2_events events = {on_headers, on_message, on_remote_ended, on_reset, NULL};

static void resume_some(struct http2_connection *c) {
    struct http2_stream *next, *stream = http2_next_stream(c, NULL);
    for (; stream; stream = next) {
        next = http2_next_stream(c, stream);
        if (!(STATE(stream) & PAUSED) || stream->num_unsent >= MAX_UNSENT / 2) continue;
        stream->owner = (void *)(STATE(stream) & ~(uintptr_t)PAUSED);
        http2_resume(stream, SIZE_MAX);
    }
}

static int listen_anywhere(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 16) < 0) exit(2);
    getsockname(fd, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void take_connection(int listener) {
    const int fd = accept(listener, NULL, NULL);
    if (fd < 0 || num_connections == MAX_CONNECTIONS) exit(2);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    connections[num_connections] = http2_begin(fd, 1, &events, &http2_limits_default, NULL);
    if (!connections[num_connections++]) exit(2);
}

static void serve(int place, short happened) {
    struct http2_connection *c = connections[place];
    int result = 0;
    if (happened & (POLLIN | POLLHUP | POLLERR)) result = http2_receive(c);
    if (!result && happened & POLLOUT) result = http2_flush(c);
    if (!result) resume_some(c);
    if (!result) return;
    printf("%s\n", http2_why(c));
    http2_end(c);
    connections[place] = connections[--num_connections];
}

int main(void) {
    const int listener = listen_anywhere();
    for (;;) {
        struct pollfd polled[MAX_CONNECTIONS + 2] = {{.fd = 0, .events = POLLIN},
                                                     {.fd = listener, .events = POLLIN}};
        const int count = num_connections;
        for (int i = 0; i < count; i++) {
            const short writes = http2_wants_write(connections[i]) ? POLLOUT : 0;
            polled[i + 2] =
                (struct pollfd){.fd = http2_fd(connections[i]), .events = POLLIN | writes};
        }
        poll(polled, (nfds_t)count + 2, -1);
        if (polled[0].revents) break;
        for (int i = count; i-- > 0;)
            if (polled[i + 2].revents) serve(i, polled[i + 2].revents);
        if (polled[1].revents) take_connection(listener);
    }
    while (num_connections) http2_end(connections[--num_connections]);
    close(listener);
    printf("%d reset\n", num_resets);
    return 0;
}

/* `stamps`: reads bytes long after they came, and says when the framing dates them: how many
 * microseconds after they were sent, and how long before they were read. */

#include "services/wire/http2/http2.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LATE_NANOS 200000000

static int64_t arrived;

static int64_t now_nanos(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void on_headers(struct http2_stream *stream, const char *block, size_t count, int ends) {
    (void)block, (void)count, (void)ends;
    arrived = (int64_t)http2_arrived_nanos(stream->connection);
}
static void on_message(struct http2_stream *stream, const char *data, size_t count) {
    (void)stream, (void)data, (void)count;
}
static void on_remote_ended(struct http2_stream *stream) { (void)stream; }
static void on_reset(struct http2_stream *stream, uint32_t code) { (void)stream, (void)code; }

static const struct http2_events events = {on_headers, on_message, on_remote_ended, on_reset, NULL};

static void connect_two(int *fds) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 1) < 0) exit(2);
    getsockname(listener, (struct sockaddr *)&address, &size);
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fds[0], (struct sockaddr *)&address, size) < 0) exit(2);
    fds[1] = accept(listener, NULL, NULL);
    close(listener);
}

int main(void) {
    int fds[2];
    const struct timespec late = {.tv_nsec = LATE_NANOS};
    connect_two(fds);
    struct http2_connection *client = http2_begin(fds[0], 0, &events, &http2_limits_default, NULL);
    struct http2_connection *server = http2_begin(fds[1], 1, &events, &http2_limits_default, NULL);
    /* A kernel that has dated nothing for a while begins a moment after it is asked to. */
    nanosleep(&late, NULL);
    const int64_t sent = now_nanos();
    http2_open(client, "h", 1, NULL);
    nanosleep(&late, NULL);
    const int64_t read = now_nanos();
    if (http2_receive(server) < 0 || !arrived) return 1;
    printf("%lld %lld\n", (long long)(arrived - sent) / 1000, (long long)(read - arrived) / 1000);
    http2_end(client);
    http2_end(server);
    return 0;
}

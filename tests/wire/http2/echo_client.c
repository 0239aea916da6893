/* `echo_client PORT STREAMS`: sends messages of many sizes to an echo server on several streams of
 * one connection, and checks what comes back; then gives one more call up, and asks for a method
 * that is not there. */

#include "blocks.h"
#include "draw.h"
#include "services/wire/http2/http2.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

static const uint32_t SIZES[] = {0,     1,     5,      1000,    16379,   16384,  16385,
                                 65530, 65536, 262144, 1048571, 4194304, 8388608};
enum { NUM_SIZES = sizeof SIZES / sizeof *SIZES };

struct call {
    int number, num_received, is_over, has_headers, is_given_up;
};

static char *scratch;
static int num_over;

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void on_headers(struct http2_stream *stream, const char *block, size_t count, int ends) {
    struct call *call = stream->owner;
    (void)block, (void)count, (void)ends;
    call->has_headers = 1;
}

static void on_message(struct http2_stream *stream, const char *data, size_t count) {
    struct call *call = stream->owner;
    if (call->is_given_up) {
        http2_reset(stream, HTTP2_CANCEL);
        num_over++;
        return;
    }
    const int which = call->num_received++;
    if (which >= NUM_SIZES || count != SIZES[which]) fail("an echo has another length");
    if (!is_filled(data, count, (uint64_t)(call->number * NUM_SIZES + which)))
        fail("an echo has other bytes");
    if (call->num_received == NUM_SIZES && http2_finish(stream) < 0) fail("no end");
}

static void on_remote_ended(struct http2_stream *stream) {
    struct call *call = stream->owner;
    if (!call->has_headers) fail("no headers came");
    call->is_over = 1;
    num_over++;
}

static void on_reset(struct http2_stream *stream, uint32_t code) {
    struct call *call = stream->owner;
    if (!call->is_over || code) fail("a call was reset");
}

static const struct http2_events events = {on_headers, on_message, on_remote_ended, on_reset, NULL};

static struct http2_connection *reach(uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("no connection");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    struct http2_limits limits = http2_limits_default;
    limits.max_unsent_bytes = UINT32_MAX;
    struct http2_connection *c = http2_begin(fd, 0, &events, &limits, NULL);
    if (!c) fail("no memory");
    return c;
}

static struct http2_stream *call(struct http2_connection *c, const char *path, struct call *call) {
    const struct block block = request_block(path);
    struct http2_stream *stream = http2_open(c, block.data, block.count, call);
    if (!stream) fail("a call could not be begun");
    return stream;
}

static void send_all(struct http2_stream *stream, int number) {
    for (int i = 0; i < NUM_SIZES; i++) {
        fill(scratch, SIZES[i], (uint64_t)(number * NUM_SIZES + i));
        const struct iovec part = {scratch, SIZES[i]};
        if (http2_send(stream, &part, 1) < 0) fail("a message could not be sent");
    }
}

static void run_until(struct http2_connection *c, int count) {
    while (num_over < count) {
        struct pollfd polled = {.fd = http2_fd(c), .events = POLLIN};
        if (http2_wants_write(c)) polled.events |= POLLOUT;
        poll(&polled, 1, -1);
        if (polled.revents & POLLOUT && http2_flush(c) < 0) fail(http2_why(c));
        if (polled.revents & ~POLLOUT && http2_receive(c) < 0) fail(http2_why(c));
    }
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    const int num_calls = atoi(arguments[2]);
    struct http2_connection *c = reach((uint16_t)atoi(arguments[1]));
    struct call *calls = calloc((size_t)num_calls + 2, sizeof *calls);
    scratch = malloc(SIZES[NUM_SIZES - 1]);
    for (int i = 0; i < num_calls; i++) {
        calls[i].number = i;
        send_all(call(c, "/echo/Echo", &calls[i]), i);
    }
    run_until(c, num_calls);
    struct http2_stream *given_up = call(c, "/echo/Echo", &calls[num_calls]);
    calls[num_calls].is_given_up = 1;
    const struct iovec part = {scratch, 3};
    http2_send(given_up, &part, 1);
    run_until(c, num_calls + 1);
    http2_finish(call(c, "/echo/Nothing", &calls[num_calls + 1]));
    run_until(c, num_calls + 2);
    http2_end(c);
    free(calls);
    free(scratch);
    printf("%d calls\n", num_calls);
    return 0;
}

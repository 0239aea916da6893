/* Our client against our server: `pair SEED STREAMS MESSAGES MAX_BYTES SOCKET_BYTES WINDOW_BYTES`.
 *
 * Messages of random sizes go both ways on several streams, through sockets that take little at a
 * time; streams are paused and resumed. Everything has to arrive, in its order. Says how much did.
 */

#include "draw.h"
#include "services/wire/http2/http2.h"

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#define MAX_STREAMS 64

enum side { CLIENT, SERVER };

/* One stream as one side sees it. */
struct end {
    struct http2_stream *stream; /* NULL before it is open, and once it is over */
    enum side side;
    int number, num_sent, num_received, is_paused;
    int has_headers, remote_ended, is_over;
};

static struct end ends[2][MAX_STREAMS];
static struct http2_connection *connections[2];
static int num_streams, num_messages;
static uint32_t max_bytes;
static char *scratch;
static uint64_t num_bytes;

static void fail(const char *what, const struct end *end) {
    fprintf(stderr, "%s: side %d, stream %d, %d received, client: %s, server: %s\n", what,
            end ? (int)end->side : -1, end ? end->number : -1, end ? end->num_received : -1,
            http2_why(connections[CLIENT]), http2_why(connections[SERVER]));
    exit(1);
}

static uint64_t message_number(enum side sender, int stream, int message) {
    return ((uint64_t)sender << 32 | (uint64_t)stream << 20 | (uint64_t)message) + 1;
}

/* Both sides know it. Some are empty, most are small, some are as long as may be. */
static uint32_t length_of(uint64_t number) {
    const uint32_t mixed = (uint32_t)((number * 0x9e3779b97f4a7c15u) >> 40);
    if (mixed % 11 == 0) return 0;
    if (mixed % 7 == 0) return max_bytes - mixed % 3;
    return mixed % 3 ? mixed % 5000 % (max_bytes + 1) : mixed % (max_bytes + 1);
}

static void on_headers(struct http2_stream *stream, const char *block, size_t count,
                       int ends_stream) {
    struct end *end = stream->owner;
    if (!end) { /* the server's: the block says which it is */
        if (count != 1) fail("a block is not what was sent", NULL);
        end = stream->owner = &ends[SERVER][(int)block[0]];
        end->stream = stream;
        if (http2_send_headers(stream, "ok", 2, 0) < 0) fail("no answer could be sent", end);
    }
    if (ends_stream && (count != 8 || memcmp(block, "trailers", 8))) fail("wrong trailers", end);
    if (ends_stream && end->num_received != num_messages) fail("trailers came early", end);
    end->has_headers = 1;
}

static void on_message(struct http2_stream *stream, const char *data, size_t count) {
    struct end *end = stream->owner;
    const uint64_t number = message_number(!end->side, end->number, end->num_received++);
    if (end->is_paused) fail("a paused stream was handed a message", end);
    if (count != length_of(number)) fail("a message has another length", end);
    if (!is_filled(data, count, number)) fail("a message has other bytes", end);
    num_bytes += count;
    if (draw(20) == 0) {
        end->is_paused = 1;
        http2_pause(stream);
    }
}

static void on_remote_ended(struct http2_stream *stream) {
    struct end *end = stream->owner;
    if (end->num_received != num_messages) fail("the end came early", end);
    end->remote_ended = 1;
    if (end->side == SERVER) return;
    end->is_over = 1;
    end->stream = NULL;
}

static void on_reset(struct http2_stream *stream, uint32_t code) {
    (void)code;
    fail("a stream was reset", stream->owner);
}

static const struct http2_events events = {on_headers, on_message, on_remote_ended, on_reset, NULL};

static void send_one(struct end *end) {
    const uint64_t number = message_number(end->side, end->number, end->num_sent++);
    const uint32_t length = length_of(number), first = draw(length + 1);
    fill(scratch, length, number);
    const struct iovec parts[] = {
        {scratch, first},
        {NULL, 0},
        {scratch + first, (length - first) / 2},
        {scratch + first + (length - first) / 2, length - first - (length - first) / 2}};
    if (http2_send(end->stream, parts, 4) < 0) fail("a message could not be sent", end);
    memset(scratch, 0, length); /* it has to be copied by now */
}

static void end_sending(struct end *end) {
    if (end->side == CLIENT) {
        http2_finish(end->stream);
        return;
    }
    if (!end->remote_ended) {
        end->num_sent--;
        return;
    }
    if (http2_send_headers(end->stream, "trailers", 8, 1) < 0) fail("no trailers", end);
    end->is_over = 1;
    end->stream = NULL;
}

static void act(struct end *end) {
    if (!end->stream) return;
    if (end->is_paused && draw(4) == 0) {
        end->is_paused = 0;
        if (http2_resume(end->stream, SIZE_MAX) < 0) fail("a stream could not be resumed", end);
    }
    if (!end->stream || end->num_sent > num_messages || end->stream->num_unsent > 3) return;
    if (end->num_sent < num_messages)
        send_one(end);
    else if (end->num_sent++ == num_messages)
        end_sending(end);
}

static void begin(int socket_bytes, uint32_t window_bytes) {
    int fds[2];
    struct http2_limits limits = http2_limits_default;
    limits.max_message_bytes = window_bytes;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0) exit(2);
    for (int side = 0; side < 2; side++) {
        setsockopt(fds[side], SOL_SOCKET, SO_SNDBUF, &socket_bytes, sizeof socket_bytes);
        connections[side] = http2_begin(fds[side], side == SERVER, &events, &limits, NULL);
        for (int i = 0; i < num_streams; i++)
            ends[side][i] = (struct end){.side = side, .number = i};
    }
    for (int i = 0; i < num_streams; i++) {
        const char block = (char)i;
        ends[CLIENT][i].stream = http2_open(connections[CLIENT], &block, 1, &ends[CLIENT][i]);
        if (!ends[CLIENT][i].stream) fail("a stream could not be opened", NULL);
    }
}

static int is_done(void) {
    for (int i = 0; i < num_streams; i++)
        if (!ends[CLIENT][i].is_over || !ends[SERVER][i].is_over) return 0;
    return 1;
}

static void turn(void) {
    for (int side = 0; side < 2; side++) {
        struct http2_connection *c = connections[side];
        struct pollfd polled = {.fd = http2_fd(c), .events = POLLIN};
        if (http2_wants_write(c)) polled.events |= POLLOUT;
        poll(&polled, 1, 0);
        if (polled.revents & POLLIN && http2_receive(c) < 0) fail("receiving failed", NULL);
        if (polled.revents & POLLOUT && http2_flush(c) < 0) fail("flushing failed", NULL);
        for (int i = 0; i < num_streams; i++)
            if (draw(2)) act(&ends[side][i]);
    }
}

int main(int count, char **arguments) {
    if (count != 7) return 2;
    draw_state = strtoull(arguments[1], NULL, 10);
    num_streams = atoi(arguments[2]);
    num_messages = atoi(arguments[3]);
    max_bytes = (uint32_t)atol(arguments[4]);
    scratch = malloc(max_bytes + 1);
    begin(atoi(arguments[5]), (uint32_t)atol(arguments[6]));
    long turns = 0;
    while (!is_done()) {
        turn();
        if (++turns > 20000000) fail("nothing moves", NULL);
    }
    while (!http2_is_drained(connections[CLIENT]) || !http2_is_drained(connections[SERVER])) turn();
    for (int side = 0; side < 2; side++) {
        if (http2_next_stream(connections[side], NULL)) fail("a stream was left", NULL);
        http2_end(connections[side]);
    }
    free(scratch);
    printf("%d messages, %llu bytes\n", 2 * num_streams * num_messages,
           (unsigned long long)num_bytes);
    return 0;
}

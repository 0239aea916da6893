/* `fuzz SECONDS [SEED]`: altered sessions against the framing, as server and as client in turn, and
 * altered header blocks against their decoder.
 *
 * Each session is its seed's. It is made of frames that may belong together, altered, and written
 * in pieces; the owner answers, pauses, resumes, resets and opens as it comes, and now and then
 * there is no memory. To be built with sanitizers, with `malloc`, `calloc` and `realloc` wrapped.
 */

#include "altered_blocks.h"
#include "services/wire/http2/http2.h"
#include "sessions.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static uint32_t left_of_memory; /* allocations until one fails; 0 for never */
static int is_counting;
static long num_messages, num_over, num_fields;

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);

static int is_refused(void) { return is_counting && left_of_memory && !--left_of_memory; }
void *__wrap_malloc(size_t count) { return is_refused() ? NULL : __real_malloc(count); }
void *__wrap_calloc(size_t count, size_t each) {
    return is_refused() ? NULL : __real_calloc(count, each);
}
void *__wrap_realloc(void *data, size_t count) {
    return is_refused() ? NULL : __real_realloc(data, count);
}

/* Streams by id that the owner was told are gone, or that he gave up or ended. */
#define MAX_ID 4096
static char is_forgotten[MAX_ID];
static int is_server;

static void forget(uint32_t id) {
    if (id < MAX_ID) is_forgotten[id] = 1;
}

/* Nothing may be told of a stream that is forgotten. */
static void hear(const struct http2_stream *stream) {
    if (stream->id < MAX_ID && is_forgotten[stream->id]) abort();
}

/* What the owner does with a stream, within events and outside. The stream may be gone after. */
static void act(struct http2_stream *stream) {
    const uint32_t id = stream->id;
    static char data[70000];
    const uint32_t first = draw(4) ? draw(300) : draw(sizeof data / 2);
    const struct iovec parts[] = {{data, first}, {NULL, 0}, {data, draw(40)}};
    switch (draw(14)) {
    case 0: http2_pause(stream); break;
    case 1: http2_resume(stream, draw(2) ? SIZE_MAX : draw(4)); break;
    case 2: http2_send_headers(stream, data, draw(200), 0); break;
    case 3:
        if (draw(3)) break;
        http2_send_headers(stream, data, draw(20000), 1);
        if (is_server) forget(id);
        break;
    case 4: http2_finish(stream); break;
    case 5:
        if (draw(3)) break;
        http2_reset(stream, HTTP2_CANCEL);
        forget(id);
        break;
    case 6: http2_open(stream->connection, data, draw(30000), NULL); break;
    case 7: draw(20) ? 0 : http2_goaway(stream->connection, HTTP2_NO_ERROR); break;
    default: http2_send(stream, parts, 3); break;
    }
}

/* Any stream of the connection, or none. */
static struct http2_stream *some_stream(struct http2_connection *c) {
    struct http2_stream *stream = http2_next_stream(c, NULL);
    for (struct http2_stream *each = stream; each; each = http2_next_stream(c, each)) {
        hear(each);
        if (each->num_unsent && http2_is_drained(c)) abort();
    }
    for (uint32_t i = draw(4); stream && i; i--) stream = http2_next_stream(c, stream);
    return stream;
}

static void act_on_some(struct http2_connection *c) {
    struct http2_stream *stream = some_stream(c);
    if (stream) act(stream);
}

static volatile char sum;

static void read_all(const char *data, size_t count) {
    for (size_t i = 0; i < count; i++) sum = (char)(sum + data[i]);
}

static void on_headers(struct http2_stream *stream, const char *block, size_t count, int ends) {
    (void)ends;
    hear(stream);
    act_on_some(stream->connection);
    read_all(block, count);
}

static void on_message(struct http2_stream *stream, const char *data, size_t count) {
    num_messages++;
    hear(stream);
    act_on_some(stream->connection);
    void *const kept = draw(2) ? http2_keep(stream, data, count) : NULL;
    read_all(data, count);
    free(kept);
}

static void on_remote_ended(struct http2_stream *stream) {
    hear(stream);
    if (draw(2)) act_on_some(stream->connection);
}

static void on_reset(struct http2_stream *stream, uint32_t code) {
    (void)code;
    hear(stream);
    forget(stream->id);
    act_on_some(stream->connection);
}

static const struct http2_events events = {on_headers, on_message, on_remote_ended, on_reset, NULL};

static struct http2_connection *begin(int fd) {
    struct http2_limits limits = http2_limits_default;
    limits.max_streams = 1 + draw(8);
    if (draw(4) == 0) limits.max_message_bytes = draw(50000);
    if (draw(8) == 0) limits.max_unsent_bytes = draw(100000);
    if (draw(8) == 0) limits.max_held_bytes = draw(100000);
    if (draw(8) == 0) limits.max_control_frames = draw(60);
    if (draw(8) == 0) limits.max_header_bytes = draw(500);
    limits.takes_compressed = draw(2);
    left_of_memory = draw(6) ? 0 : 1 + draw(100);
    struct http2_connection *c = http2_begin(fd, is_server, &events, &limits, NULL);
    if (!c)
        close(fd);
    else if (draw(2))
        http2_hold(c);
    return c;
}

/* Reads a little of what the framing wrote, or nothing. */
static void read_some(int fd) {
    static char sink[1 << 16];
    if (draw(3)) return;
    while (recv(fd, sink, 1 + draw(sizeof sink), MSG_DONTWAIT) > 0 && draw(4)) {
    }
}

static int play(struct http2_connection *c, int peer, const char *bytes, size_t count) {
    if (http2_open(c, "h", 1, NULL)) http2_open(c, "g", 1, NULL);
    const uint32_t most = draw(2) ? 40 : 4000;
    while (count) {
        const size_t wanted = 1 + draw(most), now = wanted < count ? wanted : count;
        const ssize_t sent = send(peer, bytes, now, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) bytes += sent, count -= (size_t)sent;
        if (http2_receive(c) < 0) return -1;
        read_some(peer);
        if (draw(4) == 0) act_on_some(c);
        if (http2_wants_write(c) || draw(3) == 0) http2_flush(c);
    }
    if (draw(2)) return 0;
    shutdown(peer, SHUT_RDWR);
    return http2_receive(c);
}

static void run(uint64_t seed) {
    static char bytes[1 << 18];
    const int room = 2048 + (int)(seed % 7) * 1000;
    int fds[2];
    is_server = seed & 1;
    memset(is_forgotten, 0, sizeof is_forgotten);
    draw_state = seed * 0x9e3779b97f4a7c15u;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0) exit(2);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    const size_t count = alter(bytes, session(bytes, sizeof bytes / 2, is_server));
    is_counting = 1;
    struct http2_connection *c = begin(fds[0]);
    if (c) {
        if (play(c, fds[1], bytes, count) < 0) num_over++;
        http2_end(c);
    }
    is_counting = 0;
    close(fds[1]);
}

static void on_field(void *owner, const struct header_field *field) {
    (void)owner;
    num_fields++;
    read_all(field->name, field->name_count);
    read_all(field->value, field->value_count);
}

/* The blocks of one connection, until one cannot be read. */
static void run_blocks(uint64_t seed) {
    struct header_decoder decoder;
    draw_state = seed * 0x9e3779b97f4a7c15u;
    left_of_memory = draw(6) ? 0 : 1 + draw(10);
    is_counting = 1;
    header_decoder_begin(&decoder);
    for (uint32_t blocks = 1 + draw(10); blocks; blocks--) {
        static char drawn[1 << 17];
        const size_t count = put_block(drawn);
        char *const block = __real_malloc(count ? count : 1); /* no byte behind it may be read */
        const int failed =
            header_decode(&decoder, memcpy(block, drawn, count), count, on_field, NULL);
        free(block);
        if (failed) break;
    }
    header_decoder_end(&decoder);
    is_counting = 0;
}

int main(int count, char **arguments) {
    struct timespec began, now;
    clock_gettime(CLOCK_MONOTONIC, &began);
    if (count < 2) return 2;
    const long seconds = atol(arguments[1]);
    const uint64_t first = count > 2 ? strtoull(arguments[2], NULL, 10) : (uint64_t)began.tv_nsec;
    uint64_t seed = first;
    printf("sessions from seed %llu on, for %ld s\n", (unsigned long long)first, seconds);
    fflush(stdout);
    do {
        for (int i = 0; i < 100; i++) {
            run_blocks(seed);
            run(seed++);
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - began.tv_sec < seconds);
    printf("%llu sessions, %ld ended by the framing, %ld messages, %ld fields\n",
           (unsigned long long)(seed - first), num_over, num_messages, num_fields);
    return 0;
}

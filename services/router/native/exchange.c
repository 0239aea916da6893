/* Frames out and replies in, for one layer: nothing of Python but what streams keep for it. */

#define _GNU_SOURCE

#include "exchange.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#include "frame.h"
#include "stream.h"

/* What a frame's head takes beside its arrays: tags, numbers and lengths. */
#define MOST_FIELD_BYTES 160
#define NANOS_PER_SECOND 1000000000
/* So long a wait looks again and again before it sleeps, where so few bytes are to come: a core
 * that sleeps is woken later than a decode's replies come. */
#define SPIN_NANOS 50000
#define MOST_SPUN_BYTES (16 << 10)
/* A look that takes longer is one between which somebody else had the core. */
#define LOOK_NANOS 10000

static uint64_t now_nanos(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NANOS_PER_SECOND + (uint64_t)now.tv_nsec;
}

int have_room(struct room *room, size_t count) {
    if (count <= room->count) return 0;
    free(room->at);
    room->at = malloc(count);
    room->count = room->at ? count : 0;
    return room->at ? 0 : -1;
}

int exchange_share_out(struct exchange *exchange, const struct kernels_interface *kernels) {
    struct scatter *const pairs = &exchange->pairs;
    const size_t num_pairs = (size_t)pairs->num_pairs;
    exchange->num_shares = 0;
    if (have_room(&exchange->numbers, 3 * num_pairs * sizeof(int64_t) + 1) < 0) return -1;
    pairs->positions = (int64_t *)exchange->numbers.at;
    pairs->rows = pairs->positions + num_pairs;
    pairs->pair_rows = (uint32_t *)(pairs->rows + num_pairs);
    pairs->pair_experts = pairs->pair_rows + num_pairs;
    free(pairs->stretches);
    if (kernels->make_stretches(pairs) < 0) return -1;
    kernels->scatter_pairs(pairs);
    if (have_room(&exchange->services, (size_t)pairs->num_stretches * sizeof(struct share) + 1) < 0)
        return -1;
    exchange->shares = (struct share *)exchange->services.at;
    for (int64_t i = 0; i < pairs->num_stretches; i++) {
        const struct stretch *const stretch = pairs->stretches + i;
        if (stretch->num_pairs)
            exchange->shares[exchange->num_shares++] = (struct share){.pairs = stretch};
    }
    return 0;
}

/* The rows of a frame without gaps: where they lie, or copied `into` room. */
static const char *gathered(const struct exchange *exchange, const struct share *share,
                            const char *from, char *into) {
    const int64_t num_rows = share->pairs->num_rows, *const rows = exchange->pairs.rows;
    if (num_rows == exchange->pairs.num_pairs / exchange->pairs.top_k) return from;
    const size_t row_bytes = exchange->row_bytes;
    for (int64_t i = 0; i < num_rows; i++)
        memcpy(into + (size_t)i * row_bytes,
               from + (size_t)rows[share->pairs->start + i] * row_bytes, row_bytes);
    return into;
}

/* The requests of a frame's rows, each once, packed into room. */
static struct bytes packed(const struct exchange *exchange, const struct share *share,
                           const int64_t *requests, char *into) {
    struct sink to = {.at = into};
    const int64_t *const rows = exchange->pairs.rows + share->pairs->start;
    for (int64_t i = 0; i < share->pairs->num_rows; i++) {
        const int64_t request = requests[rows[i]];
        if (!i || request != requests[rows[i - 1]]) put_varint(&to, (uint64_t)request);
    }
    return (struct bytes){into, to.count};
}

static size_t most_written(const struct exchange *exchange, const struct share *share) {
    const size_t num_rows = (size_t)share->pairs->num_rows;
    const size_t num_words = 2 * (size_t)share->pairs->num_pairs;
    return MOST_FIELD_BYTES + share->traceparent.count + num_words * WORD_BYTES +
           num_rows * (exchange->row_bytes + MOST_VARINT_BYTES);
}

static void send_frame(struct exchange *exchange, struct share *share,
                       const struct sent_layer *layer) {
    const struct stretch *const pairs = share->pairs;
    const size_t num_words = (size_t)pairs->num_pairs * WORD_BYTES;
    const size_t num_bytes = (size_t)pairs->num_rows * exchange->row_bytes;
    char *const room = exchange->written.at;
    const char *const rows = gathered(exchange, share, layer->rows, room);
    const struct bytes requests = packed(exchange, share, layer->requests, room + num_bytes);
    struct frame frame = {
        .frame_id = share->frame_id,
        .remaining_nanos = share->remaining_nanos,
        .layer = layer->layer,
        .dtype = layer->element_type,
        .num_rows = (uint32_t)pairs->num_rows,
        .pair_rows = {(const char *)(exchange->pairs.pair_rows + pairs->start), num_words},
        .pair_experts = {(const char *)(exchange->pairs.pair_experts + pairs->start), num_words},
        .traceparent = share->traceparent,
        .rows = {rows, num_bytes},
        .requests = requests,
        .has_checksum = exchange->has_checksums,
    };
    if (frame.has_checksum) frame.checksum = checksum_of_frame(&frame);
    struct sink counted = {0}, head = {.at = room + num_bytes + requests.count};
    char *const start = head.at;
    put_frame_head(&counted, &frame);
    put_header(&head, BODY, counted.count + num_bytes);
    put_frame_head(&head, &frame);
    const struct iovec parts[] = {{start, head.count}, {(char *)(intptr_t)rows, num_bytes}};
    share->sent_nanos = now_nanos();
    /* A stream that is over has news for Python, which knows what becomes of its frames. */
    if (stream_send(share->stream, parts, 2) < 0) exchange->is_left = 1;
}

int exchange_send(struct exchange *exchange, const struct sent_layer *layer) {
    size_t most = 0;
    for (int i = 0; i < exchange->num_shares; i++) {
        const size_t needed = most_written(exchange, exchange->shares + i);
        if (needed > most) most = needed;
    }
    const size_t num_replied = (size_t)exchange->pairs.num_pairs * exchange->row_bytes;
    const size_t num_polled = ((size_t)exchange->num_shares + 1) * sizeof(struct pollfd);
    if (have_room(&exchange->written, most) < 0 || have_room(&exchange->replies, num_replied) < 0 ||
        have_room(&exchange->polled, num_polled) < 0)
        return -1;
    exchange->is_left = 0;
    exchange->num_awaited = exchange->num_shares;
    for (int i = 0; i < exchange->num_shares; i++)
        send_frame(exchange, exchange->shares + i, layer);
    return 0;
}

/* Keeps the reply of a share's frame, and its rows: in the memory of its message, or a copy.
 * Whether it is one as it should be. */
static int keep_reply(struct exchange *exchange, struct share *share, const struct reply *reply,
                      struct bytes message) {
    const size_t num_bytes = (size_t)share->pairs->num_pairs * exchange->row_bytes;
    if (reply->rows.count != num_bytes || (exchange->has_checksums && !reply->has_checksum))
        return 0;
    share->reply = *reply;
    share->kept = stream_keep(share->stream, message);
    if (share->kept) return 1;
    char *const rows = exchange->replies.at + (size_t)share->pairs->start * exchange->row_bytes;
    memcpy(rows, reply->rows.data, num_bytes);
    share->reply.rows.data = rows;
    return 1;
}

int exchange_take(struct exchange *exchange, int index, const char *message, size_t count,
                  uint64_t arrived_nanos) {
    struct share *const share = exchange->shares + index;
    struct reply reply;
    int has_reply;
    const struct bytes whole = {message, count};
    if (!read_response(whole, &reply, &has_reply)) {
        exchange->is_left = 1;
        return 0;
    }
    if (has_reply) {
        /* One that is late, or comes twice, is counted and dropped elsewhere. */
        if (reply.frame_id != share->frame_id || share->arrived_nanos) return 0;
        if (!keep_reply(exchange, share, &reply, whole)) {
            exchange->is_left = 1;
            return 0;
        }
        share->arrived_nanos =
            arrived_nanos > share->sent_nanos ? arrived_nanos : share->sent_nanos;
        exchange->num_awaited--;
    }
    if (reply.granted_pairs > share->granted_pairs) share->granted_pairs = reply.granted_pairs;
    return 1;
}

/* What to poll: the event loop's descriptor first, then the streams that have not answered. How
 * many, or -1 when one of these is over. */
static int list_awaited(struct exchange *exchange, int loop_descriptor, struct pollfd *polled) {
    int count = 0;
    polled[count++] = (struct pollfd){.fd = loop_descriptor, .events = POLLIN};
    for (int i = 0; i < exchange->num_shares; i++) {
        const struct share *const share = exchange->shares + i;
        if (share->arrived_nanos) continue;
        if (share->stream->is_over) return -1;
        const short events = stream_wants_write(share->stream) ? POLLIN | POLLOUT : POLLIN;
        polled[count++] = (struct pollfd){.fd = stream_fd(share->stream), .events = events};
    }
    return count;
}

/* Reads and writes what the polled streams have. Whether there was any, or -1 when one is over. */
static int attend(struct exchange *exchange, const struct pollfd *polled) {
    int is_any = 0;
    const struct pollfd *at = polled + 1;
    for (int i = 0; i < exchange->num_shares; i++) {
        struct stream *const stream = exchange->shares[i].stream;
        /* The same streams in the same order: none but the one at hand can be answered here. */
        if (exchange->shares[i].arrived_nanos) continue;
        const short events = at++->revents;
        if (!events) continue;
        is_any = 1;
        if (events & POLLOUT && stream_flush(stream) < 0) return -1;
        if (events & ~POLLOUT && stream_receive(stream) < 0) return -1;
    }
    return is_any;
}

/* Until when to look again and again. Not at all where somebody who is to answer shares this core,
 * by where it answered from last: it needs the core. */
static uint64_t end_of_spin(const struct exchange *exchange) {
    const int here = sched_getcpu();
    if ((size_t)exchange->pairs.num_pairs * exchange->row_bytes > MOST_SPUN_BYTES) return 0;
    for (int i = 0; i < exchange->num_shares; i++) {
        const struct share *const share = exchange->shares + i;
        if (!share->arrived_nanos && share->stream->core == here) return 0;
    }
    return now_nanos() + SPIN_NANOS;
}

/* Offers the core to others. Whether somebody wanted it, since a look began. */
static int is_contested(uint64_t began) {
    sched_yield();
    return now_nanos() - began > LOOK_NANOS;
}

enum wait_end exchange_wait(struct exchange *exchange, int loop_descriptor, uint64_t until) {
    struct pollfd *const polled = (struct pollfd *)exchange->polled.at;
    uint64_t spins_until = until ? end_of_spin(exchange) : 0;
    for (;;) {
        const uint64_t now = now_nanos(), left = until > now ? until - now : 0;
        const uint64_t slept = now < spins_until ? 0 : left;
        const int count = list_awaited(exchange, loop_descriptor, polled);
        if (exchange->is_left || count < 0) return LEFT;
        if (!exchange->num_awaited) return ANSWERED;
        const struct timespec timeout = {.tv_sec = (time_t)(slept / NANOS_PER_SECOND),
                                         .tv_nsec = (long)(slept % NANOS_PER_SECOND)};
        const int num_ready = ppoll(polled, (nfds_t)count, &timeout, NULL);
        if (num_ready < 0 && errno == EINTR) continue;
        if (!num_ready && slept < left) {
            if (is_contested(now)) spins_until = now; /* then being woken is quicker */
            continue;
        }
        const int is_any = num_ready > 0 ? attend(exchange, polled) : 0;
        if (exchange->is_left || is_any < 0) return LEFT;
        if (!exchange->num_awaited) return ANSWERED;
        if (!left || num_ready <= 0) return TIME_IS_UP;
        if (!is_any) return LOOP_HAS_WORK;
    }
}

void exchange_detach(struct exchange *exchange) {
    for (int i = 0; i < exchange->num_shares; i++) {
        struct stream *const stream = exchange->shares[i].stream;
        free(exchange->shares[i].kept);
        exchange->shares[i].kept = NULL;
        if (!stream) continue;
        stream->exchange = NULL;
        exchange->shares[i].stream = NULL;
        Py_DECREF((PyObject *)stream);
    }
}

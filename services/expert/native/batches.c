/* A batch: all frames of one layer, whoever sent them, through the kernel, and answered from where
 * the results lie. */

#include "plane.h"
#include "reply.h"

#include <stdlib.h>
#include <time.h>

/* What a batch may keep allocated for the next. */
#define MOST_KEPT_BYTES ((size_t)16 << 20)

/* Of a reply before its rows: eleven numbers at most, with their tags. */
#define MOST_START_BYTES (11 * (1 + MOST_VARINT_BYTES))

struct batch {
    struct waiting_frame *first;
    int64_t num_frames, num_rows, num_pairs, num_active;
    uint64_t started_nanos, computed_nanos;
    char *rows, *out;
    int64_t *pair_rows, *slots;
};

/* Hands all frames of the list to Python. */
static void leave_to_python(struct waiting_frame *frame) {
    while (frame) {
        struct waiting_frame *next = frame->next;
        hand_over(frame);
        frame = next;
    }
}

/* Takes those whose time is up out of the batch, and counts the others. */
static void sort_out_expired(struct batch *batch) {
    struct waiting_frame **link = &batch->first, *expired = NULL, **expired_end = &expired;
    while (*link) {
        struct waiting_frame *frame = *link;
        if (frame->due_nanos > batch->started_nanos) {
            batch->num_frames++;
            batch->num_rows += frame->frame.num_rows;
            batch->num_pairs += frame->num_pairs;
            link = &frame->next;
        } else {
            *link = frame->next;
            frame->next = NULL;
            *expired_end = frame;
            expired_end = &frame->next;
        }
    }
    leave_to_python(expired);
}

static void count_active(struct plane *plane, struct batch *batch) {
    if (!++plane->turn) { /* it has gone round */
        memset(plane->seen, 0, (size_t)plane->bank.experts.num_slots * sizeof *plane->seen);
        plane->turn = 1;
    }
    for (const struct waiting_frame *frame = batch->first; frame; frame = frame->next) {
        for (int64_t pair = 0; pair < frame->num_pairs; pair++) {
            uint32_t *const seen = plane->seen + frame->slots[pair];
            batch->num_active += *seen != plane->turn;
            *seen = plane->turn;
        }
    }
}

/* At least `size` bytes; NULL without memory. */
static char *room_of(struct room *room, size_t size) {
    if (room->size < size) {
        free(room->memory);
        room->memory = malloc(size);
        room->size = room->memory ? size : 0;
    }
    return room->memory;
}

static void keep_little(struct room *room) {
    if (room->size <= MOST_KEPT_BYTES) return;
    free(room->memory);
    *room = (struct room){0};
}

/* Lays the frames' rows and pairs one after the other; those of a single frame are used as they
 * lie. 0, or -1 without memory. */
static int gather(struct plane *plane, struct batch *batch) {
    const int is_single = batch->num_frames == 1;
    const size_t pairs = is_single ? 0 : (size_t)batch->num_pairs;
    const size_t rows = is_single ? 0 : (size_t)(batch->num_rows * plane->bank.row_bytes);
    const size_t out = (size_t)(batch->num_pairs * plane->bank.row_bytes);
    char *memory = room_of(&plane->room, 2 * pairs * sizeof(int64_t) + rows + out);
    if (!memory) return -1;
    batch->pair_rows = (int64_t *)memory;
    batch->slots = batch->pair_rows + pairs;
    batch->out = (char *)(batch->slots + pairs);
    batch->rows = batch->out + out;
    if (is_single) {
        batch->pair_rows = batch->first->pair_rows;
        batch->slots = batch->first->slots;
        batch->rows = (char *)batch->first->frame.rows.data;
        return 0;
    }
    int64_t row = 0, at = 0;
    for (const struct waiting_frame *frame = batch->first; frame; frame = frame->next) {
        memcpy(batch->rows + row * plane->bank.row_bytes, frame->frame.rows.data,
               frame->frame.rows.count);
        for (int64_t pair = 0; pair < frame->num_pairs; pair++, at++) {
            batch->pair_rows[at] = row + frame->pair_rows[pair];
            batch->slots[at] = frame->slots[pair];
        }
        row += frame->frame.num_rows;
    }
    return 0;
}

/* Experts of no width are a device whose time is a formula, for measuring what is around it. The
 * thread is held meanwhile, as by a kernel. */
static void simulate(const struct bank *bank, const struct batch *batch) {
    const uint64_t held = (uint64_t)(bank->base_nanos + bank->expert_nanos * batch->num_active +
                                     bank->pair_nanos * batch->num_pairs);
    const uint64_t until = batch->started_nanos + held;
    const struct timespec end = {.tv_sec = (time_t)(until / 1000000000),
                                 .tv_nsec = (long)(until % 1000000000)};
    memset(batch->out, 0, (size_t)(batch->num_pairs * bank->row_bytes));
    if (held) clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL);
}

static int compute(const struct bank *bank, const struct batch *batch) {
    struct experts call = bank->experts;
    if (!call.intermediate) {
        simulate(bank, batch);
        return 0;
    }
    call.rows = batch->rows;
    call.row_stride = bank->row_bytes;
    call.pair_rows = batch->pair_rows;
    call.slots = batch->slots;
    call.out = batch->out;
    call.num_pairs = batch->num_pairs;
    return bank->kernels->run_experts(*bank->kernels->active, &call);
}

/* For Python, which writes a span of it. */
static void note(struct records *records, const struct waiting_frame *frame,
                 const struct reply *reply) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct frame_record record = {
        .layer = frame->frame.layer,
        .num_rows = frame->frame.num_rows,
        .num_pairs = frame->num_pairs,
        .num_bytes = (int64_t)frame->event.count,
        .batch_frames = reply->batch_frames,
        .ended_nanos = now.tv_sec * INT64_C(1000000000) + now.tv_nsec,
    };
    memcpy(record.traceparent, frame->frame.traceparent.data, TRACEPARENT_BYTES);
    memcpy(record.timings, reply->timings, sizeof record.timings);
    record_frame(records, &record);
}

/* Writes all that comes before the rows; its bytes. */
static size_t put_start(char *at, const struct reply *reply) {
    struct sink counted = {0}, to = {.at = at};
    put_reply_head(&counted, reply);
    put_header(&to, BODY, counted.count + reply->rows.count);
    put_reply_head(&to, reply);
    return to.count;
}

/* Answers a frame by its rows, and frees it. */
static void answer(struct waiting_frame *frame, const struct batch *batch, char *rows) {
    struct stream *stream = frame->stream;
    struct plane *plane = stream->connection->plane;
    const size_t count = (size_t)(frame->num_pairs * plane->bank.row_bytes);
    const uint64_t waited = batch->started_nanos - frame->event.nanos;
    struct reply reply = {
        .frame_id = frame->frame.frame_id,
        .batch_frames = (uint32_t)batch->num_frames,
        .rows = {rows, count},
        .has_timings = 1,
        .has_checksum = frame->frame.has_checksum,
        .timings = {[DECODE_NANOS] = frame->decode_nanos,
                    [QUEUE_NANOS] = waited > frame->decode_nanos ? waited - frame->decode_nanos : 0,
                    [COMPUTE_NANOS] = batch->computed_nanos - batch->started_nanos},
    };
    if (reply.has_checksum) reply.checksum = checksum_of_reply(&reply);
    reply.timings[ENCODE_NANOS] = monotonic_nanos() - batch->computed_nanos;
    atomic_fetch_add(&stream->granted_pairs, (uint64_t)frame->num_pairs);
    char start[MOST_START_BYTES];
    struct iovec parts[] = {{start, put_start(start, &reply)}, {rows, count}, {0}};
    if (is_sampled(frame->frame.traceparent)) note(&plane->records, frame, &reply);
    send_message(stream, parts, 2);
    free_event(&frame->event);
    stream->num_waiting--;
    settle_one(stream);
}

/* Counted before they are answered: who has the answer may ask. */
static void count(struct records *records, const struct batch *batch) {
    const int64_t nanos = (int64_t)(batch->computed_nanos - batch->started_nanos);
    count_frames(records, (uint64_t)batch->num_frames, (uint64_t)batch->num_pairs);
    record_batch(records, &(struct batch_record){batch->first->frame.layer, batch->num_frames,
                                                 batch->num_active, nanos});
}

static void answer_all(const struct bank *bank, const struct batch *batch) {
    char *rows = batch->out;
    for (struct waiting_frame *frame = batch->first; frame;) {
        struct waiting_frame *next = frame->next;
        const int64_t num_bytes = frame->num_pairs * bank->row_bytes;
        answer(frame, batch, rows);
        rows += num_bytes;
        frame = next;
    }
}

void run_batch(struct plane *plane) {
    struct batch batch = {.first = take_layer(&plane->waiting), .started_nanos = monotonic_nanos()};
    sort_out_expired(&batch);
    if (!batch.first) return;
    count_active(plane, &batch);
    const double most = plane->bank.most_pairs * (double)batch.num_active;
    if ((double)batch.num_pairs > most || gather(plane, &batch) < 0 ||
        compute(&plane->bank, &batch) < 0) {
        leave_to_python(batch.first);
        return;
    }
    batch.computed_nanos = monotonic_nanos();
    count(&plane->records, &batch);
    answer_all(&plane->bank, &batch);
    keep_little(&plane->room);
}

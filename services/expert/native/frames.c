/* Messages as they come: usual frames wait for their batch, all else is Python's. */

#include "plane.h"

#include <stdlib.h>

/* The same bytes where the message lies now. */
static void rebase(struct bytes *bytes, const char *message, const char *copy) {
    if (bytes->data) bytes->data = copy + (bytes->data - message);
}

static uint64_t due_at(uint64_t received, uint64_t remaining) {
    return remaining > UINT64_MAX - received ? UINT64_MAX : received + remaining;
}

/* The message, kept or copied, with room for the pairs of its frame; NULL without memory. */
static struct waiting_frame *keep_frame(struct stream *stream, const struct frame *frame,
                                        struct bytes message) {
    const size_t num_pairs = (size_t)num_pairs_of(frame);
    void *const kept = http2_keep(stream->http2, message.data, message.count);
    struct waiting_frame *copy =
        malloc(sizeof *copy + 2 * num_pairs * sizeof(int64_t) + (kept ? 0 : message.count));
    if (!copy) {
        free(kept);
        return NULL;
    }
    int64_t *const pairs = (int64_t *)(copy + 1);
    const char *const data = kept ? message.data : (char *)(pairs + 2 * num_pairs);
    if (!kept) memcpy(pairs + 2 * num_pairs, message.data, message.count);
    *copy = (struct waiting_frame){
        .event = {.kind = MESSAGE,
                  .number = stream->number,
                  .nanos = http2_arrived_nanos(stream->connection->http2),
                  .data = data,
                  .count = message.count,
                  .kept = kept},
        .stream = stream,
        .frame = *frame,
        .num_pairs = (int64_t)num_pairs,
        .pair_rows = pairs,
        .slots = pairs + num_pairs,
    };
    struct frame *const own = &copy->frame;
    struct bytes *const fields[] = {&own->pair_rows,    &own->pair_experts, &own->traceparent,
                                    &own->pair_weights, &own->rows,         &own->requests};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        rebase(fields[i], message.data, data);
    return copy;
}

/* Whether credit and queue have a place for the frame, whose pairs are counted then. */
static int has_place(struct stream *stream, int64_t num_pairs) {
    const struct plane *plane = stream->connection->plane;
    const int64_t waiting = plane->waiting.num_pairs;
    if (waiting && waiting + num_pairs > plane->limits.max_waiting_pairs) return 0;
    const uint64_t taken = atomic_load(&stream->taken_pairs) + (uint64_t)num_pairs;
    if (taken > atomic_load(&stream->granted_pairs)) return 0;
    atomic_fetch_add(&stream->taken_pairs, (uint64_t)num_pairs);
    return 1;
}

static void hand_over_message(struct stream *stream, struct event *event) {
    struct handover *handover = &stream->connection->plane->handover;
    tell(handover, event);
    if (handover_is_full(handover)) hold(stream);
}

/* Takes a frame whose fields are usual. 0, or -1 without memory. */
static int take_frame(struct stream *stream, const struct frame *frame, struct bytes message,
                      uint64_t began) {
    struct plane *plane = stream->connection->plane;
    struct waiting_frame *copy = keep_frame(stream, frame, message);
    if (!copy) return -1;
    stream->num_in_hand++;
    const int is_ready = look_up(&plane->bank, frame, copy->pair_rows, copy->slots);
    if (!is_ready || !has_place(stream, copy->num_pairs)) {
        /* It is the last one that there is no place for. */
        if (is_ready) hand_over_waiting(stream, 0);
        hand_over_message(stream, &copy->event);
        return 0;
    }
    copy->due_nanos = due_at(copy->event.nanos, frame->remaining_nanos);
    copy->decode_nanos = monotonic_nanos() - began;
    add_waiting(&plane->waiting, copy);
    stream->num_waiting++;
    if (plane->waiting.num_bytes > plane->limits.max_waiting_bytes) hold(stream);
    return 0;
}

void hand_over(struct waiting_frame *frame) {
    struct stream *stream = frame->stream;
    /* Given back and taken anew, they would leave room meanwhile for a frame beyond the credit. */
    frame->event.kind = COUNTED_MESSAGE;
    stream->num_waiting--;
    hand_over_message(stream, &frame->event);
}

void hand_over_waiting(struct stream *stream, int named_only) {
    if (!stream->num_waiting) return;
    struct waiting *const waiting = &stream->connection->plane->waiting;
    struct waiting_frame *frame = take_of_stream(waiting, stream, named_only);
    while (frame) {
        struct waiting_frame *next = frame->next;
        hand_over(frame);
        frame = next;
    }
}

/* A message that is no usual frame. 0, or -1 without memory. */
static int take_unusual(struct stream *stream, struct bytes message) {
    struct event *event = new_event(MESSAGE, stream->number, message.data, message.count);
    if (!event) return -1;
    event->nanos = http2_arrived_nanos(stream->connection->http2);
    stream->num_in_hand++;
    /* It may cancel those that wait: then Python answers them, so it has to have them first. */
    hand_over_waiting(stream, 1);
    hand_over_message(stream, event);
    return 0;
}

void take_message(struct stream *stream, const char *data, size_t count) {
    const uint64_t began = monotonic_nanos();
    const struct bytes message = {data, count};
    struct frame frame;
    if (stream->is_ending) return;
    const int is_usual = read_request(message, &frame) &&
                         has_usual_fields(&stream->connection->plane->bank, &frame, count);
    const int failed =
        is_usual ? take_frame(stream, &frame, message, began) : take_unusual(stream, message);
    if (failed) lose(stream->connection);
}

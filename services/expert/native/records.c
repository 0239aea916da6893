/* Counters, and rings of records. */

#include "records.h"

#include <stdlib.h>
#include <string.h>

/* Of a draw of 32 bits: one in sixteen. */
#define SAMPLED_BELOW (UINT32_MAX / 16)

/* Where a traceparent has the lower half of its flags, of which the lowest bit says `sampled`. */
#define FLAGS_AT (TRACEPARENT_BYTES - 1)

int records_begin(struct records *records, int64_t num_layers) {
    records->draw = 2463534242;
    records->num_batches = calloc((size_t)num_layers, sizeof *records->num_batches);
    records->filling = calloc(1, sizeof *records->filling);
    records->emptied = calloc(1, sizeof *records->emptied);
    if (!records->num_batches || !records->filling || !records->emptied) return -1;
    return pthread_mutex_init(&records->lock, NULL) ? -1 : 0;
}

void records_end(struct records *records) {
    free(records->num_batches);
    free(records->filling);
    free(records->emptied);
    pthread_mutex_destroy(&records->lock);
}

static void add(_Atomic uint64_t *counter, uint64_t count) {
    atomic_fetch_add_explicit(counter, count, memory_order_relaxed);
}

void count_frames(struct records *records, uint64_t num_frames, uint64_t num_pairs) {
    add(&records->num_frames, num_frames);
    add(&records->num_pairs, num_pairs);
}

/* Marsaglia's xorshift: layers come in turn, so that every sixteenth batch might be of one layer.
 */
static uint32_t drawn(struct records *records) {
    uint32_t draw = records->draw;
    draw ^= draw << 13;
    draw ^= draw >> 17;
    draw ^= draw << 5;
    return records->draw = draw;
}

void record_batch(struct records *records, const struct batch_record *batch) {
    add(&records->num_batches[batch->layer], 1);
    if (drawn(records) > SAMPLED_BELOW) return;
    pthread_mutex_lock(&records->lock);
    struct rings *rings = records->filling;
    if (rings->num_batches < MAX_BATCH_RECORDS) rings->batches[rings->num_batches++] = *batch;
    pthread_mutex_unlock(&records->lock);
}

int is_sampled(struct bytes traceparent) {
    const char *const text = traceparent.data;
    if (traceparent.count < TRACEPARENT_BYTES) return 0;
    if (traceparent.count > TRACEPARENT_BYTES &&
        (text[TRACEPARENT_BYTES] != '-' || !memcmp(text, "00", 2)))
        return 0; /* only later versions go on */
    const char flags = text[FLAGS_AT];
    return flags >= '0' &&
           (flags <= '9' ? flags & 1 : flags >= 'a' && flags <= 'f' && !(flags & 1));
}

void record_frame(struct records *records, const struct frame_record *frame) {
    pthread_mutex_lock(&records->lock);
    struct rings *rings = records->filling;
    const int has_room = rings->num_frames < MAX_FRAME_RECORDS;
    if (has_room) rings->frames[rings->num_frames++] = *frame;
    pthread_mutex_unlock(&records->lock);
    if (!has_room) add(&records->num_lost, 1);
}

const struct rings *take_records(struct records *records) {
    records->emptied->num_batches = records->emptied->num_frames = 0;
    pthread_mutex_lock(&records->lock);
    struct rings *taken = records->filling;
    records->filling = records->emptied;
    pthread_mutex_unlock(&records->lock);
    return records->emptied = taken;
}

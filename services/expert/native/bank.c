/* What a usual frame is: whatever differs is left to Python, which finds the words for it. */

#include "bank.h"

static uint32_t word_of(struct bytes words, int64_t index) {
    uint32_t word;
    memcpy(&word, words.data + index * WORD_BYTES, sizeof word);
    return word;
}

/* Python refuses text that is no UTF-8; what is ASCII is. */
static int is_ascii(struct bytes text) {
    for (size_t i = 0; i < text.count; i++)
        if (text.data[i] & 0x80) return 0;
    return 1;
}

static int are_varints(struct bytes packed) {
    struct reader from = reader_of(packed);
    uint64_t value;
    while (from.at < from.end)
        if (!read_varint(&from, &value)) return 0;
    return 1;
}

int has_usual_fields(const struct bank *bank, const struct frame *frame, size_t message_bytes) {
    const int64_t num_pairs = num_pairs_of(frame);
    const int64_t most_rows = bank->max_frame_bytes / bank->row_bytes;
    return (int64_t)message_bytes <= bank->max_frame_bytes && frame->layer < bank->num_layers &&
           frame->dtype == bank->element_type && frame->num_rows <= most_rows &&
           (int64_t)frame->rows.count == frame->num_rows * bank->row_bytes && num_pairs > 0 &&
           num_pairs <= most_rows && frame->pair_experts.count == frame->pair_rows.count &&
           !frame->pair_weights.count && is_ascii(frame->traceparent) &&
           are_varints(frame->requests);
}

int look_up(const struct bank *bank, const struct frame *frame, int64_t *pair_rows,
            int64_t *slots) {
    const int64_t *const of_layer = bank->slots + frame->layer * bank->num_experts;
    const int64_t num_pairs = num_pairs_of(frame);
    for (int64_t pair = 0; pair < num_pairs; pair++) {
        const uint32_t row = word_of(frame->pair_rows, pair);
        const uint32_t expert = word_of(frame->pair_experts, pair);
        if (row >= frame->num_rows || expert >= bank->num_experts) return 0;
        pair_rows[pair] = row;
        slots[pair] = __atomic_load_n(of_layer + expert, __ATOMIC_ACQUIRE);
        if (slots[pair] < 0 || slots[pair] >= bank->experts.num_slots) return 0;
    }
    return 1;
}

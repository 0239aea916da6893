/* A gate's choice among experts, row by row, from logits that are there already. */

/* As torch orders them: what is not a number is above all else. */
static inline int is_above(struct scored a, struct scored b) {
    return (a.score != a.score && b.score == b.score) || a.score > b.score;
}

static inline void swap(struct scored *a, struct scored *b) {
    const struct scored kept = *a;
    *a = *b;
    *b = kept;
}

/* Sorts downwards; equals keep their order. */
static inline void sort(struct scored *first, struct scored *last) {
    for (struct scored *next = first + 1; next < last; next++) {
        const struct scored moved = *next;
        struct scored *place = next;
        for (; place > first && is_above(moved, place[-1]); place--) *place = place[-1];
        *place = moved;
    }
}

static inline struct scored *median(struct scored *a, struct scored *b, struct scored *c) {
    if (is_above(*a, *b)) return is_above(*b, *c) ? b : is_above(*a, *c) ? c : a;
    return is_above(*a, *c) ? a : is_above(*b, *c) ? c : b;
}

/* Splits around the median of three; where the second part begins. */
static inline struct scored *split(struct scored *first, struct scored *last) {
    const struct scored *pivot = first;
    swap(first, median(first + 1, first + (last - first) / 2, last - 1));
    for (first++;; first++) {
        while (is_above(*first, *pivot)) first++;
        do last--;
        while (is_above(*pivot, *last));
        if (first >= last) return first;
        swap(first, last);
    }
}

/* Brings the `wanted` best to the front, the best first.
 *
 * Bfloat16 logits are equal often, and which of equals is chosen follows from the algorithm: this
 * is the one of std::nth_element, by which torch.topk chooses, and of std::sort for few. */
static void bring_best_forward(struct scored *experts, int64_t num_experts, int64_t wanted) {
    struct scored *first = experts, *last = experts + num_experts;
    const struct scored *kth = experts + wanted - 1;
    int depth = 0;
    for (int64_t left = num_experts; left > 1; left /= 2) depth += 2;
    while (last - first > 3 && depth-- > 0) {
        struct scored *cut = split(first, last);
        if (cut <= kth)
            first = cut;
        else
            last = cut;
    }
    sort(first, last);
    sort(experts, experts + wanted - 1);
}

/* There is room for the scores up to a multiple of LANES. */
INLINE void route_row(const struct routing *call, int64_t row, enum dtype dtype) {
    float *scores = call->scores;
    const char *logits = call->logits + row * call->num_experts * item_bytes(dtype);
    for (int64_t i = 0; i < call->num_experts; i += LANES)
        store_floats(scores + i,
                     load_numbers(logits + i * item_bytes(dtype), call->num_experts - i, dtype));
    if (call->softmax_first) weigh(scores, call->num_experts, 1.0f, NULL, FLOAT32);
    for (int64_t i = 0; i < call->num_experts; i++)
        call->experts[i] = (struct scored){scores[i], i};
    bring_best_forward(call->experts, call->num_experts, call->num_chosen);
    float sum = 0;
    for (int64_t i = 0; i < call->num_chosen; i++) {
        call->indices[row * call->num_chosen + i] = call->experts[i].expert;
        scores[i] = call->experts[i].score;
        sum += scores[i];
    }
    if (!call->softmax_first) weigh(scores, call->num_chosen, 1.0f, NULL, FLOAT32);
    char *weights = call->weights + row * call->num_chosen * item_bytes(call->weights_dtype);
    for (int64_t i = 0; i < call->num_chosen; i += LANES) {
        const vector chosen = load_floats(scores + i);
        store_numbers(weights + i * item_bytes(call->weights_dtype),
                      call->renormalise ? chosen / sum : chosen, call->num_chosen - i,
                      call->weights_dtype);
    }
}

TARGET static void route(const struct routing *call) {
    for (int64_t row = 0; row < call->num_rows; row++) route_row(call, row, call->dtype);
}

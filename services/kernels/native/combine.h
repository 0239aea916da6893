/* The weighted sum of each token's rows, as its experts' results are combined. */

/* One register's width of a token's sum, from number `at` on. */
INLINE vector combined_at(const struct combination *call, const char *const *rows,
                          const float *weights, int64_t at, enum dtype dtype, enum dtype product) {
    const int64_t offset = at * item_bytes(dtype), count = call->width - at;
    vector sum = {0};
    for (int64_t slot = 0; slot < call->top_k; slot++) {
        const vector values =
            rows[slot] ? load_numbers(rows[slot] + offset, count, dtype) : every(0.0f);
        const vector weighted = rounded_to(values * weights[slot], product);
        // A sum of one term is that term, whose zero may be negative.
        sum = call->top_k == 1 ? weighted : sum + weighted;
    }
    return rounded_to(sum, product);
}

INLINE int combine_as(const struct combination *call, enum dtype dtype, enum dtype product,
                      enum dtype out_dtype) {
    const int64_t item = item_bytes(out_dtype);
    // A finite number less itself is zero, any other one is NaN.
    vector differences = {0};
    for (int64_t token = 0; token < call->num_tokens; token++) {
        const char *const *rows = call->rows + token * call->top_k;
        const float *weights = call->weights + token * call->top_k;
        char *out = call->out + token * call->width * item;
        for (int64_t at = 0; at < call->width; at += LANES) {
            const vector sum = combined_at(call, rows, weights, at, dtype, product);
            differences += sum - sum;
            store_numbers(out + at * item, sum, call->width - at, out_dtype);
        }
    }
    return sum_of(differences) == 0.0f;
}

INLINE int combine_into(const struct combination *call, enum dtype dtype, enum dtype product) {
    if (call->out_dtype == FLOAT32) return combine_as(call, dtype, product, FLOAT32);
    return combine_as(call, dtype, product, BFLOAT16);
}

TARGET static int combine(const struct combination *call) {
    if (call->dtype == FLOAT32) return combine_into(call, FLOAT32, FLOAT32);
    if (call->product == FLOAT32) return combine_into(call, BFLOAT16, FLOAT32);
    return combine_into(call, BFLOAT16, BFLOAT16);
}

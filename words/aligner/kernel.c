/* The inner loop of the aligner: Viterbi search through a graph of three-state phones.
 *
 * The theory and the meaning of every array are in search.py, whose NumPy loop computes the same
 * numbers; this file only computes them faster. It needs nothing but a C compiler: no Python
 * headers, it is loaded with ctypes.
 */
#include <stdint.h>
#include <string.h>

#define NEVER (-1e30)

typedef struct {
    /* the graph: phones in order, each from one junction to another */
    const int32_t *columns;     /* [phones][3] column of the scores for each state */
    const int32_t *source;      /* [phones] junction entered from */
    const int32_t *target;      /* [phones] junction left to */
    const double *entry_weight; /* [phones] added on entering */
    const double *move_weight;  /* [phones] added on each move to a next state and on leaving */
    const int32_t *duration;    /* [phones] row of the duration table */
    const int32_t *first_out;   /* [junctions] lowest and highest phone entered from a junction; */
    const int32_t *last_out;    /*             first > last: none */
    /* jumps between junctions that take no time, ascending by where they start */
    const int32_t *jump_from;
    const int32_t *jump_to;
    const double *jump_weight;
    int32_t n_phones, n_junctions, n_jumps;
    /* the duration table: what leaving a phone after so many frames costs */
    const double *durations;    /* [rows][n_durations] */
    int32_t n_durations;
} Graph;

typedef struct {
    double *score;              /* [phones][3] */
    int32_t *record;            /* [phones][3] how the path got into this phone */
    int32_t *entered;           /* [phones][3] frame at which it did */
    double *junction_score;     /* [junctions] */
    int32_t *junction_record;   /* [junctions] */
    int32_t *junction_phone;    /* [junctions] scratch: who arrived in this frame */
    /* records: one for each phone a surviving path has left */
    int32_t *record_phone, *record_start, *record_end, *record_before;
    int32_t n_records, record_capacity;
    int32_t low, high;          /* phones that may be alive: [low, high) */
    double beam;
    double best;                /* best score of the last frame */
} State;

/* Advance over frames [first, first + n_frames); scores has n_columns a frame. Returns the frames
 * done: fewer when the records are nearly full, and then the caller makes room. */
int32_t advance(const Graph *g, State *s, const float *scores, int32_t n_columns,
                int32_t first, int32_t n_frames) {
    for (int32_t k = 0; k < n_frames; k++) {
        const float *frame = scores + (int64_t)k * n_columns;
        int32_t t = first + k;
        if (s->n_records + g->n_junctions > s->record_capacity)
            return k;
        double best = NEVER;
        for (int32_t p = s->low; p < s->high; p++) {
            double *v = s->score + 3 * p;
            int32_t *r = s->record + 3 * p, *e = s->entered + 3 * p;
            double move = g->move_weight[p];
            double in = s->junction_score[g->source[p]];
            const int32_t *c = g->columns + 3 * p;
            if (v[1] + move > v[2]) { v[2] = v[1] + move; r[2] = r[1]; e[2] = e[1]; }
            if (v[0] + move > v[1]) { v[1] = v[0] + move; r[1] = r[0]; e[1] = e[0]; }
            if (in + g->entry_weight[p] > v[0]) {
                v[0] = in + g->entry_weight[p];
                r[0] = s->junction_record[g->source[p]];
                e[0] = t;
            }
            for (int i = 0; i < 3; i++) {
                v[i] += frame[c[i]];
                if (v[i] > best) best = v[i];
            }
        }
        double floor = best - s->beam;
        /* who leaves a phone, and who is dropped */
        int32_t low = g->n_phones, high = 0;
        for (int32_t j = 0; j < g->n_junctions; j++) {
            s->junction_score[j] = NEVER;
            s->junction_phone[j] = -1;
        }
        for (int32_t p = s->low; p < s->high; p++) {
            double *v = s->score + 3 * p;
            int alive = 0;
            for (int i = 0; i < 3; i++) {
                if (v[i] < floor) v[i] = NEVER; else alive = 1;
            }
            if (!alive) continue;
            if (p < low) low = p;
            high = p + 1;
            if (v[2] == NEVER) continue;
            int32_t d = t + 1 - s->entered[3 * p + 2];
            if (d >= g->n_durations) d = g->n_durations - 1;
            double out = v[2] + g->move_weight[p]
                       + g->durations[(int64_t)g->duration[p] * g->n_durations + d];
            int32_t j = g->target[p];
            if (out >= floor && out > s->junction_score[j]) {
                s->junction_score[j] = out;
                s->junction_phone[j] = p;
            }
        }
        for (int32_t j = 0; j < g->n_junctions; j++) {
            int32_t p = s->junction_phone[j];
            if (p < 0) continue;
            int32_t n = s->n_records++;
            s->record_phone[n] = p;
            s->record_start[n] = s->entered[3 * p + 2];
            s->record_end[n] = t + 1;
            s->record_before[n] = s->record[3 * p + 2];
            s->junction_record[j] = n;
        }
        for (int32_t i = 0; i < g->n_jumps; i++) {
            int32_t a = g->jump_from[i], b = g->jump_to[i];
            double w = s->junction_score[a] + g->jump_weight[i];
            if (w >= floor && w > s->junction_score[b]) {
                s->junction_score[b] = w;
                s->junction_record[b] = s->junction_record[a];
            }
        }
        /* phones that can be entered in the next frame come alive */
        for (int32_t j = 0; j < g->n_junctions; j++) {
            if (s->junction_score[j] <= NEVER || g->first_out[j] > g->last_out[j]) continue;
            if (g->first_out[j] < low) low = g->first_out[j];
            if (g->last_out[j] + 1 > high) high = g->last_out[j] + 1;
        }
        s->low = low;
        s->high = high;
        s->best = best;
    }
    return n_frames;
}

/* Scores of mixtures of Gaussians: see senones.py, whose NumPy lines compute the same. */

#define GAUSSIANS 64 /* kept in each codebook; KEPT_GAUSSIANS in senones.py */
#define LANES 16
#define VECTORS (GAUSSIANS / LANES)
#define INPUTS 13    /* features of a stream; the squares come first, then the values */
#define STATES 3

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi" /* no vector crosses the border of this file */
#endif

/* Sixteen floats at once, in as many registers as the processor needs for them. */
typedef float floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4)));

/* One binary for old and new processors: the widest vectors that are there are used. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define WIDEST __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDEST
#endif
#define LARGER(a, b) ((floats)(((ints)(a) & ((a) > (b))) | ((ints)(b) & ~((a) > (b)))))
#define INLINE static inline __attribute__((always_inline))

/* exp(x) for x <= 0, to six digits: 2^n by its bits, the rest by a polynomial. */
INLINE floats exp_of_negative(floats x) {
    const floats least = x * 0.0f - 80.0f;
    x = LARGER(x, least);
    floats z = x * 1.44269504f;
    ints n = __builtin_convertvector(z - 0.5f, ints); /* to the nearest: z is negative */
    floats f = (z - __builtin_convertvector(n, floats)) * 0.693147181f;
    floats p = 1.0f + f * (1.0f + f * (0.5f + f * (0.166666667f + f * (0.0416666667f
             + f * 0.00833333333f))));
    return p * (floats)((n + 127) << 23);
}

/* Across the lanes: halves are added, or compared, until four are left. */
typedef float eight __attribute__((vector_size(32), aligned(4)));
typedef float four __attribute__((vector_size(16), aligned(4)));
typedef int32_t four_ints __attribute__((vector_size(16), aligned(4)));
typedef union { floats all; eight half[2]; four quarter[4]; } lanes;

INLINE float sum_of(floats v) {
    lanes l = {v};
    lanes m = {.half = {l.half[0] + l.half[1]}};
    four q = m.quarter[0] + m.quarter[1];
    return (q[0] + q[1]) + (q[2] + q[3]);
}

INLINE four larger_of_four(four a, four b) {
    return (four)(((four_ints)a & (a > b)) | ((four_ints)b & ~(a > b)));
}

INLINE float largest_of(floats v) {
    lanes l = {v};
    four q = larger_of_four(larger_of_four(l.quarter[0], l.quarter[1]),
                            larger_of_four(l.quarter[2], l.quarter[3]));
    float a = q[0] > q[1] ? q[0] : q[1], b = q[2] > q[3] ? q[2] : q[3];
    return a > b ? a : b;
}

/* log(x) for 1e-37 < x < 1e37, to six digits: the exponent by its bits, the rest by a series in
 * (m - 1) / (m + 1) for m from 0.7 to 1.4. */
INLINE float log_of(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    int32_t exponent = (bits - 0x3f3504f3) >> 23;
    bits -= exponent << 23;
    float m;
    memcpy(&m, &bits, sizeof m);
    float z = (m - 1.0f) / (m + 1.0f), y = z * z;
    return (float)exponent * 0.693147181f
         + 2.0f * z * (1.0f + y * (0.333333333f + y * (0.2f + y * 0.142857143f)));
}

/* matrix: [3 streams][phones][2 * INPUTS][GAUSSIANS], constant: [3][phones][GAUSSIANS],
 * weights: [3][phones][STATES][GAUSSIANS], features: [frames][3 * INPUTS],
 * out: [frames][n_columns], of which the first phones * STATES are written. */
WIDEST
void mixtures(const float *matrix, const float *constant, const float *weights,
              int32_t n_phones, const float *features, int32_t n_frames, float scale,
              float *out, int32_t n_columns) {
    for (int32_t p = 0; p < n_phones; p++) {
        for (int32_t t = 0; t < n_frames; t++) {
            float product[STATES] = {1.0f, 1.0f, 1.0f};
            float top_sum = 0.0f;
            for (int s = 0; s < 3; s++) {
                const float *x = features + (int64_t)t * 3 * INPUTS + INPUTS * s;
                const int64_t codebook = (int64_t)s * n_phones + p;
                const floats *m = (const floats *)(matrix + codebook * 2 * INPUTS * GAUSSIANS);
                const floats *w = (const floats *)(weights + codebook * STATES * GAUSSIANS);
                const floats *c = (const floats *)(constant + codebook * GAUSSIANS);
                floats density[VECTORS];
                for (int k = 0; k < VECTORS; k++) density[k] = c[k];
                for (int d = 0; d < INPUTS; d++) {
                    const float value = x[d], square = value * value;
                    for (int k = 0; k < VECTORS; k++)
                        density[k] += square * m[d * VECTORS + k]
                                    + value * m[(INPUTS + d) * VECTORS + k];
                }
                floats highest = density[0];
                for (int k = 1; k < VECTORS; k++)
                    highest = LARGER(density[k], highest);
                const float top = largest_of(highest);
                floats sum[STATES] = {{0.0f}};
                for (int k = 0; k < VECTORS; k++) {
                    const floats e = exp_of_negative(density[k] - top);
                    for (int i = 0; i < STATES; i++) sum[i] += e * w[i * VECTORS + k];
                }
                top_sum += top;
                for (int i = 0; i < STATES; i++) product[i] *= sum_of(sum[i]) + 1e-12f;
            }
            float *o = out + (int64_t)t * n_columns + STATES * p;
            for (int i = 0; i < STATES; i++)
                o[i] = scale * (top_sum + log_of(product[i]));
        }
    }
}

/* The columns behind the senones: for each state the best vowel and the best consonant, and then
 * garbage, the score of the phone of a given rank. kind: [phones] 0 noise, 1 vowel, 2 consonant. */
void summaries(const int8_t *kind, int32_t n_phones, int32_t rank, float *out, int32_t n_frames,
               int32_t n_columns) {
    for (int32_t t = 0; t < n_frames; t++) {
        float *o = out + (int64_t)t * n_columns;
        float best[2][STATES], ranking[16];
        for (int i = 0; i < STATES; i++) best[0][i] = best[1][i] = (float)NEVER;
        for (int i = 0; i < 16; i++) ranking[i] = (float)NEVER;
        for (int32_t p = 0; p < n_phones; p++) {
            if (kind[p] == 0) continue;
            float high = (float)NEVER;
            for (int i = 0; i < STATES; i++) {
                float v = o[STATES * p + i], *b = &best[kind[p] - 1][i];
                if (v > *b) *b = v;
                if (v > high) high = v;
            }
            for (int32_t k = rank - 1; k >= 0 && high > ranking[k]; k--) {
                if (k + 1 < rank) ranking[k + 1] = ranking[k];
                ranking[k] = high;
            }
        }
        for (int i = 0; i < STATES; i++) {
            o[STATES * n_phones + i] = best[0][i];
            o[STATES * n_phones + STATES + i] = best[1][i];
        }
        o[STATES * n_phones + 2 * STATES] = ranking[rank - 1];
    }
}

/* The inner loops of the aligner: Viterbi search through a graph of three-state phones, and the scores
 * that it goes by.
 *
 * The theory and the meaning of every array are in search.py and senones.py, whose NumPy lines compute
 * the same numbers; this file only computes them faster. It needs nothing but a C compiler: no Python
 * headers, it is loaded with ctypes.
 */
#ifndef VECTOR /* the file includes itself: see below */
#include <stddef.h>
#include <stdint.h>

#define NEVER (-1e30)
#define STATES 3

/* The graph: phones in order, each from one junction to another. */
typedef struct {
    int32_t columns[STATES];    /* column of the scores for each state */
    int32_t source, target;     /* junction entered from, and left to */
    int32_t duration;           /* row of the duration table */
} Phone;

typedef struct {
    double entry;               /* added on entering a phone */
    double move;                /* added on each move to a next state and on leaving */
} Weights;

typedef struct {
    int32_t first_out, last_out; /* lowest and highest phone entered from here; first > last: none */
    int32_t first_jump;         /* the first jump that starts here or later */
} Junction;

typedef struct {
    int32_t source, target;     /* takes no time */
} Jump;

typedef struct {
    const Phone *phones;
    const Weights *weights;     /* [phones] */
    const Junction *junctions;
    const Jump *jumps;          /* ascending by source */
    const double *jump_weights;
    const double *durations;    /* [rows][n_durations] what leaving a phone after so many frames costs */
    int32_t n_phones, n_junctions, n_jumps, n_durations;
} Graph;

/* The best paths now, and each phone that one of them has left. */
typedef struct {
    int32_t record[STATES];     /* how the path in a state got into its phone */
    int32_t entered[STATES];    /* frame at which it did */
} Came;

typedef struct {
    int32_t record;
    int32_t phone;              /* scratch: who arrived in this frame */
} CameTo;

typedef struct {
    int32_t phone, start, end, before;
} Record;

typedef struct {
    double (*score)[STATES];    /* [phones] */
    Came *came;                 /* [phones] */
    double *junction_score;     /* [junctions] */
    CameTo *junction_came;      /* [junctions] */
    Record *records;
    int32_t n_records, record_capacity;
    int32_t low, high;          /* phones that may be alive: [low, high) */
    int32_t junction_low, junction_high; /* so for junctions */
    double beam;
    double best;                /* best score of the last frame */
} State;

/* Advance over frames [first, first + n_frames); scores has n_columns a frame. Returns the frames
 * done: fewer when the records are nearly full, and then the caller makes room. */
int32_t advance(const Graph *g, State *s, const float *scores, int32_t n_columns,
                int32_t first, int32_t n_frames) {
    for (int32_t k = 0; k < n_frames; k++) {
        const float *frame = scores + (int64_t)k * n_columns;
        const int32_t t = first + k;
        if (s->n_records + g->n_junctions > s->record_capacity)
            return k;
        double best = NEVER;
        for (int32_t p = s->low; p < s->high; p++) {
            const Phone *phone = g->phones + p;
            double *v = s->score[p];
            int32_t *r = s->came[p].record, *e = s->came[p].entered;
            const double move = g->weights[p].move;
            const double in = s->junction_score[phone->source] + g->weights[p].entry;
            if (v[1] + move > v[2]) { v[2] = v[1] + move; r[2] = r[1]; e[2] = e[1]; }
            if (v[0] + move > v[1]) { v[1] = v[0] + move; r[1] = r[0]; e[1] = e[0]; }
            if (in > v[0]) { v[0] = in; r[0] = s->junction_came[phone->source].record; e[0] = t; }
            for (int i = 0; i < STATES; i++) {
                v[i] += frame[phone->columns[i]];
                if (v[i] > best) best = v[i];
            }
        }
        const double floor = best - s->beam;
        /* who leaves a phone, and who is dropped */
        for (int32_t j = s->junction_low; j < s->junction_high; j++) s->junction_score[j] = NEVER;
        int32_t low = g->n_phones, high = 0, junction_low = g->n_junctions, junction_high = 0;
        for (int32_t p = s->low; p < s->high; p++) {
            double *v = s->score[p];
            int alive = 0;
            for (int i = 0; i < STATES; i++) {
                if (v[i] < floor) v[i] = NEVER; else alive = 1;
            }
            if (!alive) continue;
            if (p < low) low = p;
            high = p + 1;
            if (v[2] == NEVER) continue;
            const Phone *phone = g->phones + p;
            int32_t d = t + 1 - s->came[p].entered[2];
            if (d >= g->n_durations) d = g->n_durations - 1;
            const double out = v[2] + g->weights[p].move
                             + g->durations[(int64_t)phone->duration * g->n_durations + d];
            const int32_t j = phone->target;
            if (out >= floor && out > s->junction_score[j]) {
                s->junction_score[j] = out;
                s->junction_came[j].phone = p;
                if (j < junction_low) junction_low = j;
                if (j >= junction_high) junction_high = j + 1;
            }
        }
        for (int32_t j = junction_low; j < junction_high; j++) {
            if (s->junction_score[j] == NEVER) continue;
            CameTo *here = s->junction_came + j;
            const Came *came = s->came + here->phone;
            here->record = s->n_records;
            s->records[s->n_records++]
                = (Record){here->phone, came->entered[2], t + 1, came->record[2]};
        }
        int32_t i = junction_low < junction_high ? g->junctions[junction_low].first_jump : g->n_jumps;
        for (; i < g->n_jumps && g->jumps[i].source < junction_high; i++) {
            const int32_t a = g->jumps[i].source, b = g->jumps[i].target;
            const double w = s->junction_score[a] + g->jump_weights[i];
            if (w >= floor && w > s->junction_score[b]) {
                s->junction_score[b] = w;
                s->junction_came[b].record = s->junction_came[a].record;
                if (b >= junction_high) junction_high = b + 1;
            }
        }
        /* phones that can be entered in the next frame come alive */
        for (int32_t j = junction_low; j < junction_high; j++) {
            const Junction *junction = g->junctions + j;
            if (s->junction_score[j] == NEVER || junction->first_out > junction->last_out) continue;
            if (junction->first_out < low) low = junction->first_out;
            if (junction->last_out + 1 > high) high = junction->last_out + 1;
        }
        s->low = low;
        s->high = high;
        s->junction_low = junction_low;
        s->junction_high = junction_high;
        s->best = best;
    }
    return n_frames;
}

/* Scores of mixtures of Gaussians. */

#define GAUSSIANS 64 /* kept in each codebook; KEPT_GAUSSIANS in layout.py */
#define RANK 6       /* GARBAGE_RANK in layout.py */
#define STREAMS 3
#define INPUTS 26    /* the squares of a stream's features, and then the features */
#define FEATURES (INPUTS / 2)
#define SET 16       /* frames that lie side by side */
#define MAX_SETS 8  /* for which a codebook is fetched once */
#define MAX_FRAMES (SET * MAX_SETS)

typedef struct {
    const float *matrix;        /* [STREAMS][phones][INPUTS][GAUSSIANS] */
    const float *constant;      /* [STREAMS][phones][GAUSSIANS] */
    const float *weights;       /* [STREAMS][phones][STATES][GAUSSIANS] */
    const int8_t *kind;         /* [phones] 0 noise, 1 vowel, 2 consonant */
    int32_t n_phones;
    float scale;
} Model;

/* What Python must know just so: numbers() of layout.py has the same, in this order. */
#define AT offsetof
#define N_NUMBERS 63
const int32_t layout[N_NUMBERS] = {
    N_NUMBERS, STATES, GAUSSIANS, RANK, FEATURES,
    sizeof(Phone), AT(Phone, columns), AT(Phone, source), AT(Phone, target),
        AT(Phone, duration),
    sizeof(Weights), AT(Weights, entry), AT(Weights, move),
    sizeof(Junction), AT(Junction, first_out), AT(Junction, last_out), AT(Junction, first_jump),
    sizeof(Jump), AT(Jump, source), AT(Jump, target),
    sizeof(Came), AT(Came, record), AT(Came, entered),
    sizeof(CameTo), AT(CameTo, record), AT(CameTo, phone),
    sizeof(Record), AT(Record, phone), AT(Record, start), AT(Record, end), AT(Record, before),
    sizeof(Graph), AT(Graph, phones), AT(Graph, weights), AT(Graph, junctions),
        AT(Graph, jumps), AT(Graph, jump_weights), AT(Graph, durations), AT(Graph, n_phones),
        AT(Graph, n_junctions), AT(Graph, n_jumps), AT(Graph, n_durations),
    sizeof(State), AT(State, score), AT(State, came), AT(State, junction_score),
        AT(State, junction_came), AT(State, records), AT(State, n_records),
        AT(State, record_capacity), AT(State, low), AT(State, high), AT(State, junction_low),
        AT(State, junction_high), AT(State, beam), AT(State, best),
    sizeof(Model), AT(Model, matrix), AT(Model, constant), AT(Model, weights), AT(Model, kind),
        AT(Model, n_phones), AT(Model, scale),
};

typedef float Inputs[MAX_SETS][STREAMS][INPUTS][SET] __attribute__((aligned(64)));

/* The rest is at the end of this file, once for each width of vector, in bytes. Wider vectors than the
 * processor's are no way out: compilers split them into code ten times slower. */
#define INLINE static inline __attribute__((always_inline))
#define JOINED_(name, width) name##width
#define JOINED(name, width) JOINED_(name, width)
#define OF_WIDTH(name) JOINED(name, VECTOR)

#define VECTOR 16
#include "kernel.c"
#undef VECTOR

#if defined(__x86_64__) && defined(__GNUC__)
#define VECTOR 32
#include "kernel.c"
#undef VECTOR
#define VECTOR 64
#include "kernel.c"
#undef VECTOR
#endif

#ifndef WIDEST /* a test may want narrower ones */
#define WIDEST 64
#endif

/* Fill in the columns of up to MAX_FRAMES frames, as fast as this processor can. */
static void score(const Model *model, Inputs inputs, int32_t n_frames, float *out,
                  int32_t n_columns) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (WIDEST >= 64 && __builtin_cpu_supports("avx512f")) {
        score_64(model, inputs, n_frames, out, n_columns);
        return;
    }
    if (WIDEST >= 32 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        score_32(model, inputs, n_frames, out, n_columns);
        return;
    }
#endif
    score_16(model, inputs, n_frames, out, n_columns);
}

/* features: [frames][STREAMS * FEATURES], out: [frames][n_columns]; senones.py says which. */
void scores(const Model *model, const float *features, int32_t n_frames, float *out,
            int32_t n_columns) {
    Inputs inputs;
    for (int32_t first = 0; first < n_frames; first += MAX_FRAMES) {
        const int32_t n = n_frames - first < MAX_FRAMES ? n_frames - first : MAX_FRAMES;
        for (int32_t t = 0; t < (n + SET - 1) / SET * SET; t++) {
            for (int32_t i = 0; i < STREAMS * FEATURES; i++) {
                const float value
                    = t < n ? features[(int64_t)(first + t) * STREAMS * FEATURES + i] : 0.0f;
                float (*to)[SET] = inputs[t / SET][i / FEATURES];
                to[i % FEATURES][t % SET] = value * value;
                to[FEATURES + i % FEATURES][t % SET] = value;
            }
        }
        score(model, inputs, n, out + (int64_t)first * n_columns, n_columns);
    }
}

#else /* one width of vector */

#if VECTOR == 64
#define TARGET __attribute__((target("avx512f")))
#elif VECTOR == 32
#define TARGET __attribute__((target("avx2,fma")))
#else
#define TARGET
#endif

#define LANES (VECTOR / 4)
#define SIDE (VECTOR == 64 ? 1 : 2) /* vectors side by side: */
#define GROUP (8 / SIDE)            /* eight sums at a time keep the processor busy */
#define floats OF_WIDTH(floats_)
#define ints OF_WIDTH(ints_)
#define larger OF_WIDTH(larger_)
#define smaller OF_WIDTH(smaller_)
#define exp2_of_negative OF_WIDTH(exp2_of_negative_)
#define log_of OF_WIDTH(log_of_)
#define Summary OF_WIDTH(Summary_)
#define summarize OF_WIDTH(summarize_)
#define score_of_width OF_WIDTH(score_)

typedef float floats __attribute__((vector_size(VECTOR), may_alias));
typedef int32_t ints __attribute__((vector_size(VECTOR), may_alias));

TARGET INLINE floats larger(floats a, floats b) {
    const ints which = a > b;
    return (floats)(((ints)a & which) | ((ints)b & ~which));
}

TARGET INLINE floats smaller(floats a, floats b) {
    const ints which = a > b;
    return (floats)(((ints)b & which) | ((ints)a & ~which));
}

/* 2^x for x <= 0, to seven digits: whole powers by the bits, the rest, -1 to 0, by a polynomial. */
TARGET INLINE floats exp2_of_negative(floats x) {
    x = larger(x, (floats){0} - 115.0f);
    const ints n = __builtin_convertvector(x, ints);
    const floats f = x - __builtin_convertvector(n, floats);
    const floats p = 0.99999994f + f * (0.693142235f + f * (0.240172192f + f * (0.0552797243f
                   + f * (0.00918861199f + f * 0.000938788347f))));
    return (floats)((ints)p + (n << 23));
}

/* log(x) for 1e-37 < x < 1e37, to six digits: the exponent by its bits, the rest by a series in
 * (m - 1) / (m + 1) for m from 0.7 to 1.4. */
TARGET INLINE floats log_of(floats x) {
    const ints exponent = ((ints)x - 0x3f3504f3) >> 23;
    const floats m = (floats)((ints)x - (exponent << 23));
    const floats z = (m - 1.0f) / (m + 1.0f), y = z * z;
    return __builtin_convertvector(exponent, floats) * 0.693147181f
         + 2.0f * z * (1.0f + y * (0.333333333f + y * (0.2f + y * 0.142857143f)));
}

/* The columns after the senones, so far. */
typedef struct {
    floats best[2][STATES];     /* of the vowels and of the consonants, in each state */
    floats ranking[RANK];       /* the best phones by their best state */
} Summary;

TARGET INLINE void summarize(Summary *s, int kind, const floats v[STATES]) {
    if (kind == 0) return;
    floats *best = s->best[kind - 1];
    for (int i = 0; i < STATES; i++) best[i] = larger(best[i], v[i]);
    floats high = larger(larger(v[0], v[1]), v[2]);
    for (int k = 0; k < RANK; k++) {
        const floats above = larger(s->ranking[k], high);
        high = smaller(s->ranking[k], high);
        s->ranking[k] = above;
    }
}

/* Indices of the model are of 64 bits: Python builds with -fwrapv, and narrower ones cost a tenth. */
TARGET static void score_of_width(const Model *model, Inputs inputs, int32_t n_frames, float *out,
                                  int32_t n_columns) {
    const float log2_e = 1.44269504f;
    const floats never = (floats){0} + (float)NEVER;
    Summary summaries[MAX_FRAMES / LANES];
    for (int32_t k = 0; k < MAX_FRAMES / LANES; k++) {
        for (int i = 0; i < STATES; i++)
            summaries[k].best[0][i] = summaries[k].best[1][i] = never;
        for (int i = 0; i < RANK; i++) summaries[k].ranking[i] = never;
    }
    for (int32_t p = 0; p < model->n_phones; p++) {
        for (int32_t t = 0; t < n_frames; t += SIDE * LANES) {
            floats top_sum[SIDE], product[SIDE][STATES];
            for (int k = 0; k < SIDE; k++) {
                top_sum[k] = (floats){0};
                for (int i = 0; i < STATES; i++) product[k][i] = (floats){0} + 1.0f;
            }
            for (int s = 0; s < STREAMS; s++) {
                const float (*x)[SET] = (const float (*)[SET])inputs[t / SET][s];
                const int64_t codebook = (int64_t)s * model->n_phones + p;
                const float *m = model->matrix + codebook * INPUTS * GAUSSIANS;
                const float *c = model->constant + codebook * GAUSSIANS;
                const float *w = model->weights + codebook * STATES * GAUSSIANS;
                floats density[GAUSSIANS][SIDE], top[SIDE];
                for (int k = 0; k < SIDE; k++) top[k] = never;
                for (int64_t g = 0; g < GAUSSIANS; g += GROUP) {
                    floats sum[GROUP][SIDE];
                    for (int i = 0; i < GROUP; i++)
                        for (int k = 0; k < SIDE; k++) sum[i][k] = (floats){0} + c[g + i];
                    for (int64_t d = 0; d < INPUTS; d++)
                        for (int k = 0; k < SIDE; k++) {
                            const floats value = *(const floats *)(x[d] + t % SET + k * LANES);
                            for (int i = 0; i < GROUP; i++)
                                sum[i][k] += value * m[d * GAUSSIANS + g + i];
                        }
                    for (int i = 0; i < GROUP; i++)
                        for (int k = 0; k < SIDE; k++) {
                            density[g + i][k] = sum[i][k];
                            top[k] = larger(sum[i][k], top[k]);
                        }
                }
                for (int k = 0; k < SIDE; k++) {
                    floats sum[STATES];
                    for (int i = 0; i < STATES; i++) sum[i] = (floats){0} + 1e-12f;
                    for (int64_t g = 0; g < GAUSSIANS; g++) {
                        const floats e
                            = exp2_of_negative(density[g][k] * log2_e - top[k] * log2_e);
                        for (int i = 0; i < STATES; i++) sum[i] += e * w[i * GAUSSIANS + g];
                    }
                    top_sum[k] += top[k];
                    for (int i = 0; i < STATES; i++) product[k][i] *= sum[i];
                }
            }
            for (int k = 0; k < SIDE; k++) {
                floats v[STATES];
                for (int i = 0; i < STATES; i++)
                    v[i] = model->scale * (top_sum[k] + log_of(product[k][i]));
                summarize(summaries + t / LANES + k, model->kind[p], v);
                for (int32_t l = 0; l < LANES && t + k * LANES + l < n_frames; l++)
                    for (int i = 0; i < STATES; i++)
                        out[(int64_t)(t + k * LANES + l) * n_columns + STATES * p + i] = v[i][l];
            }
        }
    }
    for (int32_t t = 0; t < n_frames; t++) {
        const Summary *s = summaries + t / LANES;
        float *o = out + (int64_t)t * n_columns + STATES * model->n_phones;
        for (int kind = 0; kind < 2; kind++)
            for (int i = 0; i < STATES; i++) *o++ = s->best[kind][i][t % LANES];
        *o = s->ranking[RANK - 1][t % LANES];
    }
}

#undef TARGET
#undef LANES
#undef SIDE
#undef GROUP
#undef floats
#undef ints
#undef larger
#undef smaller
#undef exp2_of_negative
#undef log_of
#undef Summary
#undef summarize
#undef score_of_width

#endif

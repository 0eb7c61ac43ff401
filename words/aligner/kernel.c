/* The inner loop of the aligner: Viterbi search through a graph of three-state phones.
 *
 * The theory and the meaning of every array are in search.py, whose NumPy loop computes the same
 * numbers; this file only computes them faster. It needs nothing but a C compiler: no Python
 * headers, it is loaded with ctypes.
 */
#include <stdint.h>

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

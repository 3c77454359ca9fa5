/* DO-Conv: composition and convolution, with their gradients, in double. Always three spatial axes: those in front of the
   geometry's own have one element. */

#ifndef DOCONV_EXAMPLE_DOCONV_H
#define DOCONV_EXAMPLE_DOCONV_H

#include "json.h"

typedef struct {
    int rank, transposed;
    char mode; /* z(eros) r(eflect) e(dge: "replicate") c(ircular) */
    long in, out, groups, S, K, first, second; /* first, second: the channel axes of W and of the kernel */
    long kernel[3], stride[3], low[3], high[3], dilation[3], extra[3];
} Geometry;

static Geometry read_geometry(const Json *json) {
    Geometry g = {.in = integer_of(json, "in_channels"), .out = integer_of(json, "out_channels"),
                  .groups = integer_of(json, "groups"), .S = integer_of(json, "d_mul"), .K = 1,
                  .transposed = get(json, "transposed")->type == 't', .mode = *text_of(json, "padding_mode"),
                  .kernel = {1, 1, 1}, .stride = {1, 1, 1}, .dilation = {1, 1, 1}};
    if (!strcmp(text_of(json, "padding_mode"), "replicate")) g.mode = 'e';
    const Json *kernel = get(json, "kernel_size")->child, *stride = get(json, "stride")->child,
               *dilation = get(json, "dilation")->child, *padding = get(json, "padding")->child,
               *extra = get(json, "output_padding")->child;
    for (const Json *item = kernel; item; item = item->next) g.rank++;
    for (int axis = 3 - g.rank; axis < 3; axis++) {
        g.K *= g.kernel[axis] = (long)kernel->number;
        g.stride[axis] = (long)stride->number;
        g.dilation[axis] = (long)dilation->number;
        g.low[axis] = (long)padding->child->number;
        g.high[axis] = (long)padding->child->next->number;
        g.extra[axis] = (long)extra->number;
        kernel = kernel->next, stride = stride->next, dilation = dilation->next, padding = padding->next, extra = extra->next;
    }
    g.first = g.transposed ? g.in : g.out;
    g.second = (g.transposed ? g.out : g.in) / g.groups;
    return g;
}

/* The row of D that composes kernel (a, b): the real input channel. */
static long row_of(const Geometry *g, long a, long b) { return g->transposed ? a : a / (g->out / g->groups) * g->second + b; }

/* W'[a, b, k] = sum over the tiles of W[a, b, tile * K + k]  +  sum over s of D_delta[row, k, s] * W[a, b, s] */
static void compose(const Geometry *g, const double *W, const double *D, double *kernel) {
    for (long a = 0; a < g->first; a++)
        for (long b = 0; b < g->second; b++)
            for (long k = 0; k < g->K; k++) {
                const double *w = W + (a * g->second + b) * g->S, *d = D ? D + (row_of(g, a, b) * g->K + k) * g->S : NULL;
                double sum = 0;
                for (long tile = 0; tile < g->S / g->K; tile++) sum += w[tile * g->K + k];
                for (long s = 0; d && s < g->S; s++) sum += d[s] * w[s];
                kernel[(a * g->second + b) * g->K + k] = sum;
            }
}

/* From the kernel's gradient to those of W and D_delta, both zero before. */
static void compose_gradient(const Geometry *g, const double *W, const double *D, const double *grad,
                             double *grad_W, double *grad_D) {
    for (long a = 0; a < g->first; a++)
        for (long b = 0; b < g->second; b++)
            for (long k = 0; k < g->K; k++) {
                long w = (a * g->second + b) * g->S, d = (row_of(g, a, b) * g->K + k) * g->S;
                double upstream = grad[(a * g->second + b) * g->K + k];
                for (long tile = 0; tile < g->S / g->K; tile++) grad_W[w + tile * g->K + k] += upstream;
                for (long s = 0; D && s < g->S; s++) {
                    grad_W[w + s] += D[d + s] * upstream;
                    grad_D[d + s] += W[w + s] * upstream;
                }
            }
}

/* Where a position that may lie outside is read from; -1 where there is a zero. */
static long inside(long position, long size, char mode) {
    if (position >= 0 && position < size) return position;
    if (mode == 'e') return position < 0 ? 0 : size - 1;
    if (mode == 'c') return (position + size) % size;
    if (mode == 'r') return position < 0 ? -position : 2 * (size - 1) - position;
    return -1;
}

static void output_size(const Geometry *g, const long *x, long *y) {
    for (int axis = 0; axis < 3; axis++) {
        long span = g->dilation[axis] * (g->kernel[axis] - 1) + 1, pads = g->low[axis] + g->high[axis];
        y[axis] = g->transposed ? (x[axis] - 1) * g->stride[axis] + span - pads + g->extra[axis]
                                : (x[axis] + pads - span) / g->stride[axis] + 1;
    }
}

/* Every product of the convolution. The "walked" side is y, transposed x; each of its positions p meets, by tap t, position
   stride * p + dilation * t - low of the other side. With grad_y the gradients are formed, else y. */
static void convolve(const Geometry *g, long batch, const long *x_size, const double *x, const double *kernel,
                     double *y, const double *grad_y, double *grad_x, double *grad_kernel) {
    long y_size[3], p[3], t[3], q[3];
    output_size(g, x_size, y_size);
    const long *walked = g->transposed ? x_size : y_size, *met = g->transposed ? y_size : x_size;
    long x_space = x_size[0] * x_size[1] * x_size[2], y_space = y_size[0] * y_size[1] * y_size[2];
    long per_group = g->first / g->groups;
    for (long at = 0; at < walked[0] * walked[1] * walked[2]; at++)
        for (long tap = 0; tap < g->K; tap++) {
            p[0] = at / walked[2] / walked[1], p[1] = at / walked[2] % walked[1], p[2] = at % walked[2];
            t[0] = tap / g->kernel[2] / g->kernel[1], t[1] = tap / g->kernel[2] % g->kernel[1], t[2] = tap % g->kernel[2];
            int outside = 0;
            for (int axis = 0; axis < 3; axis++) {
                q[axis] = inside(g->stride[axis] * p[axis] + g->dilation[axis] * t[axis] - g->low[axis], met[axis], g->mode);
                outside |= q[axis] < 0;
            }
            if (outside) continue;
            long other = (q[0] * met[1] + q[1]) * met[2] + q[2];
            long x_at = g->transposed ? at : other, y_at = g->transposed ? other : at;
            for (long n = 0; n < batch; n++)
                for (long a = 0; a < g->first; a++)
                    for (long b = 0; b < g->second; b++) {
                        long partner = a / per_group * g->second + b, k = (a * g->second + b) * g->K + tap;
                        long xi = (n * g->in + (g->transposed ? a : partner)) * x_space + x_at;
                        long yi = (n * g->out + (g->transposed ? partner : a)) * y_space + y_at;
                        if (!grad_y) { y[yi] += kernel[k] * x[xi]; continue; }
                        grad_x[xi] += kernel[k] * grad_y[yi];
                        grad_kernel[k] += x[xi] * grad_y[yi];
                    }
        }
}

#endif

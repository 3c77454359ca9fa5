/* DO-Conv in C11 as a port of the doconv conformance suite: every operation, every dtype, no library but libm.

       cc -std=c11 -O2 port.c -o port -lm  &&  doconv check -- ./port

   Read main() first: it answers one JSON object per line. run() does one operation. doconv.h is the mathematics, safetensors.h
   and json.h are what a language with libraries has already. All sums are formed in double and rounded once. */

#include "doconv.h"
#include "safetensors.h"

static double *data_of(Tensor *tensor) { return tensor ? tensor->data : NULL; }

static void copy(Tensors *to, const Tensor *from) {
    Tensor *tensor = add(to, from->name, from->type, from->rank, from->shape);
    memcpy(tensor->data, from->data, (size_t)from->size * sizeof(double));
}

static void run(const Json *request) {
    Tensors in = {0}, out = {0};
    Geometry g = read_geometry(get(request, "geometry"));
    Type type = type_named(text_of(request, "dtype"), PROTOCOL_NAMES);
    Type parameters = type_named(text_of(request, "param_dtype"), PROTOCOL_NAMES);
    const char *operation = text_of(request, "operation");
    load(text_of(request, "inputs"), &in);
    Tensor *x = find(&in, "x"), *W = find(&in, "W"), *D = find(&in, "D_delta"), *bias = find(&in, "bias");

    long w_shape[] = {g.first, g.second, g.S}, d_shape[] = {g.in, g.K, g.S};
    long kernel_shape[5] = {g.first, g.second};
    for (int axis = 0; axis < g.rank; axis++) kernel_shape[2 + axis] = g.kernel[3 - g.rank + axis];

    if (!strcmp(operation, "initialise")) { /* W[..., :K] is the plain kernel, then zeros; surplus columns are random */
        Tensor *plain = find(&in, "weight");
        W = add(&out, "W", parameters, 3, w_shape);
        if (g.K > 1) add(&out, "D_delta", parameters, 3, d_shape);
        for (long i = 0; i < plain->size; i++) W->data[i / g.K * g.S + i % g.K] = plain->data[i];
        double bound = 1 / sqrt((double)(g.second * g.S)); /* 1 / sqrt(fan_in) */
        for (long i = 0; i < W->size; i++)
            if (i % g.S >= g.S / g.K * g.K) W->data[i] = bound * (2.0 * rand() / RAND_MAX - 1);
        Tensor *weight = add(&out, "weight", parameters, 2 + g.rank, kernel_shape);
        compose(&g, W->data, NULL, weight->data);
        save(text_of(request, "outputs"), &out);
        return;
    }

    Tensors own = {0}; /* composed and rounded to the parameters' type; what convolves is rounded to the activations' type */
    int folds = !strcmp(operation, "fold") || !strcmp(operation, "compose");
    Tensor *weight = add(folds ? &out : &own, "weight", parameters, 2 + g.rank, kernel_shape);
    compose(&g, W->data, data_of(D), weight->data);
    double *kernel = allocate((size_t)weight->size * sizeof(double));
    for (long i = 0; i < weight->size; i++) {
        weight->data[i] = round_to(weight->data[i], parameters);
        kernel[i] = round_to(weight->data[i], type);
    }

    if (x) {
        long x_size[3] = {1, 1, 1}, y_size[3], y_shape[5] = {x->shape[0], g.out};
        for (int axis = 0; axis < g.rank; axis++) x_size[3 - g.rank + axis] = x->shape[2 + axis];
        output_size(&g, x_size, y_size);
        for (int axis = 0; axis < g.rank; axis++) y_shape[2 + axis] = y_size[3 - g.rank + axis];
        long space = y_size[0] * y_size[1] * y_size[2];
        Tensor *grad_y = find(&in, "grad_y");
        if (!grad_y) { /* forward, fold */
            Tensor *y = add(&out, "y", type, 2 + g.rank, y_shape);
            convolve(&g, x->shape[0], x_size, x->data, kernel, y->data, NULL, NULL, NULL);
            for (long i = 0; bias && i < y->size; i++) y->data[i] += bias->data[i / space % g.out];
            if (bias && folds) copy(&out, bias);
        } else { /* backward */
            Tensor *grad_x = add(&out, "grad_x", type, x->rank, x->shape);
            Tensor *grad_W = add(&out, "grad_W", parameters, 3, w_shape);
            Tensor *grad_D = D ? add(&out, "grad_D_delta", parameters, 3, d_shape) : NULL;
            double *grad_kernel = allocate((size_t)weight->size * sizeof(double));
            convolve(&g, x->shape[0], x_size, x->data, kernel, NULL, grad_y->data, grad_x->data, grad_kernel);
            compose_gradient(&g, W->data, data_of(D), grad_kernel, grad_W->data, data_of(grad_D));
            Tensor *grad_bias = bias ? add(&out, "grad_bias", parameters, 1, &g.out) : NULL;
            for (long i = 0; bias && i < grad_y->size; i++) grad_bias->data[i / space % g.out] += grad_y->data[i];
        }
    }
    save(text_of(request, "outputs"), &out);
}

static const char HELLO[] =
    "{\"type\": \"hello\", \"protocol\": [1], \"name\": \"example-c\", \"version\": \"1\", \"language\": \"C11\", \"device\": \"cpu\","
    " \"supports\": {\"operations\": [\"compose\", \"forward\", \"backward\", \"fold\", \"initialise\"],"
    " \"dtypes\": {\"float32\": [\"float32\"], \"float64\": [\"float64\"],"
    " \"bfloat16\": [\"float32\", \"bfloat16\"], \"float16\": [\"float32\", \"float16\"]},"
    " \"spatial_ranks\": [1, 2, 3], \"transposed\": true, \"groups\": true,"
    " \"padding_modes\": [\"zeros\", \"reflect\", \"replicate\", \"circular\"]},"
    " \"numerics\": {\"algorithm\": \"direct\", \"accumulator\": {\"float32\": \"float64\", \"float64\": \"float64\","
    " \"bfloat16\": \"float64\", \"float16\": \"float64\"}}}\n";

static char *read_line(void) {
    static char *line;
    static size_t room;
    size_t length = 0;
    for (int c; (c = getchar()) != EOF && c != '\n';) {
        if (length + 2 > room && !(line = realloc(line, room = 2 * room + 256))) exit(1);
        line[length++] = (char)c;
    }
    if (!length) return NULL;
    line[length] = 0;
    return line;
}

int main(void) {
    for (char *line; (line = read_line()); free_all()) {
        const char *volatile id = "";
        if (!setjmp(on_failure)) {
            const Json *request = parse(line);
            if (!strcmp(text_of(request, "type"), "hello")) {
                fputs(HELLO, stdout);
                fflush(stdout);
                continue;
            }
            id = text_of(request, "id");
            run(request);
            *failure = 0;
        }
        fputs("{\"type\": \"result\", \"id\": ", stdout);
        print_string(id);
        fputs(*failure ? ", \"status\": \"error\", \"reason\": " : ", \"status\": \"ok\"", stdout);
        if (*failure) print_string(failure);
        fputs("}\n", stdout);
        fflush(stdout); /* without it the suite waits for ever */
    }
    return 0;
}

// Steps a core that Verilator wrote, block by block: numbers come on standard input, answers leave on standard output.
//
//     int64 inputs[]  ->  int64 cycles, outputs[], trace[]
#include "Vcore.h"
#include "verilated.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

static Vcore *core;

static void cycle() {
    core->clk = 0;
    core->eval();
    core->clk = 1;
    core->eval();
}

static int64_t extended(uint64_t bits, unsigned width) {
    return width < 64 ? (int64_t)(bits << (64 - width)) >> (64 - width) : (int64_t)bits;
}

static int64_t work(int64_t limit) {
    int64_t cycles = 0;
    while (core->busy) {
        cycle();
        if (++cycles > limit)
            exit(3);
    }
    return cycles;
}

// Arguments: numbers that enter and that leave, places of the trace, then for each cell where its values begin and
// their number per step.
int main(int argc, char **argv) {
    const int64_t inputs = atoll(argv[1]), outputs = atoll(argv[2]), places = atoll(argv[3]);
    std::vector<int64_t> seen;
    for (int k = 4; k < argc; k++)
        seen.push_back(atoll(argv[k]));
    core = new Vcore;
    core->clear = core->start = core->write = 0;
    cycle();
    work(1 << 24);
    core->clear = 1;
    cycle();
    core->clear = 0;
    cycle();
    work(1 << 24);
    std::vector<int64_t> in(inputs), out(outputs), trace(places);
    while (fread(in.data(), 8, inputs, stdin) == (size_t)inputs) {
        core->write = 1;
        for (int64_t i = 0; i < inputs; i++) {
            core->write_address = i;
            core->write_data = in[i] & (~0ull >> (64 - WRITE_BITS));
            cycle();
        }
        core->write = 0;
        core->start = 1;
        cycle();
        core->start = 0;
        std::fill(trace.begin(), trace.end(), 0);
        int64_t cycles = 0;
        do {
            if (core->seen) {
                const int64_t at = seen[2 * core->seen_cell];
                if (at >= 0)
                    trace[at + seen[2 * core->seen_cell + 1] * core->step + core->seen_place] =
                        extended(core->seen_value, SEEN_BITS);
            }
            cycle();
            if (++cycles > 1ll << 30)
                return 3;
        } while (core->busy);
        for (int64_t i = 0; i < outputs; i++) {
            core->read_address = i;
            cycle();
            cycle();
            out[i] = extended(core->read_data, READ_BITS);
        }
        fwrite(&cycles, 8, 1, stdout);
        fwrite(out.data(), 8, outputs, stdout);
        fwrite(trace.data(), 8, places, stdout);
        fflush(stdout);
    }
    delete core;
    return 0;
}

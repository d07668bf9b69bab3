// Steps the core that yosys wrote as C++ (CXXRTL), for the engine fpga-sim: a block per call.
#include "core.h"

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace {

struct Simulator {
    cxxrtl_design::p_core core;
    cxxrtl::debug_items items;

    Simulator() {
        core.debug_info(&items, nullptr, "");
    }

    // A rising edge, and no falling one, on which nothing depends: half the work. What is combinational then has the
    // value that it had at the edge.
    void cycle() {
        core.prev_p_clk.set<bool>(false);
        core.p_clk.set<bool>(true);
        core.step();
    }

    // Every register and memory whose name is public: between two blocks nothing else matters.
    template <class F>
    void each(F f) {
        for (auto &entry : items.table) {
            for (auto &item : entry.second) {
                const size_t chunks = (item.width + 31) / 32;
                if (item.type == cxxrtl::debug_item::MEMORY) {
                    f(item.curr, chunks * item.depth);
                } else if (item.type == cxxrtl::debug_item::WIRE) {
                    f(item.curr, chunks);
                    if (item.next != nullptr)
                        f(item.next, chunks);
                }
            }
        }
    }
};

template <size_t Bits>
int64_t extended(const cxxrtl::value<Bits> &value) {
    uint64_t bits = value.data[0];
    if (cxxrtl::value<Bits>::chunks > 1)
        bits |= (uint64_t)value.data[cxxrtl::value<Bits>::chunks - 1] << 32;
    return Bits < 64 ? (int64_t)(bits << (64 - Bits)) >> (64 - Bits) : (int64_t)bits;
}

} // namespace

extern "C" {

void *simulator_open(void) {
    return new Simulator();
}

void simulator_close(void *handle) {
    delete (Simulator *)handle;
}

// Fills the memory whose path ends so; words are of as many 32 bit parts as they need. Returns 0, or 1 where there is no such memory.
int simulator_load(void *handle, const char *name, const uint32_t *words, uint64_t parts) {
    const std::string end(name);
    for (auto &entry : ((Simulator *)handle)->items.table) {
        const std::string &path = entry.first;
        if (path.size() < end.size() || path.compare(path.size() - end.size(), end.size(), end) != 0)
            continue;
        auto &item = entry.second.at(0);
        const size_t chunks = (item.width + 31) / 32;
        if (item.type != cxxrtl::debug_item::MEMORY || chunks * item.depth != parts)
            continue;
        std::memcpy(item.curr, words, parts * sizeof(uint32_t));
        return 0;
    }
    return 1;
}

// Back to the state before the first block. Returns the cycles it took, or -1.
int64_t simulator_clear(void *handle, int64_t limit) {
    Simulator *s = (Simulator *)handle;
    s->core.p_clear.set<bool>(true);
    s->core.p_start.set<bool>(false);
    s->core.p_write.set<bool>(false);
    // After power-up it clears by itself, and takes the order when that is done.
    int64_t cycles = 0;
    do {
        s->cycle();
        if (++cycles > limit)
            return -1;
    } while (s->core.p_busy.get<bool>());
    s->core.p_clear.set<bool>(false);
    cycles = 0;
    do {
        s->cycle();
        if (++cycles > limit)
            return -1;
    } while (s->core.p_busy.get<bool>());
    return cycles;
}

// One block. `seen`: for each cell where its values begin, then their number per step; `trace` takes them.
// Returns the cycles from the start to the last result, or -1.
int64_t simulator_block(void *handle, const int64_t *in, int64_t inputs, int64_t *out, int64_t outputs,
                        const int64_t *seen, int64_t *trace, int64_t limit) {
    Simulator *s = (Simulator *)handle;
    auto &core = s->core;
    core.p_write.set<bool>(true);
    for (int64_t i = 0; i < inputs; i++) {
        core.p_write__address.set<uint32_t>((uint32_t)i);
        const uint64_t bits = (uint64_t)in[i];
        auto &data = core.p_write__data;
        const uint64_t kept = sizeof(data.data) / 4 > 1 ? bits : bits & 0xffffffffu;
        const unsigned width = NERVECORD_WRITE_BITS;
        const uint64_t masked = width < 64 ? kept & ((1ull << width) - 1) : kept;
        data.data[0] = (uint32_t)masked;
        if (sizeof(data.data) / 4 > 1)
            data.data[sizeof(data.data) / 4 - 1] = (uint32_t)(masked >> 32);
        s->cycle();
    }
    core.p_write.set<bool>(false);
    core.p_start.set<bool>(true);
    s->cycle();
    core.p_start.set<bool>(false);
    s->cycle();
    int64_t cycles = 1;
    while (core.p_busy.get<bool>()) {
        if (trace != nullptr && core.p_seen.get<bool>()) {
            const int64_t *cell = seen + 2 * core.p_seen__cell.get<uint32_t>();
            if (cell[0] >= 0)
                trace[cell[0] + cell[1] * core.p_step.get<uint32_t>() + core.p_seen__place.get<uint32_t>()] =
                    extended(core.p_seen__value);
        }
        s->cycle();
        if (++cycles > limit)
            return -1;
    }
    for (int64_t i = 0; i < outputs; i++) {
        core.p_read__address.set<uint32_t>((uint32_t)i);
        s->cycle();
        s->cycle();
        out[i] = extended(core.p_read__data);
    }
    return cycles;
}

// Bytes of what a block changes; and those bytes.
uint64_t simulator_size(void *handle) {
    uint64_t size = 0;
    ((Simulator *)handle)->each([&](uint32_t *, size_t parts) { size += parts * sizeof(uint32_t); });
    return size;
}

void simulator_save(void *handle, char *to) {
    ((Simulator *)handle)->each([&](uint32_t *data, size_t parts) {
        std::memcpy(to, data, parts * sizeof(uint32_t));
        to += parts * sizeof(uint32_t);
    });
}

void simulator_restore(void *handle, const char *from) {
    ((Simulator *)handle)->each([&](uint32_t *data, size_t parts) {
        std::memcpy(data, from, parts * sizeof(uint32_t));
        from += parts * sizeof(uint32_t);
    });
}
}

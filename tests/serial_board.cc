// Steps a board's hardware that yosys wrote as C++ (CXXRTL): what goes in and out is bytes of its serial line.
#include "core.h"

#include <cstdint>
#include <cstring>
#include <deque>
#include <string>

namespace {

struct Board {
    cxxrtl_design::p_policy device;
    cxxrtl::debug_items items;
    std::deque<uint8_t> answers;
    int64_t wait = -1;
    unsigned bits = 0, word = 0;

    Board() {
        device.debug_info(&items, nullptr, "");
        device.p_rx.set<bool>(true);
    }

    // A cycle, in which the other end of the line listens.
    void cycle() {
        device.p_clk.set<bool>(true);
        device.step();
        device.p_clk.set<bool>(false);
        device.step();
        const bool line = device.p_tx.get<bool>();
        if (wait < 0) {
            if (!line) {
                wait = NERVECORD_DIVIDER + NERVECORD_DIVIDER / 2;
                bits = word = 0;
            }
        } else if (--wait == 0) {
            if (bits == 8) {
                answers.push_back((uint8_t)word);
                wait = -1;
            } else {
                word |= (unsigned)line << bits++;
                wait = NERVECORD_DIVIDER;
            }
        }
    }

    void bit(bool value) {
        device.p_rx.set<bool>(value);
        for (int k = 0; k < NERVECORD_DIVIDER; k++)
            cycle();
    }
};

} // namespace

extern "C" {

void *board_open(void) {
    return new Board();
}

void board_close(void *handle) {
    delete (Board *)handle;
}

// Fills the memory whose path ends so; returns 0, or 1 where there is none.
int board_load(void *handle, const char *name, const uint32_t *words, uint64_t parts) {
    const std::string end(name);
    for (auto &entry : ((Board *)handle)->items.table) {
        const std::string &path = entry.first;
        if (path.size() < end.size() || path.compare(path.size() - end.size(), end.size(), end) != 0)
            continue;
        auto &item = entry.second.at(0);
        if (item.type != cxxrtl::debug_item::MEMORY || (item.width + 31) / 32 * item.depth != parts)
            continue;
        std::memcpy(item.curr, words, parts * sizeof(uint32_t));
        return 0;
    }
    return 1;
}

void board_send(void *handle, const uint8_t *bytes, uint64_t count) {
    Board *board = (Board *)handle;
    for (uint64_t i = 0; i < count; i++) {
        board->bit(false);
        for (int k = 0; k < 8; k++)
            board->bit((bytes[i] >> k) & 1);
        board->bit(true);
    }
}

void board_run(void *handle, uint64_t cycles) {
    for (uint64_t k = 0; k < cycles; k++)
        ((Board *)handle)->cycle();
}

// Bytes that the board sent, at most so many; returns how many.
uint64_t board_take(void *handle, uint8_t *bytes, uint64_t most) {
    auto &answers = ((Board *)handle)->answers;
    uint64_t count = 0;
    for (; count < most && !answers.empty(); count++) {
        bytes[count] = answers.front();
        answers.pop_front();
    }
    return count;
}
}
